# SPDX-License-Identifier: Apache-2.0
"""The way of an event of a custom probe: its container, the metrics derived from it, the rules
that match, and the clients that follow it.

Used by the loop only. A rule that kills does so after the event, and only a task that the kernel
itself has bound to that container (map `processes`) with the same start time; never a task of the
host.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.abi import TASK, Action
from ringfence.containers.model import Container
from ringfence.daemon.delivery.outputs import Outputs
from ringfence.daemon.parts import Loaded, Picture
from ringfence.export.container_alerts import RuleFacts
from ringfence.export.probe_records import Verdict, event_record, verdict_record
from ringfence.export.records import boot_offset_ns
from ringfence.faults import ErrorCounter
from ringfence.policy import CompiledPolicies
from ringfence.policy.model import Policy
from ringfence.policy.probe_rules import ProbeRule
from ringfence.probes.layout import Decoded
from ringfence.probes.live import Live, ProbeEvent
from ringfence.response.ids import AlertIds
from ringfence.response.kill import KillOutcome, KillResult, kill_process
from ringfence.response.limiter import Limiter

__all__ = ["HOST", "ProbePipeline"]

HOST = "host"
_START = struct.Struct("=Q")
_START_AT = TASK.offset_of("start_ns")
_MAX_CHOICES = 4096
_new_id = AlertIds("p")


class ProbePipeline:
    """Used by the loop only, but for `render`."""

    def __init__(
        self, loaded: Loaded, picture: Picture, outputs: Outputs, limiter: Limiter, mode: str = ""
    ) -> None:
        """`mode` replaces the mode of each policy; empty: each keeps its own."""
        self._processes, self._slots = loaded.kernel.map("processes"), loaded.slots
        self._policies, self._outputs, self._limiter, self._mode = loaded.generations, outputs, limiter, mode
        self._registry, self._tree, self._stats = picture.registry, picture.tree, picture.stats
        self._node = picture.node
        self._guard = ErrorCounter("probe event")
        self._offset = boot_offset_ns()
        self._compiled: CompiledPolicies | None = None
        self._rules: dict[str, list[tuple[int, Policy, ProbeRule]]] = {}
        self._chosen: dict[int, tuple[Container, frozenset[int]]] = {}

    def handle(self, live: Live, records: Sequence[bytes]) -> None:
        """A batch of one probe. No record ends the loop; a rule or metric that breaks harms only
        itself.
        """
        if self._policies.compiled is not self._compiled:
            self._learn_rules()
        decode = live.decoder.decode
        wanted = self._outputs.stream.wants_probe(live.probe.label)
        live.count(received=len(records))
        seen: dict[tuple[int, int, int], Container | None] = {}  # a batch is about a few processes
        for record in records:
            try:
                decoded = decode(record)
            except (ValueError, struct.error):
                live.failures["decode"] += 1
                continue
            process = (decoded.container, decoded.pid, decoded.start_ns)
            if process not in seen:
                seen[process] = self.owner(decoded)
            container = seen[process]
            # 0 is the host; an unknown id is neither the host nor a container.
            if container is None and (decoded.container or not live.probe.keep_host):
                live.failures["unattributed"] += 1
                continue
            self._take(live, decoded, container, wanted=wanted)

    def _take(self, live: Live, decoded: Decoded, container: Container | None, *, wanted: bool) -> None:
        probe = live.probe
        try:
            live.tally.observe(container.short_id if container else HOST, decoded.values)
        except Exception as error:
            self._bug(live, error)
        rules = self._rules.get(probe.label)
        if not (rules and container) and not wanted and not probe.lines:
            return
        event = ProbeEvent(probe, decoded)
        try:
            if rules and container is not None:
                self._evaluate(live, rules, event, container)
            if wanted:
                self._outputs.stream.offer(self.render, event, container)
            if probe.lines:
                self._outputs.line(self.render(event, container))
        except Exception as error:
            self._bug(live, error)

    def _bug(self, live: Live, error: Exception) -> None:
        live.failures["internal"] += 1
        self._guard.failed(error)

    def owner(self, decoded: Decoded) -> Container | None:
        """The container of an event, by what the probe reports; None: the host, or unknown."""
        cgroup = decoded.container
        if not cgroup and decoded.pid and decoded.start_ns:
            process = self._tree.find(decoded.pid, decoded.start_ns)
            cgroup = process.container if process else 0
        if not cgroup:
            return None
        found = self._registry.find(cgroup)
        if found is not None:
            return found
        # A cgroup below the container's own, or a new one: the kernel's table has it.
        slot = self._slots.owner(cgroup)
        value = self._slots.read(slot) if slot is not None else None
        return self._registry.get(slot or 0, value.cgroup) if value is not None and value.cgroup else None

    def _learn_rules(self) -> None:
        self._compiled = self._policies.compiled
        self._rules, self._chosen = {}, {}
        for index, policy in enumerate(self._compiled.policies.policies if self._compiled else ()):
            for rule in policy.probe_rules:
                self._rules.setdefault(rule.label, []).append((index, policy, rule))

    def _policies_of(self, container: Container) -> frozenset[int]:
        known = self._chosen.get(container.cgroup_id)
        if known is not None and known[0] is container:
            return known[1]
        assert self._compiled is not None
        chosen = self._compiled.select(
            container if container.settled or container.enrolled_by_runtime else None
        )
        if len(self._chosen) >= _MAX_CHOICES:
            self._chosen.clear()
        self._chosen[container.cgroup_id] = (container, chosen)
        return chosen

    def _evaluate(
        self, live: Live, rules: list[tuple[int, Policy, ProbeRule]], event: ProbeEvent, container: Container
    ) -> None:
        values = dict(zip(event.probe.fields, event.decoded.values, strict=True))
        for index, policy, rule in rules:
            try:
                if rule.holds(values) and index in self._policies_of(container):
                    live.count(alerts=1)
                    self._verdict(event, container, policy, rule)
            except Exception as error:  # this rule misses this event; the others are still evaluated
                self._bug(live, error)

    def _verdict(self, event: ProbeEvent, container: Container, policy: Policy, rule: ProbeRule) -> None:
        mode, decoded = self._mode or policy.mode, event.decoded
        verdict = Verdict(
            _new_id(), event, container, policy, rule, mode, "seen",
            self._tree.find(decoded.pid, decoded.start_ns) if decoded.pid else None,
            self._tree.ancestry(decoded.pid, decoded.start_ns, first=container.pid) if decoded.pid else (),
            self._policies.number, self._node,
        )  # fmt: skip
        if rule.action is Action.KILL:
            verdict = self._kill(verdict) if mode == "enforce" else verdict._replace(outcome="would-kill")
        facts = RuleFacts(rule.id, rule.title, rule.severity)
        name = self._stats.count_alert(facts, rule.action.label, verdict.outcome, rule.attack, container)
        same = (verdict.outcome, decoded.pid, decoded.values)
        decision = self._limiter.admit(container.cgroup_id, rule.id, same, verdict, decoded.time_ns)
        if not decision.passes:
            self._stats.alerts_suppressed[name] += 1
            return
        self._deliver(verdict, decision.suppressed)

    def _deliver(self, verdict: Verdict, suppressed: int) -> None:
        latency = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - verdict.event.decoded.time_ns
        record = verdict_record(verdict, self._offset, latency)
        if suppressed:
            record["suppressed"] = suppressed
        self._outputs.emit(record, verdict.container)

    def _kill(self, verdict: Verdict) -> Verdict:
        decoded = verdict.event.decoded
        bound = self._processes.get(decoded.pid)
        if bound is None:
            result = KillResult(verdict.id, decoded.pid, KillOutcome.GONE, "no process of a container")
        elif (TASK.unpack(bound)[0], _START.unpack_from(bound, _START_AT)[0]) != (
            verdict.container.cgroup_id,
            decoded.start_ns,
        ):
            result = KillResult(verdict.id, decoded.pid, KillOutcome.OTHER)
        else:
            result = kill_process(decoded.pid, decoded.start_ns, verdict.id)
        self._stats.responses[str(result.outcome)] += 1
        return verdict._replace(response=result, outcome="killed" if result.ended else "kill-failed")

    def render(self, event: ProbeEvent, container: Container | None) -> Mapping[str, Any]:
        """An event as a record. Called in the local socket's thread, too."""
        return self._outputs.redactor.record(event_record(event, container, self._offset))

    def tick(self, *, last: bool = False) -> None:
        """Report what was held back and will not be reported with a later alert. Called by a
        timer, and at the end (`last`).
        """
        self._offset = boot_offset_ns()
        for held in self._limiter.flush(0) if last else self._limiter.flush():
            if isinstance(held.what, Verdict):
                self._deliver(held.what, held.times - 1)
