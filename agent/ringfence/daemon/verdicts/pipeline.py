# SPDX-License-Identifier: Apache-2.0
"""The way of a verdict, from the ring to the outputs. The steps are in the order in which they
happen.

handle: a verdict on a path that only looks like the agent's is deferred until its effect is known.
decide: find the rule, ask the detectors, carry out the kill that is left to user space, count,
apply the rate limit, assemble the alert, hand it to the outputs. With a kill the alert is
assembled first, because the kill carries the alert's id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from prometheus_client.core import Metric

from ringfence import log
from ringfence.abi import Action
from ringfence.containers.model import Container, Facts
from ringfence.daemon.delivery.outputs import Outputs
from ringfence.daemon.parts import Picture
from ringfence.daemon.verdicts.detectors import Detectors
from ringfence.daemon.verdicts.rules import RuleLookup
from ringfence.daemon.verdicts.tamper import CALL_SECONDS, TamperConfirmation
from ringfence.events import Event
from ringfence.export import families
from ringfence.export.container_alerts import RuleFacts
from ringfence.export.records import (
    alert_record,
    boot_offset_ns,
    event_record,
    finding_record,
    timestamp,
)
from ringfence.faults import ErrorCounter
from ringfence.policy.compiled import CompiledRule
from ringfence.response.alert import (
    Alert,
    Outcome,
    assemble,
    deduplication_key_of,
    is_half_killed,
    outcome_of,
    program_of,
    severity_of,
)
from ringfence.response.builtin import is_condemned
from ringfence.response.describe import describe
from ringfence.response.detectors import Finding
from ringfence.response.kill import kill_process
from ringfence.response.limiter import Decision, Limiter

__all__ = ["Later", "VerdictPipeline"]

_CLOCK_SET_NS = 10**9  # a change of the clock that no slewing explains

Later = Callable[[float, Callable[[], None]], None]


class _Held(NamedTuple):
    """A verdict that the limiter held back. It is assembled only if it is the last one of its
    kind.
    """

    event: Event
    container: Container | None
    rule: CompiledRule | None


class VerdictPipeline:
    """Used by the loop only, except `render` and `samples`. `later` does something in the loop after so many
    seconds.
    """

    def __init__(
        self,
        picture: Picture,
        rules: RuleLookup,
        tamper: TamperConfirmation,
        detectors: Detectors,
        limiter: Limiter,
        outputs: Outputs,
        later: Later,
    ) -> None:
        self._picture, self._rules, self._tamper, self._detectors = picture, rules, tamper, detectors
        self._limiter, self._outputs, self._later = limiter, outputs, later
        self._stats = picture.stats
        self._errors = ErrorCounter("timer")
        self._offset = boot_offset_ns()
        self._log = log.get_logger("alerts")

    def handle(self, event: Event, container: Container | None) -> None:
        """A rule matched: decide it, now or when the effect of the call is known."""
        if self._tamper.defer(event, container):
            self._later(CALL_SECONDS, self.settle)
        else:
            self._decide(event, container, event)

    def settle(self, *, last: bool = False) -> None:
        """Decide the deferred verdicts whose call has ended; with `last` all of them."""
        findings, verdicts = self._tamper.due(last=last)
        self.report(findings)
        for seen, event, container in verdicts:
            # One that fails must not cost the others, nor the kill that is left to user space.
            self._errors(partial(self._decide, seen, container, event))

    def _decide(self, seen: Event, container: Container | None, event: Event) -> None:
        """`event` is the one that was `seen`, or what that turned out to be: then its process is
        killed.
        """
        rule = self._rules.find(event)
        rule_id = rule.rule_id if rule else "unknown"
        name = self._stats.series(rule_id)
        outcome = outcome_of(event, rule)
        self.report(self._detectors.verdict(event, container, rule_id, str(outcome)))
        alert: Alert | None = None
        if is_half_killed(event) or event is not seen:
            alert = self._kill(self._assemble(event, container, rule))
            self._count(event, container, rule, name, alert.outcome)
            decision = self._limiter.admit(
                event.container, rule_id, alert.deduplication_key, alert, event.time_ns
            )
        else:
            self._count(event, container, rule, name, outcome)
            decision = self._limit(event, container, rule, rule_id)
        if not decision.passes:
            self._stats.alerts_suppressed[name] += 1
            return
        self._deliver(alert or self._assemble(event, container, rule), decision.suppressed)

    def _limit(
        self, event: Event, container: Container | None, rule: CompiledRule | None, rule_id: str
    ) -> Decision:
        """Apply the rate limit. In a flood most verdicts are held back before anything is
        assembled.
        """
        held = _Held(event, container, rule)
        if not self._limiter.may_pass(event.container, rule_id, event.time_ns):
            return self._limiter.hold(event.container, rule_id, held, event.time_ns)
        exe, _ = program_of(event, self._picture.tree)
        same = deduplication_key_of(event, outcome_of(event, rule), exe, describe(event))
        return self._limiter.admit(event.container, rule_id, same, held, event.time_ns)

    def _count(
        self,
        event: Event,
        container: Container | None,
        rule: CompiledRule | None,
        name: str,
        outcome: Outcome,
    ) -> None:
        action = rule.asked_action if rule else Action(event.action)
        kind = "condemned" if is_condemned(rule) else "rule"
        facts = RuleFacts(name, rule.title if rule else "", severity_of(rule), kind)
        attack = rule.attack if rule else ()
        self._stats.count_alert(facts, action.label, str(outcome), attack, container)

    def _assemble(self, event: Event, container: Container | None, rule: CompiledRule | None) -> Alert:
        return assemble(event, container, rule, self._picture.tree, self._picture.node)

    def _kill(self, alert: Alert) -> Alert:
        result = kill_process(alert.event.pid, alert.event.start_ns, alert.id)
        self._stats.responses[str(result.outcome)] += 1
        return alert.answered(result)

    def _deliver(self, alert: Alert, suppressed: int) -> None:
        latency = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - alert.event.time_ns
        record = alert_record(alert, self._offset, latency)
        if suppressed:
            record["suppressed"] = suppressed
        self._outputs.emit(record, alert.container)
        self._stats.alert_latency.observe(latency / 1e9, alert.id)

    def report(self, findings: Iterable[Finding]) -> None:
        """Count and report what detectors found."""
        for found in findings:
            self._report(found)

    def _report(self, found: Finding) -> None:
        detector, cgroup = found.detector, found.container.cgroup_id if found.container else 0
        facts = RuleFacts(detector.id, detector.title, detector.severity, "detector")
        name = self._stats.count_alert(facts, "alert", "seen", detector.attack, found.container)
        decision = self._limiter.admit(cgroup, detector.id, str(found.details), None, found.time_ns)
        if not decision.passes:
            self._stats.alerts_suppressed[name] += 1
            return
        record = finding_record(found.traced(self._picture.tree), self._picture.node, self._offset)
        if decision.suppressed:
            record["suppressed"] = decision.suppressed
        self._outputs.emit(record, found.container)

    def identified(self, container: Container, facts: Facts) -> None:
        """More is known about a container: check its bundle, and send the alerts that waited for
        its names.
        """
        self.report(self._detectors.identified(container, facts))
        self._stats.container_alerts.identified(container)
        self._outputs.identified(container)

    def lifecycle(self, event: Event, container: Container | None) -> None:
        """An event of the alerts ring that no rule matched."""
        self._outputs.emit(event_record(event, container, self._offset), container)

    def render(self, event: Event, container: Container | None) -> Mapping[str, Any]:
        """An event as a record for a client of the local socket. Called in that server's thread."""
        return self._outputs.redactor.record(event_record(event, container, self._offset))

    def look(self) -> None:
        """One round of the detectors that look for themselves. Called by a timer."""
        self.report(self._detectors.tick(self._picture.registry))

    def tick(self, *, last: bool = False) -> None:
        """Report what was held back and will not be reported with a later alert; follow the clock.
        Called by a timer, and at the end (`last`).
        """
        self._follow_clock()
        for held in self._limiter.flush(0) if last else self._limiter.flush():
            what = self._assemble(*held.what) if isinstance(held.what, _Held) else held.what
            if isinstance(what, Alert):
                now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                record = alert_record(what, self._offset, now - what.event.time_ns)
                if held.times > 1:
                    record["suppressed"] = held.times - 1  # this line is the last of them
                record["reported"] = timestamp(now, self._offset)
                self._outputs.emit(record, what.container)

    def _follow_clock(self) -> None:
        before, self._offset = self._offset, boot_offset_ns()
        change = self._offset - before
        if abs(change) >= _CLOCK_SET_NS:
            self._stats.clock_set()
            self._log.warning(
                "the clock was set: times of alerts before and after do not compare",
                seconds=round(change / 1e9, 3),
            )

    def samples(self) -> Iterator[Metric]:
        """Alerts, kills, and the size of the rate limiter."""
        yield from families.alerts(self._stats)
        yield from families.capacity("rate_limits", self._limiter.capacity)
