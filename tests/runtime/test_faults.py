# SPDX-License-Identifier: Apache-2.0
"""Failures in the middle of a launch: nothing is left, and one error gives the reason.

The runtime is killed at any of its system calls, the init is killed, memory or the disk is full,
two commands run at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.support.waiting import patience, process_state, wait_for

pytestmark = [pytest.mark.root]


def processes(box: Box) -> list[str]:
    """Returns the names of the processes in this container's cgroups.

    Ended ones are not counted, even while they wait to be reaped by the host's init.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"/{box.name}" in (path / "cgroup").read_text() and process_state(int(path.name)) != "Z":
                found.append((path / "comm").read_text().strip())
    return found


def left_over(box: Box) -> list[str]:
    """Returns every trace of the container."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if box.name in line]
    state = [str(path) for path in box.runtime.root.glob(f"{box.name}*")]
    return [*map(str, box.cgroups()), *state, *processes(box), *mounts]


def launch(box: Box, *before: str) -> subprocess.CompletedProcess[bytes]:
    """`run --detach` with a command in front of it."""
    command = [*before, str(box.runtime.executable), "--root", str(box.runtime.root)]
    return subprocess.run(
        [*command, "run", "--detach", box.name], cwd=box.directory, check=False, timeout=patience(60),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def clean(box: Box) -> None:
    """`delete --force` by the next runtime. Returns what it leaves."""
    got = box.do("delete", "--force")
    assert got.returncode == 0, got.stderr
    wait_for(lambda: not left_over(box), f"nothing to be left, but there is {left_over(box)}")


@contextlib.contextmanager
def hunting(box: Box) -> Iterator[list[int]]:
    """Kills every process that enters the container's
    cgroup, as the kernel does when memory is short.
    """
    hits: list[int] = []
    stop = threading.Event()

    def hunt() -> None:
        while not stop.is_set():
            for path in box.cgroups():
                with contextlib.suppress(OSError, ValueError):
                    for pid in (path / "cgroup.procs").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
                        hits.append(int(pid))

    thread = threading.Thread(target=hunt)
    thread.start()
    try:
        yield hits
    finally:
        stop.set()
        thread.join()


def test_an_init_that_is_killed_while_it_is_made_is_one_error(box: Box) -> None:
    """The launch is undone: no cgroup, no state, no process."""
    box.write()
    with hunting(box) as hits:
        for _ in range(10):
            got = box.do("run")
            assert got.returncode != 0
            assert "Traceback" not in got.stderr
            assert not (box.runtime.root / box.name).exists()
    assert hits
    wait_for(lambda: not left_over(box), "nothing to be left")


def test_too_little_memory_to_start_is_one_error(box: Box) -> None:
    """The kernel kills the init for memory, and the error says so."""
    box.config["linux"]["resources"] = {"memory": {"limit": 8 << 10, "swap": 8 << 10}}
    assert "memory" in box.refused()


def test_a_full_disk_is_one_error_and_leaves_nothing(box: Box, tmp_path: Path) -> None:
    """The state directory lies on a filesystem that
    is full at the first file, the second, or later.
    """
    box.write()
    place = tmp_path / "full"
    place.mkdir()
    for room in (0, 1, 2, 3):
        script = (
            f"mount -t tmpfs -o size=16k none {place} && mkdir {place}/state && "
            f"dd if=/dev/zero of={place}/fill bs=4k count={4 - room} 2>/dev/null; "
            f"{box.runtime.executable} --root {place}/state run {box.name}; code=$?; "
            f"ls {place}/state; exit $code"
        )
        box.args("/bin/true").write()
        got = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            cwd=box.directory, capture_output=True, text=True, check=False, timeout=patience(60),
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if got.returncode:
            assert "No space left on device" in got.stderr
        else:
            assert room > 1
        assert got.stdout == "", "state is left"
        assert "Traceback" not in got.stderr
        assert not box.cgroups()


def test_concurrent_deletes_kills_and_a_start(box: Box) -> None:
    """Eight deletes, a start and a kill race for one container; none hangs, nothing is left."""
    for _ in range(5):
        box.write()
        log = box.directory / "log"
        got = box.runtime("--log", str(log), "create", box.name, cwd=box.directory, capture=False)
        assert got.returncode == 0, log.read_text()
        base = [str(box.runtime.executable), "--root", str(box.runtime.root)]
        commands = [["start"], ["kill", box.name, "KILL"], *([["delete", "--force"]] * 8)]
        racers = [
            subprocess.Popen(
                [*base, *words, *([] if box.name in words else [box.name])],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            for words in commands
        ]  # fmt: skip
        for racer in racers:
            _, said = racer.communicate(timeout=patience(60))
            assert "Traceback" not in said
            assert "internal error" not in said
        clean(box)
