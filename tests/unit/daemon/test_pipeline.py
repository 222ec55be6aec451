# SPDX-License-Identifier: Apache-2.0
"""The way of a verdict: its time, its rate limit, and the steps in their order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, cast
from unittest import mock

import pytest

from ringfence.abi import Action, EventKind, Tamper
from ringfence.containers.model import Container
from ringfence.containers.registry import Registry
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.parts import Picture
from ringfence.daemon.verdicts import pipeline as module
from ringfence.daemon.verdicts.detectors import Detectors
from ringfence.daemon.verdicts.pipeline import Later, VerdictPipeline
from ringfence.daemon.verdicts.tamper import Look, TamperConfirmation
from ringfence.events import Event
from ringfence.export.records import boot_offset_ns
from ringfence.export.stats import Stats
from ringfence.faults import handler_errors
from ringfence.policy.compiled import CompiledRule
from ringfence.response.alert import assemble
from ringfence.response.builtin import BuiltinRules
from ringfence.response.detectors import Sweep, finding
from ringfence.response.limiter import Limiter
from ringfence.wire import make
from tests.unit.containers.fakes import FakeSlots

DAY = 86_400 * 10**9


def pipeline_of(
    lines: list[Mapping[str, Any]],
    stats: Stats | None = None,
    limiter: Limiter | None = None,
    *,
    tamper: TamperConfirmation | None = None,
    later: Later = lambda seconds, work: None,
    find: Callable[[Event], CompiledRule | None] = lambda event: None,
) -> VerdictPipeline:
    """A pipeline with the rules of `find`, that emits to `lines`. Nothing is deferred, unless by `tamper`."""
    registry, slots = Registry(FakeSlots()), FakeSlots()
    return VerdictPipeline(
        Picture("node-1", registry, ProcessTree(), stats or Stats()),
        cast(Any, mock.Mock(find=find)),
        tamper or TamperConfirmation(lambda: Look((), 0), enabled=False),
        Detectors(slots, helpers=[]),
        Limiter() if limiter is None else limiter,
        cast(Any, mock.Mock(emit=lambda record, container: lines.append(record))),
        later,
    )


def test_times_follow_the_clock_and_latencies_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day forward: the next line after a tick bears the new date; the latency stays what it was."""
    lines: list[Mapping[str, Any]] = []
    made = pipeline_of(lines)
    event = make(
        EventKind.FILE_OPEN, container=1, action=1, time_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    )
    made.handle(event, None)
    offset = boot_offset_ns()
    monkeypatch.setattr(module, "boot_offset_ns", lambda: offset + DAY)
    made.tick()
    made.handle(event._replace(container=2), None)
    before, after = lines
    assert before["time"][:10] < after["time"][:10]
    assert {before["node"], after["node"]} == {"node-1"}
    assert 0 <= before["latency_us"] <= after["latency_us"] < 60_000_000


def test_a_jump_of_the_clock_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted; slewing is not a jump."""
    stats, counts = Stats(), []
    made, offset = pipeline_of([], stats), boot_offset_ns()
    for change in (0, 10**8, DAY, DAY, -DAY):
        monkeypatch.setattr(module, "boot_offset_ns", lambda change=change: offset + change)
        made.tick()
        counts.append(stats.clock_changes)
    assert counts == [0, 0, 1, 1, 2]


def test_a_condemned_container_is_counted_as_no_attempt() -> None:
    """The rules of Prometheus count attempts by the kind `rule`; a user's rule cannot have this id."""
    stats = Stats()
    made = pipeline_of([], stats, find=BuiltinRules("deny", "calls").of)
    for what in (Tamper.CONDEMNED, Tamper.LOOK):
        made.handle(make(EventKind.AGENT_TAMPER, container=1, action=2, what=int(what)), None)
    (family,) = stats.container_alerts.collect()
    kinds = {sample.labels["rule"]: sample.labels["kind"] for sample in family.samples}
    assert kinds == {"container-condemned": "condemned", "agent-look": "rule"}


def test_alerts_of_a_gap_are_all_reported() -> None:
    """Seventy-five different attacks in 80 seconds without an agent, read at once by the next one."""
    lines: list[Mapping[str, Any]] = []
    made, now = pipeline_of(lines), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for number in range(75):
        at = now - (80 - number) * 10**9
        made.handle(
            make(EventKind.FILE_OPEN, container=1, action=1, time_ns=at, rdev=number, mode=0o60000), None
        )
    assert len(lines) == 75


def test_a_hundred_thousand_alerts_of_one_container_are_few_lines_and_all_are_counted() -> None:
    """Within ten seconds: the burst, one a second, and the numbers of those that were held back."""
    lines: list[Mapping[str, Any]] = []
    made, now = pipeline_of(lines), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for number in range(100_000):
        at = now - (100_000 - number) * 10**5
        made.handle(
            make(EventKind.FILE_OPEN, container=1, action=1, time_ns=at, rdev=number, mode=0o60000), None
        )
    made.tick(last=True)
    assert 10 <= len(lines) <= 25
    assert sum(1 + line.get("suppressed", 0) for line in lines) == 100_000


def test_at_the_end_held_back_alerts_are_reported() -> None:
    """Repetitions of the last seconds are reported before the agent ends; an earlier tick leaves
    them alone.
    """
    lines: list[Mapping[str, Any]] = []
    pipeline = pipeline_of(lines)
    for number in range(3):
        pipeline.handle(make(EventKind.FILE_OPEN, container=1, action=1, pid=number), None)
    pipeline.tick()
    assert len(lines) == 1
    pipeline.tick(last=True)
    assert [(line["process"]["pid"], line.get("suppressed")) for line in lines] == [(0, None), (2, 1)]


def test_one_held_back_alert_stands_for_no_other() -> None:
    """`suppressed` counts the others, and is left out if there are none."""
    lines: list[Mapping[str, Any]] = []
    pipeline = pipeline_of(lines)
    for number in range(2):
        pipeline.handle(make(EventKind.FILE_OPEN, container=1, action=1, pid=number), None)
    pipeline.tick(last=True)
    assert [line["process"]["pid"] for line in lines] == [0, 1]
    assert "suppressed" not in lines[1]


def test_in_a_flood_only_the_last_held_back_alert_is_assembled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand verdicts, as many as the rate lets pass are assembled; the rest is counted,
    and the last one reported.
    """
    lines: list[Mapping[str, Any]] = []
    made_up: list[Any] = []

    def count(*args: Any, **more: Any) -> Any:
        made_up.append(args)
        return assemble(*args, **more)

    monkeypatch.setattr(module, "assemble", count)
    clock = mock.Mock(return_value=0)
    limiter = Limiter(rate=1.0, burst=3, same_ns=10**9, now_ns=clock)
    stats = Stats()
    pipeline = pipeline_of(lines, stats, limiter)
    for number in range(1000):
        pipeline.handle(make(EventKind.FILE_OPEN, container=1, action=1, pid=number), None)
    assert (len(lines), len(made_up)) == (1, 1)  # all are about the same
    assert sum(stats.alerts.values()) == 1000
    assert stats.alerts_suppressed["unknown"] == 999
    clock.return_value = 60 * 10**9
    pipeline.tick()
    assert (len(made_up), lines[1]["process"]["pid"], lines[1]["suppressed"]) == (2, 999, 998)


def test_a_deferred_verdict_is_decided_when_its_call_has_ended() -> None:
    """First the findings of the look at the agent's resources, then the verdict, each once."""
    lines: list[Mapping[str, Any]] = []
    timers: list[tuple[float, Callable[[], None]]] = []
    found, now = finding("agent-tampered", None, {"what": "pin"}), [0.0]
    pipeline = pipeline_of(
        lines,
        tamper=TamperConfirmation(lambda: Look([found], 0), clock=lambda: now[0]),
        later=lambda seconds, work: timers.append((seconds, work)),
    )
    pipeline.handle(
        make(EventKind.AGENT_TAMPER, container=1, action=1, what=Tamper.FILE | Tamper.MAYBE), None
    )
    assert lines == []
    ((seconds, work),) = timers
    now[0] = seconds
    work()
    assert [line["event"] for line in lines] == ["finding", "agent.tamper"]
    work()
    pipeline.settle(last=True)
    assert len(lines) == 2


def test_what_a_detector_finds_in_verdicts_is_reported() -> None:
    """Many refused calls of one container are one finding, before the alert of the last of them."""
    lines: list[Mapping[str, Any]] = []
    pipeline = pipeline_of(lines, limiter=Limiter(same_ns=0, burst=1000))
    container = Container.unnamed(1, 0)
    event = make(EventKind.FILE_OPEN, container=1, action=Action.DENY)
    for number in range(Sweep.REFUSED):
        pipeline.handle(event._replace(pid=number), container)
    assert [line["event"] for line in lines[-2:]] == ["finding", "file.open"]
    assert sum(line["rule"]["id"] == "sweep" for line in lines) == 1


def test_a_deferred_verdict_that_fails_does_not_cost_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is decided by itself, and a failure is counted."""
    lines: list[Mapping[str, Any]] = []
    tamper = TamperConfirmation(lambda: Look((), 0))
    pipeline = pipeline_of(lines, tamper=tamper)
    for number in range(3):
        kind = EventKind.AGENT_TAMPER
        pipeline.handle(make(kind, container=number, action=1, pid=number, what=Tamper.MAYBE), None)

    def assemble_or_fail(event: Any, *more: Any) -> Any:
        if event.pid == 0:
            raise ZeroDivisionError("a bug")
        return assemble(event, *more)

    monkeypatch.setattr(module, "assemble", assemble_or_fail)
    before = handler_errors["timer"]
    pipeline.settle(last=True)
    assert [line["process"]["pid"] for line in lines] == [1, 2]
    assert handler_errors["timer"] == before + 1
