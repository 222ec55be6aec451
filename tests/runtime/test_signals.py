# SPDX-License-Identifier: Apache-2.0
"""Workloads and hooks start with default signals, whatever the runtime's starter ignores and
blocks.

No shell is used: each changes its own masks as it starts.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.conftest import Box
from tests.support.waiting import patience

pytestmark = pytest.mark.root
BOTH_INITS = True

LIBC = ctypes.CDLL(None, use_errno=True)
RT_SIGACTION, RT_SIGPROCMASK = (13, 14) if os.uname().machine == "x86_64" else (134, 135)
STATUS = "/proc/self/status"
HELD = ~(1 << signal.SIGKILL - 1 | 1 << signal.SIGSTOP - 1) & (1 << 64) - 1  # all that can be ignored


def block_everything() -> None:
    """Ignore and block all 64, by the raw calls: the C library does not allow 32 and 33."""
    ignore = (ctypes.c_ulong * 4)(int(signal.SIG_IGN))
    for number in range(1, 65):
        LIBC.syscall(RT_SIGACTION, number, ignore, None, 8)
    LIBC.syscall(RT_SIGPROCMASK, int(signal.SIG_SETMASK), ctypes.byref(ctypes.c_uint64(HELD)), None, 8)


HOLDING: dict[str, Any] = {"preexec_fn": block_everything, "restore_signals": False}


def masks(text: str) -> tuple[int, int]:
    """Returns the masks of ignored and of blocked signals in /proc/PID/status."""
    lines = dict(line.split(":\t") for line in text.splitlines() if line.startswith("Sig"))
    return int(lines["SigIgn"], 16), int(lines["SigBlk"], 16)


def run_hook(box: Box, kind: str, log: str) -> None:
    """`run`, started with all signals blocked, with a hook that copies its status to `log`."""
    words = ["dd", f"if={STATUS}", f"of={log}"]
    box.config["hooks"] = {kind: [{"path": "/bin/dd", "args": words}]}
    got = box.args("/bin/true").run(**HOLDING)
    assert got.returncode == 0, got.stderr


def test_everything_is_blocked() -> None:
    """The precondition of the tests below: the masks of a program that is started their way."""
    got = subprocess.run(["/bin/cat", STATUS], stdout=subprocess.PIPE, text=True, check=True, **HOLDING)
    assert masks(got.stdout) == (HELD, HELD)


def test_a_workload(box: Box) -> None:
    """None ignored, none blocked."""
    got = box.args("/bin/cat", STATUS).run(**HOLDING)
    assert got.returncode == 0, got.stderr
    assert masks(got.stdout) == (0, 0)


def test_a_program_of_exec(box: Box) -> None:
    """The same."""
    got = box.start().exec("/bin/cat", STATUS, **HOLDING)
    assert got.returncode == 0, got.stderr
    assert masks(got.stdout) == (0, 0)


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "poststart", "poststop"])
def test_a_hook(box: Box, tmp_path: Path, kind: str) -> None:
    """The same: Python's own ignores SIGPIPE, which a pipeline of a hook relies on."""
    run_hook(box, kind, str(tmp_path / "status"))
    assert masks((tmp_path / "status").read_text()) == (0, 0)


def test_a_hook_in_the_container(box: Box) -> None:
    """The same."""
    run_hook(box, "startContainer", "/status")
    assert masks((box.rootfs / "status").read_text()) == (0, 0)


def test_the_code_of_a_workload_is_still_reported(box: Box) -> None:
    """SIGCHLD, too: where it is ignored, the kernel keeps no exit status of a child."""
    assert box.shell("exit 7").run(**HOLDING).returncode == 7


def test_a_signal_is_still_passed_on(box: Box) -> None:
    """To a workload in the foreground, also where SIGTERM was blocked and ignored."""
    box.shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done").write()
    command = [str(box.runtime.executable), "--root", str(box.runtime.root), "run", box.name]
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=box.directory, **pipe, **HOLDING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(patience(60)) == 9
