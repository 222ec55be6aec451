# SPDX-License-Identifier: Apache-2.0
"""Ownership of cgroups: a foreign cgroup is not used,
killed or removed, whatever a path or an ID says.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence_runtime.cgroup import Cgroup as Group
from ringfence_runtime.cgroup import Hierarchies, detect
from tests.runtime.conftest import Box
from tests.support import force
from tests.support.cgroups import Cgroup, hierarchies, new_cgroup
from tests.support.waiting import process_state, wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def foreign(box: Box) -> Iterator[Cgroup]:
    """A cgroup with the container's name that already existed."""
    made = Cgroup(box.name).create()
    yield made
    for kind, path in made.paths.items():
        if kind == "freezer" and path.exists():
            (path / "freezer.state").write_text("THAWED")
    made.remove()


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """A process that no runtime may touch."""
    with subprocess.Popen(["/bin/sleep", "3600"]) as process:
        yield process
        process.kill()


def refused(box: Box) -> str:
    """As `Box.refused`, but the cgroup of that name stays."""
    got = box.run()
    assert got.returncode != 0, got.stdout
    assert not (box.runtime.root / box.name).exists()
    return got.stderr


@pytest.mark.parametrize("below", ["", "child"])
@pytest.mark.parametrize("named", [True, False], ids=["by path", "by id"])
def test_a_cgroup_with_processes_is_left_alone(
    box: Box, foreign: Cgroup, neighbour: subprocess.Popen[bytes], below: str, named: bool
) -> None:
    """In it or below it, and whether it is named by the configuration or only by the ID."""
    (foreign.child(below) if below else foreign).add(neighbour.pid)
    if not named:
        del box.config["linux"]["cgroupsPath"]
    assert "cgroup" in refused(box.args("/bin/true"))
    assert neighbour.poll() is None
    assert foreign.pids() == [neighbour.pid]


def test_a_tree_of_empty_cgroups_is_left_alone(box: Box, foreign: Cgroup) -> None:
    """An ID such as `kubepods` would otherwise take over an engine's cgroups of its pods."""
    child = foreign.child("child")
    assert "holds other cgroups" in refused(box.args("/bin/true"))
    assert all(path.is_dir() for path in child.paths.values())


def test_processes_in_one_hierarchy_are_enough(box: Box, neighbour: subprocess.Popen[bytes]) -> None:
    """Version 2 counts like the others."""
    path = hierarchies()["v2"] / box.name
    path.mkdir()
    try:
        (path / "cgroup.procs").write_text(str(neighbour.pid))
        assert "in use" in refused(box.args("/bin/true"))
        assert neighbour.poll() is None
    finally:
        (path.parent / "cgroup.procs").write_text(str(neighbour.pid))
        path.rmdir()


def test_an_empty_cgroup_is_used_and_stays(box: Box, foreign: Cgroup) -> None:
    """Its creator removes it; what the container left in it is killed."""
    box.config["linux"]["namespaces"] = [
        item for item in box.config["linux"]["namespaces"] if item["type"] not in ("pid", "cgroup")
    ]
    box.shell("sleep 3600 & echo $!")
    left = int(box.output())
    wait_for(lambda: process_state(left) in "-Z", "the processes of the container to be killed")
    assert all(path.is_dir() for path in foreign.paths.values())
    assert foreign.pids() == []


def freeze(group: Cgroup) -> None:
    """Freeze all that is in it, or will be."""
    if "freezer" in group.paths:
        (group.paths["freezer"] / "freezer.state").write_text("FROZEN")
    else:
        (group.path / "cgroup.freeze").write_text("1")


@pytest.mark.parametrize("above", [True, False])
def test_a_frozen_cgroup_is_refused(box: Box, foreign: Cgroup, above: bool) -> None:
    """Itself or one above it: the init would hang in it for ever."""
    freeze(foreign)
    if above:
        box.config["linux"]["cgroupsPath"] = f"/{box.name}/inner"
    assert "frozen" in refused(box.args("/bin/true"))
    assert not any((path / "inner").exists() for path in foreign.paths.values())


def test_a_damaged_state_does_not_guess_a_cgroup(
    box: Box, foreign: Cgroup, neighbour: subprocess.Popen[bytes]
) -> None:
    """`delete --force` removes the state and reports what it cannot know."""
    foreign.add(neighbour.pid)
    directory = box.runtime.root / box.name
    directory.mkdir(parents=True)
    (directory / "state.json").write_text('{"id": ')
    got = box.do("delete", "--force")
    assert got.returncode == 0
    assert "damaged" in got.stderr
    assert not directory.exists()
    assert neighbour.poll() is None


def test_the_first_state_names_the_cgroup(box: Box) -> None:
    """If a launch is killed later, `delete --force` knows what to remove, and what to leave."""
    box.start()
    state = json.loads((box.runtime.root / box.name / "state.json").read_text())
    assert state["cgroup"]["path"] == f"/{box.name}"
    assert state["cgroup"]["foreign"] == []


def test_delete_kills_an_init_in_a_foreign_frozen_cgroup(box: Box) -> None:
    """In a version 1 freezer a task cannot even die."""
    freezer = hierarchies().get("freezer")
    if freezer is None:
        force.elsewhere("version 1 has the freezer that this is about")
    box.start()
    pid = box.state()["pid"]
    path = freezer / f"{box.name}-foreign"
    path.mkdir()
    try:
        (path / "cgroup.procs").write_text(str(pid))
        (path / "freezer.state").write_text("FROZEN")
        got = box.do("delete", "--force")
        assert got.returncode == 0, got.stderr
        assert process_state(pid) in "-Z"
    finally:
        (path / "freezer.state").write_text("THAWED")
        path.rmdir()


# Each runs as long as it lives, so a late check still finds it. The pids controller limits their
# number, and the alarm (which no child inherits) their time, should the test itself be killed.
BOMB = """
import os, signal, time
signal.alarm(120)
while True:
    try:
        if os.fork() == 0:
            signal.alarm(120)
    except BlockingIOError:
        time.sleep(0.001)
"""


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_fork_bomb_is_killed_completely(version: str, box: Box) -> None:
    """By the freezer on a version 1 host, by cgroup.kill on version 2."""
    found = detect()
    if version == "v1" and not found.v1:
        force.elsewhere("no version 1 hierarchy is mounted")
    one = Hierarchies(found.v1, "") if version == "v1" else Hierarchies({}, found.unified)
    group = Group.at(f"/{box.name}", one)
    group.claim()
    group.create()
    with new_cgroup("bomb") as limit:
        pids = Path(group.directory("pids") or limit.paths.get("pids") or str(group.unified))
        (pids / "pids.max").write_text("60")
        join = "".join(f"echo $$ > {path}/cgroup.procs; " for path in {str(pids), *group.dirs.values()})
        begin = ["/bin/sh", "-c", join + 'exec "$@"', "sh", sys.executable, "-c", BOMB]
        with subprocess.Popen(begin) as bomb:
            try:
                wait_for(lambda: len(group.processes()) > 20, "it to spread")
            finally:
                group.kill()
            assert group.processes() == []
            assert bomb.wait(60) == -signal.SIGKILL
        group.destroy()
    assert not any(os.path.exists(path) for path in group.dirs.values())
