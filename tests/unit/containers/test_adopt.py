# SPDX-License-Identifier: Apache-2.0
"""Taking in what runs already, also while the kernel enrolls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.config_values import Pattern
from ringfence.containers import adopt
from ringfence.containers.adopt import Adopter
from ringfence.containers.hierarchy import CgroupDir, Hierarchy, HierarchyKind, walk
from ringfence.containers.model import State
from ringfence.containers.registry import Registry
from tests.unit.containers.fakes import FakeSlots

PATTERNS = (Pattern("rftest-", hex64=False),)


class Host:
    """A directory that stands for the hierarchy, and the table of the kernel."""

    def __init__(self, root: Path, slots: int = 8) -> None:
        self.root = root
        self.slots = FakeSlots(slots)
        self.registry = Registry(self.slots)
        hierarchy = Hierarchy(HierarchyKind.V2, "", root, root)
        self.adopter = Adopter(hierarchy, PATTERNS, self.slots, self.registry)

    def mkdir(self, path: str) -> int:
        (self.root / path).mkdir(parents=True, exist_ok=True)
        return (self.root / path).stat().st_ino


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with nothing on it."""
    return Host(tmp_path)


def test_only_matching_cgroups_and_what_is_below_them_are_enrolled(host: Host) -> None:
    """The host's own cgroups stay what they are."""
    system, outer = host.mkdir("system.slice"), host.mkdir("pods/rftest-a")
    inner = host.mkdir("pods/rftest-a/init/deep")
    done = host.adopter.adopt()
    assert (done.containers, done.children, done.refused) == (1, 2, 0)
    assert host.slots.owners.keys() >= {outer, inner}
    assert system not in host.slots.owners
    [found] = host.registry
    assert (found.id, found.cgroup_path, found.adopted, found.slot) == (
        "rftest-a",
        "/pods/rftest-a",
        True,
        host.slots.owners[inner],
    )


def test_what_holds_the_agent_is_no_container_and_the_others_in_it_are(tmp_path: Path) -> None:
    """In a node that is a container itself, everything lies in one cgroup with a container's name."""
    host = Host(tmp_path)
    around, own = host.mkdir("rftest-node"), host.mkdir("rftest-node/rftest-agent")
    other = host.mkdir("rftest-node/rftest-a")
    hierarchy = Hierarchy(HierarchyKind.V2, "", tmp_path, tmp_path)
    adopter = Adopter(hierarchy, PATTERNS, host.slots, host.registry, frozenset((around, own)))
    assert adopter.adopt().containers == 1
    assert set(host.slots.owners) == {other}


def test_a_matching_name_inside_a_container_is_part_of_it(host: Host) -> None:
    """The topmost matching cgroup is the container."""
    host.mkdir("rftest-a/rftest-b")
    assert host.adopter.adopt().containers == 1


def test_adopting_again_changes_nothing(host: Host) -> None:
    """It may be called at any time."""
    host.mkdir("rftest-a/x")
    host.adopter.adopt()
    before = dict(host.slots.owners)
    again = host.adopter.adopt()
    assert (again.containers, again.children) == (0, 0)
    assert host.slots.owners == before
    assert len(host.slots.free_slots) == 7


def test_what_the_kernel_enrolled_is_left_to_it(host: Host) -> None:
    """Its slot stays, and the registry learns the container without a CREATE."""
    cgroup = host.mkdir("rftest-a")
    slot = host.slots.enroll(cgroup)
    assert host.adopter.adopt().containers == 0
    [found] = host.registry
    assert (found.slot, found.id, found.adopted) == (slot, "rftest-a", False)


def test_the_kernel_may_be_first_between_look_and_bind(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """BPF_NOEXIST decides; the slot that was taken goes back, none is lost."""
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


def test_a_cgroup_that_vanishes_meanwhile_is_not_kept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rmdir came before the kernel could know of a container there."""
    host.mkdir("rftest-a")
    monkeypatch.setattr(adopt, "cgroup_id", lambda path: (_ for _ in ()).throw(FileNotFoundError()))
    assert host.adopter.adopt().containers == 0
    assert host.slots.owners == {}
    assert len(host.slots.free_slots) == 8


def test_a_child_that_becomes_visible_late_is_found_by_the_second_pass(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mkdir ran before its parent was bound, so the kernel did not enroll it."""
    host.mkdir("rftest-a")
    real, calls = walk, list[int]()

    def walk_and_make(hierarchy: Hierarchy) -> Iterator[CgroupDir]:
        calls.append(1)
        yield from list(real(hierarchy))
        if len(calls) == 1:
            host.mkdir("rftest-a/late")

    monkeypatch.setattr(adopt, "walk", walk_and_make)
    assert host.adopter.adopt().children == 1


def test_a_full_table_is_counted(tmp_path: Path) -> None:
    """No container is refused in silence."""
    host = Host(tmp_path, slots=1)
    host.mkdir("rftest-a")
    host.mkdir("rftest-b")
    done = host.adopter.adopt(passes=1)
    assert (done.containers, done.refused) == (1, 1)


def test_containers_with_armed_tasks_are_running(host: Host) -> None:
    """After the iterator ran, the table says which."""
    cgroup = host.mkdir("rftest-a")
    host.mkdir("rftest-empty")
    (host.root / "rftest-a/cgroup.procs").write_text("42\n17\n")
    host.adopter.adopt()
    host.slots.started(host.slots.owners[cgroup])
    assert host.adopter.armed() == 1
    found = host.registry.find(cgroup)
    assert found is not None
    assert (found.state, found.pid) == (State.RUNNING, 17)
    assert host.registry.counts.started == 1
