# SPDX-License-Identifier: Apache-2.0
"""Detectors: what is told of, once, and of what not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.config.values import DETECTORS as CONFIGURABLE
from ringfence.containers.limits import LimitReader
from ringfence.containers.model import (
    Container,
    Enrichment,
    Facts,
    Posture,
    SensitiveMount,
    Suspicion,
)
from ringfence.containers.registry import Registry
from ringfence.daemon.verdicts.detectors import Detectors
from ringfence.response.detectors import DETECTORS, Finding, Sweep
from tests.unit.containers.fakes import FakeSlots, create, start

CGROUP = 5


class Desk:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def finding(self, found: Finding) -> None:
        """What the real one writes as a line."""
        self.found.append(found)

    def ids(self) -> list[str]:
        """And forget them."""
        ids = [found.detector.id for found in self.found]
        self.found.clear()
        return ids


class Node:
    """A registry with one running container, and what the detectors read of it."""

    def __init__(self, directory: Path, *off: str) -> None:
        self.desk, self.slots = Desk(), FakeSlots()
        self.registry = Registry(self.slots)
        self.slot = self.slots.enroll(CGROUP)
        self.registry.on_event(create(CGROUP, self.slot, "/c"))
        self.registry.on_event(start(CGROUP, self.slot))
        self.cgroup = directory / "v2/c"
        self.cgroup.mkdir(parents=True)
        self.helper = directory / "core_pattern"
        self.helper.write_text("core\n")
        (directory / "mountinfo").write_text(f"30 20 0:29 / {directory}/v2 rw - cgroup2 none rw\n")
        self.watchers = Detectors(
            self.desk, self.registry, self.slots, off, helpers=[self.helper], limits=LimitReader(directory)
        )

    @property
    def container(self) -> Container:
        """The one there is."""
        (found,) = self.registry
        return found

    def look(self) -> list[str]:
        """One look at every container."""
        for _ in range(5):
            self.watchers.tick()
        return self.desk.ids()

    def tasks(self, count: int) -> None:
        """So many tasks are alive in it."""
        self.slots.change(self.slot, tasks=count)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A quiet one."""
    return Node(tmp_path)


def test_the_configuration_knows_the_detectors() -> None:
    """Under the same names."""
    assert set(CONFIGURABLE) == set(DETECTORS)


def test_a_quiet_container_is_not_told_of(node: Node) -> None:
    """Nothing changes, nothing is hit."""
    assert node.look() == []


def test_a_suspicion_is_told_once(node: Node) -> None:
    """Runtimes are asked several times about one container."""
    facts = Facts(Enrichment.DONE, suspicions=(Suspicion("image-link", "/dev -> /etc"),))
    node.watchers.on_known(node.container, facts)
    node.watchers.on_known(node.container, facts)
    assert node.desk.found[0].details == {"what": "/dev -> /etc"}
    assert node.desk.ids() == ["image-link"]


def test_the_root_of_the_host_is_told_of(node: Node) -> None:
    """And no lesser mount."""
    for kind, told in (("host-path", []), ("host-root", ["host-root"])):
        posture = Posture(sensitive_mounts=(SensitiveMount(kind, "/", "/host", writable=True),))
        node.watchers.on_known(replace(node.container, posture=posture), Facts(Enrichment.DONE))
        assert node.desk.ids() == told


def test_a_changed_helper_is_told_of(node: Node) -> None:
    """With both values, and no container: who did it is not known."""
    node.helper.write_text("|/proc/1/root/x\n")
    node.watchers.tick()
    (found,) = node.desk.found
    assert (found.details["before"], found.details["now"]) == ("core", "|/proc/1/root/x")
    assert found.container is None
    assert node.desk.ids() == ["helper-changed"]
    assert node.look() == []


def test_a_limit_is_told_of_when_it_is_hit_again(node: Node) -> None:
    """Each time that the count has grown."""
    for count, told in ((3, ["limit-hit"]), (3, []), (4, ["limit-hit"])):
        (node.cgroup / "pids.events").write_text(f"max {count}\n")
        assert node.look() == told


def test_tasks_that_multiply_are_told_of(node: Node) -> None:
    """Once, also when they take a while to; not few that double, and not those that always were many."""
    for count, told in ((200, []), (450, []), (900, []), (1000, ["task-burst"]), (1900, []), (1950, [])):
        node.tasks(count)
        assert node.look() == told, count


def test_tasks_that_grow_slowly_are_not_told_of(node: Node) -> None:
    """A service that takes up more work over minutes."""
    for count in (*[300] * 6, *range(300, 1900, 60)):
        node.tasks(count)
        told = node.look()
    assert told == []


def test_what_is_switched_off_is_not_told(tmp_path: Path) -> None:
    """By its name."""
    node = Node(tmp_path, "limit-hit")
    (node.cgroup / "pids.events").write_text("max 1\n")
    assert node.look() == []


def test_many_different_rules_are_a_sweep() -> None:
    """In a short time; one rule many times is none, and neither are many in a day."""
    second = 10**9
    sweep = Sweep()
    assert not any(sweep.verdict(1, "a", n * second, refused=False) for n in range(1000))
    slow = [sweep.verdict(2, f"r{n}", n * 3 * second, refused=False) for n in range(100)]
    assert not any(slow)
    quick = [sweep.verdict(3, f"r{n}", n * second, refused=False) for n in range(Sweep.RULES)]
    assert quick[-1] == {"rules": [f"r{n}" for n in range(Sweep.RULES)], "seconds": 10}
    assert not any(quick[:-1])


def test_many_refused_calls_are_a_sweep() -> None:
    """Of whatever rule; calls that are let through are not counted."""
    sweep = Sweep()
    assert not any(sweep.verdict(1, "a", n, refused=False) for n in range(500))
    told = [sweep.verdict(1, "a", n, refused=True) for n in range(Sweep.REFUSED)]
    assert [bool(one) for one in told] == [False] * (Sweep.REFUSED - 1) + [True]
