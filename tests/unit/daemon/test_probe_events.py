# SPDX-License-Identifier: Apache-2.0
"""Events of custom probes: attribution, the rules that match, and which processes are killed."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest

from ringfence.abi import TASK
from ringfence.containers.model import Container, Enrichment, State
from ringfence.containers.registry import Registry
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.parts import Loaded, Picture
from ringfence.daemon.probes import events as module
from ringfence.daemon.probes.events import ProbePipeline
from ringfence.export.stats import Stats
from ringfence.faults import handler_errors
from ringfence.policy import CompiledPolicies, NodeTiers, compile_policies, load_bytes
from ringfence.policy.probe_rules import FieldWords, ProbeWords
from ringfence.probes.layout import new_decoder
from ringfence.probes.live import Live
from ringfence.probes.tally import Tally
from ringfence.response.kill import KillOutcome, KillResult
from ringfence.response.limiter import Limiter
from tests.unit.containers.fakes import FakeSlots
from tests.unit.probes.documents import definition, metric
from tests.unit.probes.test_layout import SHAPE, SIZE, record

FIELDS = {"latency_us": FieldWords("number"), "disk": FieldWords("text"), "peer": FieldWords("ip")}
PROBES = {"probe.slow": ProbeWords("probe.slow", FIELDS, in_task=True)}
POLICY = """\
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: p}
spec:
  selector: SELECTOR
  mode: MODE
  rules:
    - {id: slow, title: slow, severity: low, attack: T1499, event: probe.slow, match: MATCH, action: ACTION}
"""
CGROUP, PID, START = 1001, 42, 5_000_000_000


class FakeLive:
    """A probe that runs, without a ring: the part of Live that the pipeline uses."""

    def __init__(self, **changed: Any) -> None:
        self.probe = definition(metrics=(metric("n"),), **changed)
        self.decoder = new_decoder(self.probe, SIZE, SHAPE)
        self.tally = Tally(self.probe)
        self.received = self.alerts = 0
        self.failures = Counter({"decode": 0, "unattributed": 0})

    def count(self, *, received: int = 0, alerts: int = 0) -> None:
        self.received += received
        self.alerts += alerts


class FakeMap:
    """The kernel's map of processes."""

    def __init__(self) -> None:
        self.bound: dict[int, bytes] = {}

    def get(self, pid: int) -> bytes | None:
        return self.bound.get(pid)


class FakePolicies:
    """The active rules."""

    number = 3

    def __init__(self) -> None:
        self.compiled: CompiledPolicies | None = None


class FakeStream:
    """Clients, and the events that they were offered."""

    def __init__(self) -> None:
        self.wanted: set[str] = set()
        self.offered: list[Any] = []

    def wants_probe(self, label: str) -> bool:
        return label in self.wanted

    def offer(self, render: Any, event: Any, container: Any) -> None:
        self.offered.append((event, container))


class World:
    """A pipeline with everything around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None, limiter: Limiter | None = None) -> None:
        self.slots = FakeSlots(16)
        self.registry = Registry(self.slots)
        self.container = Container(
            "a" * 64, CGROUP, 1, name="web", state=State.RUNNING, enrichment=Enrichment.DONE
        )
        self.registry.add(self.container)
        self.policies, self.stream, self.processes = FakePolicies(), FakeStream(), FakeMap()
        self.stats = Stats()
        self.alerts: list[Mapping[str, Any]] = []
        self.about: list[Container | None] = []  # the containers that the alerts are about
        self.lines: list[Mapping[str, Any]] = []
        self.killed: list[tuple[int, int]] = []
        if monkeypatch is not None:
            monkeypatch.setattr(module, "kill_process", self._kill)
        kernel = SimpleNamespace(map=lambda name: self.processes)
        loaded = Loaded(cast(Any, kernel), cast(Any, self.slots), cast(Any, self.policies))
        picture = Picture("node-1", self.registry, ProcessTree(), self.stats)
        redactor = SimpleNamespace(record=lambda shown: {**shown, "seen": True})
        outputs = SimpleNamespace(
            emit=self._alert, line=self.lines.append, redactor=redactor, stream=self.stream
        )
        self.pipeline = ProbePipeline(
            loaded, picture, cast(Any, outputs), Limiter() if limiter is None else limiter
        )

    def _alert(self, record: Mapping[str, Any], container: Container | None) -> None:
        self.alerts.append(record)
        self.about.append(container)

    def _kill(self, pid: int, start_ns: int, action_id: str) -> KillResult:
        self.killed.append((pid, start_ns))
        return KillResult(action_id, pid, KillOutcome.KILLED)

    def rules(
        self, match: str, action: str = "alert", *, mode: str = "enforce", selector: str = "{containers: all}"
    ) -> None:
        """Activates one rule."""
        text = POLICY.replace("MATCH", match).replace("ACTION", action).replace("MODE", mode)
        policies = load_bytes({"p.yaml": text.replace("SELECTOR", selector).encode()}, PROBES)
        self.policies.compiled = compile_policies(policies, NodeTiers.usual())

    def bind(self, pid: int = PID, start: int = START, cgroup: int = CGROUP) -> None:
        """The kernel has a process bound to a container."""
        self.processes.bound[pid] = TASK.pack(cgroup, 1, 0, 0, start)

    def send(self, live: FakeLive, *, cgroup: int = CGROUP, latency: int = 100, disk: bytes = b"sda") -> None:
        """One event."""
        peer = bytes(10) + b"\xff\xff" + bytes([10, 1, 2, 3])
        data = record(1, cgroup, START, PID, PID, b"cat\n", peer, disk, latency, 0)
        self.pipeline.handle(live, [data])  # type: ignore[arg-type]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Records kills without executing them."""
    return World(monkeypatch)


def counted(live: FakeLive) -> dict[tuple[str, ...], list[float]]:
    """Series of the probe's counter."""
    return next(iter(live.tally)).rows


def test_events_are_counted_by_container(world: World) -> None:
    """By the label of the agent's own metrics."""
    live = FakeLive()
    world.send(live)
    assert counted(live) == {("a" * 12,): [1]}
    assert (live.received, dict(live.failures)) == (1, {"decode": 0, "unattributed": 0})


def test_unknown_stays_unknown_and_is_counted(world: World) -> None:
    """An unknown id, and a host's event that was not requested; a record of another
    size.
    """
    live = FakeLive()
    for cgroup in (999, 0):
        world.send(live, cgroup=cgroup)
    world.pipeline.handle(live, [b"short"])  # type: ignore[arg-type]
    assert dict(live.failures) == {"decode": 1, "unattributed": 2}
    assert counted(live) == {}


def test_host_events_are_reported_only_if_kept_and_never_match_a_rule(world: World) -> None:
    """An unknown id is not the host."""
    world.rules("any", "kill")
    live = FakeLive(keep_host=True)
    world.bind()
    world.send(live, cgroup=0)
    world.send(live, cgroup=999)
    assert counted(live) == {("host",): [1]}
    assert live.failures["unattributed"] == 1
    assert (world.alerts, world.killed) == ([], [])


MATCHES = {
    "{latency_us: 100}": True,
    "{latency_us: '>= 100'}": True,
    "{latency_us: '> 100'}": False,
    "{latency_us: [1, 90-110]}": True,
    "{latency_us: {not: 100}}": False,
    "{latency_us: 0x64}": True,
    "{disk: sda}": True,
    "{disk: 's*'}": True,
    "{disk: {not: [sda, sdb]}}": False,
    "{peer: 10.0.0.0/8}": True,
    "{peer: ['192.168.0.0/16', '::/0']}": False,
    "{disk: sda, latency_us: '< 5'}": False,
    "any": True,
}


@pytest.mark.parametrize("match", MATCHES)
def test_a_rule_matches_its_conditions(world: World, match: str) -> None:
    """Numbers, ranges, comparisons, texts, addresses; every key must hold."""
    world.rules(match)
    world.send(FakeLive())
    assert len(world.alerts) == MATCHES[match]


def test_an_alert_says_what_the_agents_own_say(world: World) -> None:
    """Rule, place, container, process, details; observed text escaped."""
    world.rules("{disk: '*'}")
    world.send(FakeLive(), disk=b"s\x1bda")
    (alert,) = world.alerts
    assert (alert["event"], alert["kind"], alert["severity"]) == ("probe.slow", "alert", "low")
    assert (alert["action"], alert["outcome"]) == ("alert", "seen")
    assert alert["rule"]["file"] == "p.yaml"
    assert alert["rule"]["line"] == 8
    assert alert["container"]["name"] == "web"
    assert alert["details"] == {"latency_us": 100, "disk": "s\\x1bda", "peer": "10.1.2.3"}
    assert alert["process"]["comm"] == "cat\\n"
    assert world.stats.alerts["slow", "low", "alert", "seen"] == 1


def test_a_selector_decides_whose_events_are_judged(world: World) -> None:
    """Same as for the agent's own rules."""
    world.rules("any", selector="{names: db}")
    world.send(FakeLive())
    assert not world.alerts
    world.rules("any", selector="{names: web}")
    world.send(FakeLive())
    assert len(world.alerts) == 1


def test_only_a_task_that_the_kernel_has_bound_is_killed(world: World) -> None:
    """With that start time, to that container; and not in audit mode."""
    world.rules("any", "kill")
    live = FakeLive()
    world.send(live)
    world.bind(start=START + 1)
    world.send(live, latency=101)
    world.bind(cgroup=CGROUP + 1)
    world.send(live, latency=102)
    assert world.killed == []
    world.bind()
    world.send(live, latency=103)
    assert world.killed == [(PID, START)]
    assert dict(world.stats.responses) == {"gone": 1, "other": 2, "killed": 1}
    assert [alert["outcome"] for alert in world.alerts][-1] == "killed"
    world.rules("any", "kill", mode="audit")
    world.send(live, latency=104)
    assert world.killed == [(PID, START)]
    assert world.alerts[-1]["outcome"] == "would-kill"


def test_an_alert_waits_for_the_names_of_its_container(world: World) -> None:
    """The outputs get its container, so that the alert can wait for the names."""
    world.rules("any")
    world.send(FakeLive())
    assert world.about == [world.container]


def test_the_configured_rate_holds() -> None:
    """One that is empty, as each is at first, is no reason to take another."""
    world = World(limiter=Limiter(rate=1e-9, burst=1, same_ns=0))
    world.rules("any")
    for latency in range(5):
        world.send(FakeLive(), latency=latency)
    assert len(world.alerts) == 1
    world.pipeline.tick()
    assert len(world.alerts) == 1
    world.pipeline.tick(last=True)
    assert [alert.get("suppressed") for alert in world.alerts] == [None, 3]


def test_a_policy_that_a_container_chose_judges_its_events_before_its_names_are_known() -> None:
    """As for the agent's own events: a container that its runtime enrolled is known."""
    world = World()
    world.rules("any", selector="{names: [web]}")
    pending = replace(world.container, enrichment=Enrichment.PENDING)
    world.registry.add(pending)
    for enrolled, alerts in ((False, 0), (True, 1)):
        world.registry._live[CGROUP] = replace(pending, enrolled_by_runtime=enrolled)
        world.send(FakeLive())
        assert len(world.alerts) == alerts


def test_repetitions_are_held_back_and_reported_later(world: World) -> None:
    """One line for a hundred alike; none is lost from the count."""
    world.rules("any")
    live = FakeLive()
    for _ in range(100):
        world.send(live)
    assert len(world.alerts) == 1
    assert live.alerts == 100
    assert world.stats.alerts["slow", "low", "alert", "seen"] == 100
    assert world.stats.alerts_suppressed["slow"] == 99


def test_a_rule_counts_for_its_techniques(world: World) -> None:
    """As the agent's own rules do: by technique, namespace and outcome."""
    world.rules("any")
    world.send(FakeLive())
    (family,) = world.stats.attempts.collect()
    assert [(s.labels, s.value) for s in family.samples] == [
        ({"technique": "T1499", "namespace": "", "outcome": "seen"}, 1)
    ]


def test_rules_beyond_a_thousand_share_a_series(world: World) -> None:
    """A year of reloads must not fill the metrics; the alert itself has the rule's own name."""
    world.rules("any")
    world.stats.rules |= {f"earlier-{number}" for number in range(1000)}
    world.send(FakeLive())
    assert dict(world.stats.alerts) == {("other", "low", "alert", "seen"): 1}
    assert world.alerts[0]["rule"]["id"] == "slow"


def test_a_rule_that_breaks_harms_only_itself(world: World) -> None:
    """The next rule is judged, the event is counted and offered, the next record is taken; it is
    counted.
    """
    world.rules("any")
    assert world.policies.compiled is not None
    policy = world.policies.compiled.policies.policies[0]
    broken = mock.Mock(wraps=policy.probe_rules[0], label="probe.slow")
    broken.holds.side_effect = ZeroDivisionError
    world.pipeline._rules = {"probe.slow": [(0, policy, broken), (0, policy, policy.probe_rules[0])]}
    world.pipeline._compiled = world.policies.compiled
    world.stream.wanted = {"probe.slow"}
    live, before = FakeLive(), handler_errors["probe event"]
    world.send(live)
    world.send(live, latency=101)
    assert [alert["details"]["latency_us"] for alert in world.alerts] == [100, 101]
    assert counted(live) == {("a" * 12,): [2]}
    assert len(world.stream.offered) == 2
    assert (live.failures["internal"], handler_errors["probe event"] - before) == (2, 2)


def test_a_metric_that_breaks_keeps_no_rule_from_its_event(world: World) -> None:
    """What is derived is beside what is judged."""
    world.rules("any")
    live = FakeLive()
    live.tally = mock.Mock(**{"observe.side_effect": OverflowError})
    world.send(live)
    assert len(world.alerts) == 1
    assert live.failures["internal"] == 1


def test_readers_get_events_that_they_asked_for(world: World) -> None:
    """To the stream if a client follows it, to the output if the YAML says so, redacted."""
    world.send(FakeLive())
    assert (world.stream.offered, world.lines) == ([], [])
    world.stream.wanted = {"probe.slow"}
    world.send(FakeLive(lines=True))
    ((event, container),) = world.stream.offered
    assert container is world.container
    (line,) = world.lines
    assert line["seen"]
    assert line["kind"] == "activity"
    assert world.pipeline.render(event, container) == line


def test_reasons_have_the_numbers_of_the_helper_header() -> None:
    """enum of ringfence.h: sent, sampled, limited, full, host."""
    from ringfence.probes.compose import HELPERS
    from ringfence.probes.live import DROPS

    text = HELPERS.read_text()
    (enum,) = [line for line in text.splitlines() if line.startswith("enum { RF_SENT")]
    names = [word.strip(" {};,") for word in enum.removeprefix("enum").split(",")]
    assert [name for name in names if name != "RF_COUNTS"] == [
        "RF_SENT", "RF_SAMPLED", "RF_LIMITED", "RF_FULL", "RF_HOST",
    ]  # fmt: skip
    assert DROPS == {1: "sampled", 2: "rate_limit", 3: "ring_full", 4: "host"}
    assert struct.calcsize("=QIIQQ") == TASK.size, "struct rf_binding of ringfence.h"
    assert Live.__doc__
