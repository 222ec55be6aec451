# SPDX-License-Identifier: Apache-2.0
"""From a verdict to its record: the alert, the kill that is left to user space, and the rate limit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ringfence.abi import Action
from ringfence.containers.model import Container
from ringfence.containers.tree import ProcessTree
from ringfence.events import Event
from ringfence.export.records import (
    alert_record,
    boot_offset_ns,
    event_record,
    finding_record,
    timestamp,
)
from ringfence.export.stats import Stats
from ringfence.policy.compiled import CompiledRule
from ringfence.policy.install import Generations
from ringfence.response.alert import (
    Alert,
    Outcome,
    assemble,
    is_half_killed,
    outcome_of,
    program_of,
    same_as,
    severity_of,
)
from ringfence.response.describe import describe
from ringfence.response.detectors import Finding
from ringfence.response.kill import kill_process
from ringfence.response.limiter import Decision, Limiter

__all__ = ["Desk"]

Emit = Callable[[Mapping[str, Any], Container | None], None]


class _Late(NamedTuple):
    """A verdict that was held back, and is put together only if it is the last one of its kind."""

    event: Event
    container: Container | None
    rule: CompiledRule | None


class Desk:
    """Called by the loop only. `emit` gets finished records and their container, and must not block."""

    def __init__(
        self,
        generations: Generations,
        tree: ProcessTree,
        stats: Stats,
        emit: Emit,
        limiter: Limiter | None = None,
        *,
        node: str,
    ) -> None:
        self._generations, self._tree, self._stats, self._emit = generations, tree, stats, emit
        self.limiter = Limiter() if limiter is None else limiter  # an empty one is false
        self._node = node
        self._offset = boot_offset_ns()
        self.responses: Counter[str] = Counter()
        self.redact: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda record: record
        #: whether the event will be given back a little later, as it is or as what it turned out to be
        self.postpone: Callable[[Event, Callable[[Event], None]], bool] = lambda event, give: False
        #: the rule of an event that no policy has one for
        self.builtin: Callable[[Event], CompiledRule | None] = lambda event: None
        self.watch: Callable[[Event, Container | None, str], None] = lambda event, container, rule: None

    def verdict(self, event: Event, container: Container | None) -> None:
        """A rule matched: act on it, count it, report it."""
        if not self.postpone(event, lambda worse: self._verdict(event, container, worse)):
            self._verdict(event, container, event)

    def _verdict(self, seen: Event, container: Container | None, event: Event) -> None:
        """`event` is what was `seen`, or what that turned out to be: then its process is to be ended."""
        rule = self.builtin(event) or self._generations.rule(event.generation, event.rule)
        rule_id = rule.rule_id if rule else "unknown"
        name = self._stats.series(rule_id)
        self.watch(event, container, rule_id)
        alert: Alert | None = None
        if is_half_killed(event) or event is not seen:
            alert = self._kill(assemble(event, container, rule, self._tree, self._node))
            self._count(event, container, rule, name, alert.outcome)
            decision = self.limiter.admit(event.container, rule_id, alert.same, alert)
        else:
            self._count(event, container, rule, name, outcome_of(event, rule))
            decision = self._ask(event, container, rule, rule_id)
        if not decision.passes:
            self._stats.alerts_suppressed[name] += 1
            return
        alert = alert or assemble(event, container, rule, self._tree, self._node)
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        latency = now - event.time_ns
        record = alert_record(alert, self._offset, latency)
        if decision.suppressed:
            record["suppressed"] = decision.suppressed
        self._emit(record, container)
        self._stats.alert_latency.observe(latency / 1e9)

    def _ask(
        self, event: Event, container: Container | None, rule: CompiledRule | None, rule_id: str
    ) -> Decision:
        """Whether the limiter allows it. In a flood it mostly does not; then nothing more is assembled."""
        late = _Late(event, container, rule)
        if not self.limiter.may_pass(event.container, rule_id):
            return self.limiter.hold(event.container, rule_id, late)
        exe, _ = program_of(event, self._tree)
        same = same_as(event, outcome_of(event, rule), exe, describe(event))
        return self.limiter.admit(event.container, rule_id, same, late)

    def _count(
        self,
        event: Event,
        container: Container | None,
        rule: CompiledRule | None,
        name: str,
        outcome: Outcome,
    ) -> None:
        action = rule.asked_action if rule else Action(event.action)
        self._stats.alerts[name, severity_of(rule), action.label, str(outcome)] += 1
        namespace = container.namespace if container else None
        self._stats.attempts.add(rule.attack if rule else (), namespace, str(outcome))

    def finding(self, found: Finding) -> None:
        """A detector found something: count it, report it."""
        detector, cgroup = found.detector, found.container.cgroup_id if found.container else 0
        name = self._stats.series(detector.id)
        self._stats.alerts[name, detector.severity, "alert", "seen"] += 1
        namespace = found.container.namespace if found.container else None
        self._stats.attempts.add(detector.attack, namespace, "seen")
        decision = self.limiter.admit(cgroup, detector.id, str(found.details))
        if not decision.passes:
            self._stats.alerts_suppressed[name] += 1
            return
        record = finding_record(found, self._node, self._offset)
        if decision.suppressed:
            record["suppressed"] = decision.suppressed
        self._emit(record, found.container)

    def lifecycle(self, event: Event, container: Container | None) -> None:
        """An event that was requested without a rule, and came by the alerts ring."""
        self._emit(event_record(event, container, self._offset), container)

    def render(self, event: Event, container: Container | None) -> Mapping[str, Any]:
        """An event as a record for a client of the local socket. Called in that server's thread."""
        return self.redact(event_record(event, container, self._offset))

    def tick(self, *, last: bool = False) -> None:
        """Tell what was held back and no later alert will tell; follow the clock. Called by a timer, and at
        the end (`last`)."""
        self._offset = boot_offset_ns()
        for held in self.limiter.flush(0) if last else self.limiter.flush():
            what = held.what
            if isinstance(what, _Late):
                what = assemble(what.event, what.container, what.rule, self._tree, self._node)
            if isinstance(what, Alert):
                now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                record = alert_record(what, self._offset, now - what.event.time_ns)
                record["suppressed"] = held.times - 1  # this line is the last of them
                record["reported"] = timestamp(now, self._offset)
                self._emit(record, what.container)

    def _kill(self, alert: Alert) -> Alert:
        result = kill_process(alert.event.pid, alert.event.start_ns, alert.id)
        self.responses[str(result.outcome)] += 1
        return alert.answered(result)
