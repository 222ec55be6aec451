# SPDX-License-Identifier: Apache-2.0
"""Custom probes at functions of the kernel, and with its installed headers.

In virtual machines: a developer's kernel may have neither.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ringfence.bpf.capabilities import NodeCapabilities
from tests.kernel.test_custom_probes import agent_with
from tests.support import force
from tests.support.cgroups import new_cgroup
from tests.support.probes import need_bcc, place_example, place_probe

pytestmark = [pytest.mark.root, pytest.mark.slow]
EVENT = "struct event { struct rf_task task; s32 number; };\n"
FILL = "struct event e = { .number = %s }; if (rf_identify_current(&e.task)) rf_send(&e); return 0;"
#: all at one function, whose arguments have been the same since 2014: its argument and its result
HOOKS = {
    "kprobe": ("int kprobe__vfs_fallocate(struct pt_regs *ctx)", "(s32)PT_REGS_PARM3(ctx)", 4711),
    "kretprobe": ("int kretprobe__vfs_fallocate(struct pt_regs *ctx)", "(s32)PT_REGS_RC(ctx)", -errno.EFBIG),
    "kfunc": ("KFUNC_PROBE(vfs_fallocate, struct file *file, int mode, s64 offset)", "(s32)offset", 4711),
    "kretfunc": (
        "KRETFUNC_PROBE(vfs_fallocate, struct file *file, int mode, s64 offset, s64 length, int result)",
        "result",
        -errno.EFBIG,
    ),
}
TOO_MUCH = ("fallocate", "-o", "4711", "-l", str(2**63 - 1))


@pytest.fixture(autouse=True)
def _bcc() -> None:
    need_bcc()


@pytest.mark.parametrize("kind", HOOKS)
def test_a_function_of_the_kernel_can_be_watched(tmp_path: Path, kind: str) -> None:
    """fallocate(2) beyond the greatest offset: 4711 goes in, -EFBIG is returned."""
    needs = Path("/sys/bus/event_source/devices/kprobe") if "probe" in kind else None
    node = NodeCapabilities.detect()
    if not force.in_guest() and ((needs and not needs.exists()) or (not needs and node.lsm_lack)):
        force.elsewhere("this kernel has no kprobes or refuses BPF trampolines")
    hook, value, expected = HOOKS[kind]
    source = f"{EVENT}{hook}\n{{\n\t{FILL % value}\n}}\n"
    place_probe(tmp_path / "p", "calls", source, more="  export: lines\n")
    with agent_with(tmp_path, tmp_path / "p", "calls") as agent, new_cgroup() as cgroup:
        assert cgroup.run([*TOO_MUCH, str(tmp_path / "file")], capture_output=True).returncode == 1
        record = agent.wait_record(lambda r: r.get("event") == "probe.calls", "the event", seconds=10)
        assert record["details"] == {"number": expected}
        assert record["container"]["id"] == cgroup.name
        assert record["process"]["comm"] == "fallocate"


def test_installed_headers_may_be_used(tmp_path: Path) -> None:
    """`probes.headers: installed`: the distribution's; no tree is generated from the BTF."""
    headers = Path(f"/lib/modules/{os.uname().release}/build")
    if not (headers / "include/generated/autoconf.h").exists():
        force.elsewhere("the headers of this kernel are not installed")
    place_example("run-queue-latency", tmp_path / "p")
    flags = {"probes_headers": "installed"}
    with agent_with(tmp_path, tmp_path / "p", "run-queue-latency", **flags) as agent:
        assert agent.metrics()["ringfence_probe_up", (("probe", "run-queue-latency"),)] == 1
        assert not (tmp_path / "agent/state/probes/headers").exists()
