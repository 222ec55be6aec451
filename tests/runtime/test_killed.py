# SPDX-License-Identifier: Apache-2.0
"""A command is killed at any system call of its own or of a child: `delete --force` leaves
nothing.

Containers that ran before keep running.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.runtime.test_faults import clean
from tests.support import force
from tests.support.waiting import patience, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]
BOTH_INITS = True
# Every call in the long form; otherwise every nth, which makes about twenty kills per command.
MOST = 1 << 30 if os.environ.get("RINGFENCE_FUZZ") else 20
CALL = re.compile(r"^(\d+) +(\w+)\(", re.M)


def traced(box: Box, options: list[str], *words: str) -> int:
    """Run a command of the runtime under strace, with all that it forks. Returns its status.

    The tracer is no process's parent, and ends with the last process that it traces, even the
    container's.
    """
    command = [force.need_program("strace"), "-D", "-f", *options, str(box.runtime.executable)]
    return subprocess.run(
        [*command, "--root", str(box.runtime.root), *words], cwd=box.directory, check=False,
        timeout=patience(60), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ).returncode  # fmt: skip


def tracers(log: Path) -> list[str]:
    """Returns the processes that write this trace."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"strace") and str(log).encode() in words:
                found.append(path.parent.name)
    return found


def steps(box: Box, log: Path, *words: str) -> list[tuple[str, int]]:
    """Returns (call, its number within its process) for
    all processes of a run of the command, once each.
    """
    assert traced(box, ["-o", str(log)], *words) == 0
    clean(box)
    wait_for(lambda: not tracers(log), "the trace to be complete")
    counts: dict[tuple[str, str], int] = {}
    found: dict[tuple[str, int], None] = {}
    for pid, name in CALL.findall(log.read_text()):
        counts[pid, name] = counts.get((pid, name), 0) + 1
        found[name, counts[pid, name]] = None
    assert len(found) > 30, "the trace is not of a runtime command"
    return list(found)


def some(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Returns a part of them, from the first to the last."""
    return found[:: max(1, len(found) // MOST)]


def kill_at(box: Box, step: tuple[str, int], *words: str) -> int:
    """Send SIGKILL to the first process that makes
    that call that often. Returns the command's status.
    """
    name, which = step
    inject = ["-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={which}"]
    return traced(box, ["-o", "/dev/null", *inject], *words)


def inside(box: Box) -> list[int]:
    """Returns the processes of the container."""
    got: list[int] = json.loads(box.runtime("ps", "--format", "json", box.name).stdout)
    return got


def waiting(box: Box) -> None:
    """A container that waits for its start."""
    box.write()
    assert box.do("create", capture=False).returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("command", ["run", "create"])
def test_a_launch_that_is_killed_leaves_nothing(box: Box, tmp_path: Path, command: str) -> None:
    """The runtime itself, the init, or the process that makes the init."""
    box.write()
    words = ("run", "--detach", box.name) if command == "run" else ("create", box.name)
    found = steps(box, tmp_path / "trace", *words)
    failed = 0
    for step in some(found):
        failed += kill_at(box, step, *words) != 0
        clean(box)
    assert failed > len(some(found)) // 2  # the number of some calls varies from run to run
    assert box.do(*words[:-1], capture=False).returncode == 0, "and the name can be used again"
    clean(box)


def settled(box: Box) -> str:
    """Returns the status if it agrees with what the process does; otherwise an empty string.

    An init that the killed command released is between the two for a moment; staying there is an
    error.
    """
    state, executes = box.state(), False
    with contextlib.suppress(OSError):
        executes = Path(f"/proc/{state['pid']}/cmdline").read_bytes().startswith(b"/bin/sleep")
    return str(state["status"]) if (state["status"] == "running") == executes else ""


def test_a_killed_start_leaves_a_correct_state(box: Box, tmp_path: Path) -> None:
    """The container still waits, runs, or is removed;
    it is never `created` while its workload executes.
    """
    waiting(box)
    found = steps(box, tmp_path / "trace", "start", box.name)
    again = []
    for step in some(found):
        waiting(box)
        kill_at(box, step, "start", box.name)
        if wait_for(lambda: settled(box), "status and process to agree") == "created":
            again.append(box.do("start").returncode)
            wait_for(lambda: settled(box) == "running", "the workload")
        clean(box)
    assert 0 in again
    assert again.count(1) < len(again) / 2, "refused only if the killed one had been received"


def test_a_killed_exec_does_not_affect_the_container(box: Box, tmp_path: Path) -> None:
    """The container keeps running, and nothing of the exec outlives its end."""
    box.start()
    words = ("exec", box.name, "/bin/true")
    found = steps(box, tmp_path / "trace", *words)
    box.start()
    for step in some(found):
        kill_at(box, step, *words)
        assert box.state()["status"] == "running"
        wait_for(lambda: inside(box) == [box.state()["pid"]], "the exec to be gone")
    assert box.exec("/bin/true").returncode == 0
    clean(box)


@pytest.mark.long
@pytest.mark.parametrize("status", ["running", "created", "stopped"])
def test_a_delete_that_is_killed_can_be_repeated(box: Box, tmp_path: Path, status: str) -> None:
    """With force, whatever the first one did."""

    def prepare() -> None:
        if status == "created":
            waiting(box)
        else:
            box.start()
        if status == "stopped":
            assert box.runtime("kill", box.name, "KILL").returncode == 0
            box.wait("stopped")

    prepare()
    words = ("delete", "--force", box.name)
    found = steps(box, tmp_path / "trace", *words)
    for step in some(found):
        prepare()
        code = kill_at(box, step, *words)
        assert code in (0, 1, -signal.SIGKILL)
        clean(box)


def test_no_runtime_process_is_left_beside_a_detached_container(box: Box) -> None:
    """On the whole host: none that executes the runtime,
    has its state open, or descends from the command.
    """
    before = {path.name for path in Path("/proc").glob("[0-9]*")}
    box.start()
    init = str(box.state()["pid"])

    def remaining() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            if path.name in before or path.name == init:
                continue
            try:
                words = (path / "cmdline").read_bytes()
                open_ = [os.readlink(fd) for fd in (path / "fd").iterdir()]
            except OSError:
                continue
            texts = [words.decode(errors="replace"), *open_]
            marks = (box.name, str(box.runtime.executable), str(box.runtime.root))
            if any(mark in text for mark in marks for text in texts) or words.startswith(b"ringfence-init"):
                found.append(f"{path.name}: {words!r}")
        return found

    wait_for(lambda: not remaining(), "no runtime process to be left")
    assert Path(f"/proc/{init}/cmdline").read_bytes() == b"/bin/sleep\x003600\x00"
