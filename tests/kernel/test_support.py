# SPDX-License-Identifier: Apache-2.0
"""The kernel tests' own tools work as described, and leave nothing behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.container import Bundle, Container, new_container
from tests.support.waiting import process_state, wait_for

pytestmark = pytest.mark.root


def test_a_command_runs_inside_its_cgroup(cgroup: Cgroup) -> None:
    """Every hierarchy says that the command is in the test's cgroup."""
    got = cgroup.run(["cat", "/proc/self/cgroup"], capture_output=True, text=True)
    places = {line.rpartition(":")[2] for line in got.stdout.splitlines()}
    assert f"/{cgroup.name}" in places


def test_removal_kills_remaining_processes() -> None:
    """A cgroup with a process and a child cgroup in it is removed completely."""
    with new_cgroup("left") as made:
        child = made.child("below")
        process = child.popen(["sleep", "100"])
        wait_for(lambda: process.pid in made.pids(), "the process to join")
        paths = [*made.paths.values(), *child.paths.values()]
    assert process.wait(60) == -signal.SIGKILL
    assert not any(path.exists() for path in paths)


@pytest.mark.needs("runc", "busybox")
def test_a_container_has_its_own_namespaces_and_cgroup(container: Container) -> None:
    """The container sees its own pid 1, and the host finds it in the requested cgroup."""
    assert container.exec("/bin/cat", "/proc/1/comm", text=True).stdout.strip() == "sleep"
    assert container.pid in container.cgroup.pids()
    assert Path(f"/proc/{container.pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()


@pytest.mark.needs("runc", "busybox")
def test_a_container_leaves_nothing(bundle: Bundle) -> None:
    """After the block neither the container's processes nor its cgroups are there."""
    with new_container(bundle, "gone") as made:
        pid = made.pid
    wait_for(lambda: process_state(pid) in "-Z", "the container's process to end")
    assert not any(path.exists() for path in made.cgroup.paths.values())
