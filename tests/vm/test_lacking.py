# SPDX-License-Identifier: Apache-2.0
"""What `ringfence probe` says on a kernel that was set so that programs cannot decide at functions, or not
load at all.

Other reasons have tests of their own: no trampolines, and no hooks for names
(tests/unit/bpf/test_hook_probe.py), a function full of other products' programs
(tests/kernel/test_hook_mechanism.py), preemption that is switched (tests/kernel/test_preemption_switch.py).
"""

from __future__ import annotations

import json
import re
import sys

import pytest

from tests.vm.test_vm import kernel_or_skip
from tools.vm.machine import Job, run
from tools.vm.qemu import WITHOUT_BPF
from tools.vm.suite import ROOT, guest_environment

pytestmark = [pytest.mark.vm, pytest.mark.slow]
FTRACE = "/proc/sys/kernel/ftrace_enabled"
LOCKDOWN = "/sys/kernel/security/lockdown"


def test_probe_names_what_a_setting_of_the_kernel_rules_out() -> None:
    """First no programs at functions, and rules kill; then lockdown, and the agent cannot run."""
    kernel = kernel_or_skip("6.1")
    probe = f"{sys.executable} -m ringfence probe -o json; echo status $?"
    script = f"echo 0 > {FTRACE}; {probe}; echo 1 > {FTRACE}; echo confidentiality > {LOCKDOWN}; {probe}"
    job = Job(["sh", "-c", script], ROOT, guest_environment(kernel), timeout=600, append=WITHOUT_BPF)
    outcome = run(kernel, job)
    assert outcome.status == 0, outcome.reason
    (ftrace, status), (locked, locked_status) = [
        (json.loads(text), int(code))
        for text, code in re.findall(r"^(\{.*?^\})\s*status (\d+)", outcome.console, re.M | re.S)
    ]
    assert (status, ftrace["missing"]) == (0, [])
    assert any("kernel.ftrace_enabled is 0" in line for line in ftrace["more"])
    assert {row["by"] for row in ftrace["events"] if row["event"] in ("mount", "file.open")} == {"kill"}
    assert locked_status == 3
    assert ["lockdown is in mode confidentiality" in lack["what"] for lack in locked["missing"]] == [True]
