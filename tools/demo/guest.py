# SPDX-License-Identifier: Apache-2.0
"""The demonstration in a virtual machine: QEMU, and a kernel of Debian with BPF-LSM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ringfence.errors import Error
from tests.escape.program import build
from tools.demo import show
from tools.vm.catalogue import Prepared, prepared
from tools.vm.fetch import fetch
from tools.vm.machine import ENVIRONMENT, Job, run
from tools.vm.suite import SLOWDOWN, warm

__all__ = ["CANNOT", "in_guest"]

ROOT = Path(__file__).resolve().parents[2]
CANNOT = 4
#: The verifier of 6.1 takes four times as long, which is minutes in an emulated machine.
_KERNEL = "6.12"
_TIMEOUT = 1200.0
#: Served by a user, the files of root have another owner, whom mount(8) and others would become.
_AS_ROOT = 'busybox mount -o remount,nosuid / && exec "$@"'


def in_guest() -> int:
    """Runs it there. Returns its status; CANNOT, after a line that says why, if no guest can be started."""
    try:
        kernel = _kernel()
        build()
        warm(())
        shown = {} if show.COLOUR else {"NO_COLOR": "1"}
        settings = {"RINGFENCE_VM": kernel.name, "RINGFENCE_TEST_SLOWDOWN": str(SLOWDOWN), **shown}
        environment = {**ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1", **settings}
        words = ["busybox", "sh", "-c", _AS_ROOT, "sh"] if os.geteuid() else []
        job = Job([*words, sys.executable, "-m", "tools.demo"], ROOT, environment, timeout=_TIMEOUT)
        outcome = run(kernel, job, echo=sys.stdout.buffer)
    except (RuntimeError, OSError, Error, subprocess.SubprocessError) as error:
        return _cannot(" ".join(str(error).split()))
    return _cannot(f"the virtual machine {outcome.reason}") if outcome.status is None else outcome.status


def _kernel() -> Prepared:
    if os.geteuid() == 0:
        subprocess.run([ROOT / "tools/deps", "vm"], check=True)
    if prepared(_KERNEL) is None:
        print(f"demo: fetching Linux {_KERNEL} from Debian's mirror, once", flush=True)
    fetch([_KERNEL])
    kernel = prepared(_KERNEL)
    assert kernel is not None
    return kernel


def _cannot(reason: str) -> int:
    print(f"demo: no virtual machine here: {reason[:400]}", file=sys.stderr)
    return CANNOT
