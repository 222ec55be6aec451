# SPDX-License-Identifier: Apache-2.0
"""Detectors: which facts are reported, and that each is reported once."""

from __future__ import annotations

import time
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
from ringfence.response.detectors import DETECTORS, Sweep, finding
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
    assert not any(sweep.verdict(1, "a", n * second, "seen", refused=False) for n in range(1000))
    slow = [sweep.verdict(2, f"r{n}", n * 3 * second, "seen", refused=False) for n in range(100)]
    assert not any(slow)
    quick = [sweep.verdict(3, f"r{n}", n * second, "seen", refused=False) for n in range(Sweep.RULES)]
    rules = [f"r{n}" for n in range(Sweep.RULES)]
    assert quick[-1] == {
        "rules": rules, "outcomes": dict.fromkeys(rules, "seen"), "tried": 6, "stopped": 0, "seconds": 10,
    }  # fmt: skip
    assert not any(quick[:-1])


def test_a_sweep_says_how_each_step_ended() -> None:
    """Six tried, four stopped; of a rule that matched twice, the last outcome counts."""
    sweep, outcomes = Sweep(), ("denied", "killed", "seen", "denied", "would-kill", "killed")
    sweep.verdict(1, "r0", 0, "seen", refused=False)
    last = [sweep.verdict(1, f"r{n}", n, one, refused=False) for n, one in enumerate(outcomes)][-1]
    assert last is not None
    assert last["outcomes"] == {f"r{n}": one for n, one in enumerate(outcomes)}
    assert (last["tried"], last["stopped"]) == (6, 4)
    container = Container.unnamed(1, 0)
    assert finding("sweep", container, last).ended == "4 of 6 calls were stopped; see the alerts of the rules"
    whole = finding("sweep", container, {"tried": 6, "stopped": 6})
    assert whole.ended == "each of 6 calls was stopped; see the alerts of the rules"


def test_many_refused_calls_are_a_sweep() -> None:
    """Of whatever rule; calls that are let through are not counted."""
    sweep = Sweep()
    assert not any(sweep.verdict(1, "a", n, "seen", refused=False) for n in range(500))
    found = [sweep.verdict(1, "a", n, "denied", refused=True) for n in range(Sweep.REFUSED)]
    assert [bool(one) for one in found] == [False] * (Sweep.REFUSED - 1) + [True]


def test_refused_calls_long_apart_are_no_sweep() -> None:
    """The count begins again when its window is over, and both ends of the window belong to it."""
    window, sweep = Sweep.WINDOW_NS, Sweep()
    for n in range(Sweep.REFUSED - 1):
        assert sweep.verdict(1, "a", n, "denied", refused=True) is None
    assert sweep.verdict(1, "a", window + 1, "denied", refused=True) is None
    for n in range(Sweep.REFUSED - 2):
        assert sweep.verdict(1, "a", window + 2 + n, "denied", refused=True) is None
    found = sweep.verdict(1, "a", 2 * window + 1, "denied", refused=True)
    assert found == {"refused": 40, "tried": 40, "stopped": 40, "seconds": 10}
    assert sweep.verdict(1, "a", 2 * window + 2, "denied", refused=True) is None  # the count begins again


def test_matched_rules_are_counted_within_their_window() -> None:
    """Both ends of it belong to it, and the names are sorted."""
    for late, found in ((Sweep.WINDOW_NS, True), (Sweep.WINDOW_NS + 1, False)):
        sweep = Sweep()
        early = [sweep.verdict(1, f"r{n}", 0, "seen", refused=False) for n in (5, 4, 3, 2, 1)]
        assert not any(early)
        details = sweep.verdict(1, "r0", late, "seen", refused=False)
        assert (details["rules"] if details else None) == ([f"r{n}" for n in range(6)] if found else None)
        # reported, or begun again with the last one
        assert not any(sweep.verdict(1, f"s{n}", late, "seen", refused=False) for n in range(4))
        assert bool(sweep.verdict(1, "s4", late, "seen", refused=False)) is not found


def test_a_container_that_is_gone_is_not_counted_on() -> None:
    """Its number may be another container's."""
    sweep = Sweep()
    for n in range(Sweep.RULES - 1):
        sweep.verdict(1, f"r{n}", 0, "seen", refused=False)
    for _ in range(Sweep.REFUSED - 1):
        sweep.verdict(1, "r0", 0, "denied", refused=True)
    sweep.forget(1)
    sweep.forget(2)
    assert sweep.verdict(1, "last", 0, "denied", refused=True) is None


@pytest.mark.parametrize(("others", "found"), [(4095, True), (4096, False)])
def test_a_sweep_does_not_count_without_bound(others: int, found: bool) -> None:
    """Beyond 4,096 containers, all counts begin again."""
    sweep = Sweep()
    for n in range(Sweep.RULES - 1):
        sweep.verdict(0, f"r{n}", 0, "seen", refused=False)
    refusing = Sweep()
    for _ in range(Sweep.REFUSED - 1):
        refusing.verdict(0, "r", 0, "denied", refused=True)
    for cgroup in range(1, others + 1):
        sweep.verdict(cgroup, "r", 0, "seen", refused=False)
        refusing.verdict(cgroup, "r", 0, "denied", refused=True)
    assert bool(sweep.verdict(0, "last", 0, "seen", refused=False)) is found
    assert bool(refusing.verdict(0, "r", 0, "denied", refused=True)) is found


def test_a_finding_has_an_id_of_its_own_and_the_time() -> None:
    """CLOCK_BOOTTIME, as the events have."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    one, two = finding("sweep", None, {"a": 1}), finding("sweep", None, {})
    assert one.id != two.id
    assert "-d-" in one.id
    assert (one.detector.id, one.container, one.details, one.event) == ("sweep", None, {"a": 1}, None)
    assert before <= one.time_ns <= two.time_ns <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
