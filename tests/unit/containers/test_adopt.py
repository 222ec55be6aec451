# SPDX-License-Identifier: Apache-2.0
"""Adoption of running containers, also while the kernel enrols."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.config.values import Pattern
from ringfence.containers import adopt
from ringfence.containers.adopt import Adopter
from ringfence.containers.hierarchy import CgroupDir, Hierarchy, HierarchyKind, walk
from ringfence.containers.model import State
from ringfence.containers.registry import Registry
from tests.unit.containers.fakes import FakeSlots

PATTERNS = (Pattern("rftest-", hex64=False),)


class Host:
    """A directory as the hierarchy, and the kernel's table."""

    def __init__(self, root: Path, slots: int = 8) -> None:
        self.root = root
        self.slots = FakeSlots(slots)
        self.registry = Registry(self.slots)
        self.hierarchy = Hierarchy(HierarchyKind.V2, "", root, root)
        self.adopter = Adopter(self.hierarchy, PATTERNS, self.slots, self.registry)

    def mkdir(self, path: str) -> int:
        (self.root / path).mkdir(parents=True, exist_ok=True)
        return (self.root / path).stat().st_ino


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host without containers."""
    return Host(tmp_path)


def test_only_matching_cgroups_are_enrolled(host: Host) -> None:
    """Other cgroups of the host are ignored, and those below a container are not examined."""
    system, outer = host.mkdir("system.slice"), host.mkdir("pods/rftest-a")
    inner = host.mkdir("pods/rftest-a/init/deep")
    done = host.adopter.adopt()
    assert (done.containers, done.refused) == (1, 0)
    assert host.slots.owners.keys() == {outer}
    assert not {system, inner} & host.slots.owners.keys()
    [found] = host.registry
    assert (found.id, found.cgroup_path, found.adopted, found.slot) == (
        "rftest-a",
        "/pods/rftest-a",
        True,
        host.slots.owners[outer],
    )


def test_the_agents_cgroup_is_no_container_but_others_below_it_are(tmp_path: Path) -> None:
    """If the node is a container, everything is below one cgroup with a container's name."""
    host = Host(tmp_path)
    around, own = host.mkdir("rftest-node"), host.mkdir("rftest-node/rftest-agent")
    other = host.mkdir("rftest-node/rftest-a")
    hierarchy = Hierarchy(HierarchyKind.V2, "", tmp_path, tmp_path)
    never = frozenset((around, own))
    adopter = Adopter(hierarchy, PATTERNS, host.slots, host.registry, never=never)
    assert adopter.adopt().containers == 1
    assert set(host.slots.owners) == {other}


def test_a_matching_name_below_a_container_belongs_to_it(host: Host) -> None:
    """The topmost matching cgroup is the container."""
    host.mkdir("rftest-a/rftest-b")
    assert host.adopter.adopt().containers == 1


def test_adopting_again_changes_nothing(host: Host) -> None:
    """It may be called at any time."""
    host.mkdir("rftest-a/x")
    host.adopter.adopt()
    before = dict(host.slots.owners)
    again = host.adopter.adopt()
    assert again.containers == 0
    assert host.slots.owners == before
    assert len(host.slots.free_slots) == 7


def test_a_cgroup_enrolled_by_the_kernel_is_not_enrolled_again(host: Host) -> None:
    """Its slot stays, and the registry learns of the container without a CREATE."""
    cgroup = host.mkdir("rftest-a")
    slot = host.slots.enroll(cgroup)
    assert host.adopter.adopt().containers == 0
    [found] = host.registry
    assert (found.slot, found.id, found.adopted) == (slot, "rftest-a", False)


def test_the_kernel_may_enrol_between_check_and_bind(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """BPF_NOEXIST decides; the taken slot is put back, and none is lost."""
    cgroup = host.mkdir("rftest-a")
    fill = host.slots.fill

    def overtaken(slot: int, cgroup_id: int, created_ns: int) -> None:
        host.slots.enroll(cgroup)
        fill(slot, cgroup_id, created_ns)

    monkeypatch.setattr(host.slots, "fill", overtaken)
    assert host.adopter.adopt().containers == 0
    used = dict(host.slots.used())
    assert [value.cgroup for value in used.values()] == [cgroup]
    assert sorted([*used, *host.slots.free_slots]) == list(range(8))


def test_a_cgroup_that_vanishes_meanwhile_is_unbound(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rmdir was too early for the kernel to know of a container there."""
    host.mkdir("rftest-a")
    monkeypatch.setattr(adopt, "cgroup_id", lambda path: (_ for _ in ()).throw(FileNotFoundError()))
    assert host.adopter.adopt().containers == 0
    assert host.slots.owners == {}
    assert len(host.slots.free_slots) == 8


def test_cgroups_below_a_container_cost_nothing(host: Host) -> None:
    """Any number of them takes no slot, no entry and no time."""
    for number in range(300):
        host.mkdir(f"rftest-a/{number}/x")
    outer = host.mkdir("rftest-a")
    host.mkdir("zz/rftest-b")
    assert host.adopter.adopt().containers == 2
    assert len(host.slots.owners) == 2
    assert outer in host.slots.owners


def test_a_container_that_appears_late_is_found_by_the_second_pass(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mkdir started before the programs were attached, and it became visible after the first pass."""
    host.mkdir("rftest-a")
    real, calls = walk, list[int]()

    def walk_and_make(hierarchy: Hierarchy, **options: Any) -> Iterator[CgroupDir]:
        calls.append(1)
        yield from list(real(hierarchy, **options))
        if len(calls) == 1:
            host.mkdir("rftest-late")

    monkeypatch.setattr(adopt, "walk", walk_and_make)
    assert host.adopter.adopt().containers == 2


def test_cgroups_without_a_task_of_their_own_come_last(tmp_path: Path) -> None:
    """Empty ones, and those into which a container moved its tasks, use at most half of the slots: the kernel
    enrols them when they are used.
    """
    host = Host(tmp_path, slots=4)
    container = host.mkdir("rftest-a")
    for path, pids in (
        ("rftest-a", "7\n"),
        ("rftest-empty", ""),
        ("rftest-junk", "8\n"),
        ("rftest-b/in", "9\n"),
    ):
        host.mkdir(path)
        (host.root / path / "cgroup.procs").write_text(pids)
    (host.root / "rftest-b/cgroup.procs").write_text("")
    owners = {7: container, 8: container}
    host.adopter = Adopter(
        host.hierarchy, PATTERNS, host.slots, host.registry, lambda pid: owners.get(pid, 0)
    )
    host.adopter.adopt()
    assert host.slots.owners.keys() == {container, host.mkdir("rftest-b")}


def test_candidates_can_be_enrolled_later(host: Host) -> None:
    """Any thread may search, the loop enrols; cgroups below a container are no candidates."""
    known = host.mkdir("rftest-a/rftest-x")
    host.adopter.adopt()
    host.mkdir("pods/rftest-b/rftest-y")
    found = host.adopter.candidates()
    assert [entry.path for entry in found] == ["/pods/rftest-b"]
    assert host.adopter.take(found).containers == 1
    assert host.adopter.candidates() == []
    assert known not in host.slots.owners


def test_a_full_table_is_counted(tmp_path: Path) -> None:
    """No container is skipped silently."""
    host = Host(tmp_path, slots=1)
    host.mkdir("rftest-a")
    host.mkdir("rftest-b")
    done = host.adopter.adopt(passes=1)
    assert (done.containers, done.refused) == (1, 1)


def test_containers_with_armed_tasks_are_running(host: Host) -> None:
    """After the iterator ran, according to the table."""
    cgroup = host.mkdir("rftest-a")
    host.mkdir("rftest-idle")
    (host.root / "rftest-a/cgroup.procs").write_text("42\n17\n")
    host.adopter.adopt()
    host.slots.started(host.slots.owners[cgroup])
    assert host.adopter.armed({host.slots.owners[cgroup]: [42, 17]}) == 1
    found = host.registry.find(cgroup)
    assert found is not None
    assert (found.state, found.pid) == (State.RUNNING, 17)
    assert host.registry.counts.started == 1


def test_a_slot_of_another_cgroup_is_not_this_containers(host: Host) -> None:
    """The kernel may have given it away meanwhile: then the registry learns nothing wrong."""
    cgroup = host.mkdir("rftest-a")
    slot = host.slots.enroll(cgroup)
    wrong = CgroupDir("/rftest-a", cgroup + 1000, 1)
    host.adopter._remember(wrong, slot)
    assert list(host.registry) == []
    host.adopter._remember(CgroupDir("/rftest-a", cgroup, 1), slot)
    assert [found.slot for found in host.registry] == [slot]
