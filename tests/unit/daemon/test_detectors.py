# SPDX-License-Identifier: Apache-2.0
"""Detectors: which facts are reported, and that each is reported once."""

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
from ringfence.response.detectors import DETECTORS, Sweep
from tests.unit.containers.fakes import FakeSlots, create, start

CGROUP = 5


class Node:
    """A registry with one running container, and what the detectors read of it."""

    def __init__(self, directory: Path, *off: str) -> None:
        self.slots = FakeSlots()
        self.registry = Registry(self.slots)
        self.slot = self.slots.enroll(CGROUP)
        self.registry.on_event(create(CGROUP, self.slot, "/c"))
        self.registry.on_event(start(CGROUP, self.slot))
        self.cgroup = directory / "v2/c"
        self.cgroup.mkdir(parents=True)
        self.helper = directory / "core_pattern"
        self.helper.write_text("core\n")
        (directory / "mountinfo").write_text(f"30 20 0:29 / {directory}/v2 rw - cgroup2 none rw\n")
        self.detectors = Detectors(self.slots, off, helpers=[self.helper], limits=LimitReader(directory))

    @property
    def container(self) -> Container:
        """The only container."""
        (found,) = self.registry
        return found

    def look(self) -> list[str]:
        """One look at every container."""
        return [one.detector.id for _ in range(5) for one in self.detectors.tick(self.registry)]

    def tasks(self, count: int) -> None:
        """So many tasks are alive in it."""
        self.slots.change(self.slot, tasks=count)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with a quiet container."""
    return Node(tmp_path)


def test_the_configuration_knows_the_detectors() -> None:
    """Under the same names."""
    assert set(CONFIGURABLE) == set(DETECTORS)


def test_a_quiet_container_is_not_reported(node: Node) -> None:
    """Nothing changes, nothing is hit."""
    assert node.look() == []


def test_a_suspicion_is_reported_once(node: Node) -> None:
    """Runtimes are asked several times about one container."""
    facts = Facts(Enrichment.DONE, suspicions=(Suspicion("image-link", "/dev -> /etc"),))
    (found,) = node.detectors.identified(node.container, facts)
    assert (found.detector.id, found.details) == ("image-link", {"what": "/dev -> /etc"})
    assert node.detectors.identified(node.container, facts) == []


def test_a_mounted_root_of_the_host_is_reported(node: Node) -> None:
    """And no lesser mount."""
    for kind, reported in (("host-path", []), ("host-root", ["host-root"])):
        posture = Posture(sensitive_mounts=(SensitiveMount(kind, "/", "/host", writable=True),))
        found = node.detectors.identified(replace(node.container, posture=posture), Facts(Enrichment.DONE))
        assert [one.detector.id for one in found] == reported


def test_a_changed_helper_is_reported(node: Node) -> None:
    """With both values, and no container: the process that did it is not known."""
    node.helper.write_text("|/proc/1/root/x\n")
    (found,) = node.detectors.tick(node.registry)
    assert found.detector.id == "helper-changed"
    assert (found.details["before"], found.details["now"]) == ("core", "|/proc/1/root/x")
    assert found.container is None
    assert node.look() == []


def test_a_limit_is_reported_each_time_it_is_hit(node: Node) -> None:
    """Each time that the count has grown."""
    for count, reported in ((3, ["limit-hit"]), (3, []), (4, ["limit-hit"])):
        (node.cgroup / "pids.events").write_text(f"max {count}\n")
        assert node.look() == reported


def test_a_burst_of_tasks_is_reported(node: Node) -> None:
    """Once, also when they take a while to; not few that double, and not those that always were
    many.
    """
    for count, reported in ((200, []), (450, []), (900, []), (1000, ["task-burst"]), (1900, []), (1950, [])):
        node.tasks(count)
        assert node.look() == reported, count


def test_slow_growth_of_tasks_is_not_reported(node: Node) -> None:
    """A service that takes up more work over minutes."""
    for count in (*[300] * 6, *range(300, 1900, 60)):
        node.tasks(count)
        reported = node.look()
    assert reported == []


def test_a_detector_that_is_off_reports_nothing(tmp_path: Path) -> None:
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
    found = [sweep.verdict(1, "a", n, refused=True) for n in range(Sweep.REFUSED)]
    assert [bool(one) for one in found] == [False] * (Sweep.REFUSED - 1) + [True]


def test_refused_calls_long_apart_are_no_sweep() -> None:
    """The count begins again when its window is over, and both ends of the window belong to it."""
    window, sweep = Sweep.WINDOW_NS, Sweep()
    for n in range(Sweep.REFUSED - 1):
        assert sweep.verdict(1, "a", n, refused=True) is None
    assert sweep.verdict(1, "a", window + 1, refused=True) is None
    for n in range(Sweep.REFUSED - 2):
        assert sweep.verdict(1, "a", window + 2 + n, refused=True) is None
    found = sweep.verdict(1, "a", 2 * window + 1, refused=True)
    assert found == {"refused": Sweep.REFUSED, "seconds": 10}
    assert sweep.verdict(1, "a", 2 * window + 2, refused=True) is None  # counted anew
