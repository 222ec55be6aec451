# SPDX-License-Identifier: Apache-2.0
"""The agent as a whole: creates the parts in order, runs the loop, and closes them in reverse order."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringfence import log
from ringfence.bpf.attach import AttachPlan
from ringfence.bpf.objects import return_free_memory
from ringfence.config import Config
from ringfence.containers.enrich import Worker, default_sources
from ringfence.containers.hierarchy import walk
from ringfence.containers.model import Container, Facts
from ringfence.containers.patterns import patterns_for
from ringfence.containers.registry import Registry
from ringfence.containers.slots import KernelSlots
from ringfence.containers.tree import ProcessTree
from ringfence.daemon import metric_sources
from ringfence.daemon.attach import plan as plans
from ringfence.daemon.boot import Boot
from ringfence.daemon.defence.setup import Defence
from ringfence.daemon.defence.usermode_helpers import UsermodeHelpers
from ringfence.daemon.delivery.outputs import Outputs, limiter_of, open_outbox
from ringfence.daemon.health import canary as canaries
from ringfence.daemon.health.backpressure import Backpressure
from ringfence.daemon.health.canary import Canary
from ringfence.daemon.loop import Loop
from ringfence.daemon.policies.file_watch import FileWatch
from ringfence.daemon.policies.manager import PolicyManager, load
from ringfence.daemon.queries import http as frontends
from ringfence.daemon.queries.status import StatusQueries
from ringfence.daemon.startup.handover import GAP
from ringfence.daemon.startup.resource_limits import lower_priority
from ringfence.daemon.succession.continuity import Continuity
from ringfence.daemon.succession.takeover import Takeover
from ringfence.daemon.tracking.adoption import Adoption
from ringfence.daemon.tracking.containers import ContainerTracker
from ringfence.daemon.tracking.enroll_socket import EnrollSocket
from ringfence.daemon.tracking.enrolment import Enrolment
from ringfence.daemon.tracking.enrolment_store import EnrolmentStore
from ringfence.daemon.tracking.pod_sources import PodSources
from ringfence.daemon.tracking.resync import Resync
from ringfence.daemon.verdicts.detectors import Detectors
from ringfence.daemon.verdicts.dispatcher import Dispatcher
from ringfence.daemon.verdicts.pipeline import VerdictPipeline
from ringfence.events import Event
from ringfence.export.jsonl import JsonLines, LineWriter
from ringfence.export.stats import Stats
from ringfence.export.stream import StreamServer
from ringfence.policy import CompiledPolicies
from ringfence.policy.install import Generations

if TYPE_CHECKING:
    from ringfence.daemon.probes.setup import CustomProbes

__all__ = ["Agent"]

_BEAT, _SWEEP, _TICK, _HOLD = 1.0, 5.0, 5.0, 0.25  # seconds between two rounds of the timers
_SETTLE = 0.002  # seconds that alerts stay in their ring for an output that is slow
_HEALTHY = 10.0  # seconds in which the loop must have turned


class Agent:
    """`start` returns when the node is defended. Everything it created is closed by the stack."""

    def __init__(self, config: Config, stack: contextlib.ExitStack, boot: Boot) -> None:
        self.config, self._stack, self._boot = config, stack, boot
        self._hierarchy, self.limits = boot.hierarchy, boot.limits
        self.stats = Stats()
        self._waiting_for = "the kernel"
        self._log = log.get_logger("agent")

    def start(self) -> None:
        """Everything up to ready. Raises Error; then nothing is left behind."""
        self._open_outputs()
        self._load()
        self._connect()
        self._serve()
        self._defend()
        self._watch()
        self._waiting_for = ""
        self.stats.startup_seconds = plans.process_age()
        self._log.info(
            "ready",
            startup_ms=round(self.stats.startup_seconds * 1000),
            attach_ms=round(self.stats.attach_seconds * 1000),
            containers=len(self.registry),
            programs=len(self.kernel.attached),
        )

    def stop(self) -> None:
        """Report what is pending. What is pinned keeps enforcing."""
        self._waiting_for = "the end"
        self._log.info("stopping", enforcement="goes on (pinned)" if self.continuity.outlives else "ends")
        self.loop.drain()
        self.defence.tamper.finish()
        if self.probes:
            self.probes.finish()
        self.continuity.stop()
        self.kernel.map("heartbeat").set(0, 0)  # from here on the kernel gives slots back by itself
        self.pipeline.tick(last=True)
        self.outputs.flush()

    def ready(self) -> str:
        """Empty when programs are attached and policies are in the kernel, else what is missing."""
        return f"not ready: waiting for {self._waiting_for}" if self._waiting_for else ""

    def healthy(self) -> str:
        """Empty while the loop turns."""
        silent = time.monotonic() - self.stats.loop_seen
        return "" if self._waiting_for or silent < _HEALTHY else f"the loop has not turned for {silent:.0f} s"

    def _open_outputs(self) -> None:
        log_lines = LineWriter(2)
        self._stack.callback(log_lines.close)
        self._stack.callback(log.configure, self.config.log_level)
        log.configure(self.config.log_level, log_lines.write)
        self.writer = LineWriter(self.config.output or 1, complain=self._complain)
        self._stack.callback(self.writer.close)
        self._lines = JsonLines(self.writer.write)
        self.outbox = open_outbox(self.config)
        self._stack.callback(self.outbox.close)
        self.outputs = Outputs(self.config, self._show, self.outbox.put)

    def _complain(self, reason: str, destination: str) -> None:
        if reason == "not_reopened":
            text = "the output cannot be opened again; lines go on to the file that it was"
        else:
            text = "lines are lost; the agent goes on"
        self._log.error(text, destination=destination, reason=reason)

    def _show(self, record: Mapping[str, Any]) -> None:
        self._lines.emit(record)
        self.stream.publish(record)

    def _load(self) -> None:
        """Policies, programs and maps; nothing is attached yet."""
        # First without the kernel: a mistake in a file costs a start nothing but itself.
        self._files = FileWatch(self.config.policies)  # before they are read
        tiers = plans.tiers_of(self._boot.capabilities)
        self._compiled = load(self.config, tiers)
        self.kernel = self._boot.kernel
        sections = [program.section for program in self.kernel.programs]
        self._tiers = plans.tiers_of(self._boot.capabilities, sections)
        if self._tiers != tiers:
            self._compiled = load(self.config, self._tiers)
        if self.config.program_stats:
            self.kernel.keep_statistics(on=True)

    def _connect(self) -> None:
        """Create the parts that live in user space, and connect them."""
        kernel, config = self.kernel, self.config
        self.slots = KernelSlots(
            *(kernel.map(name) for name in ("slots", "free_slots", "containers", "counters"))
        )
        self._stack.callback(self.slots.close)
        self.generations = Generations(kernel.map)
        self.tree = ProcessTree()
        self.enrolment_store = EnrolmentStore(config.told_dir)
        self.registry = Registry(self.slots, on_free=self._slot_freed)
        self.pod_sources = PodSources(
            config, lambda uids: self.loop.call(lambda: self.tracker.pods_changed(uids))
        )
        self.worker = Worker(
            [*self.pod_sources.sources(), *default_sources(config.runtime_roots)],
            exists=lambda path: self._hierarchy.directory(path).is_dir(),
            path_of=self._path_of,
        )
        self.tracker = ContainerTracker(
            self.registry, self.tree, self.worker, self.generations, kernel.losses
        )
        self.pipeline = VerdictPipeline(
            self.generations, self.tree, self.stats, self.outputs.emit, limiter_of(config),
            node=config.node_name,
        )  # fmt: skip
        self.pipeline.redact, self.outputs.find = self.outputs.redactor.record, self.registry.find
        self.detectors = Detectors(self.pipeline, self.registry, self.slots, config.detectors_off)
        self.pipeline.watch = self.detectors.on_verdict
        self.tracker.on_known, self.tracker.on_gone = self._on_known, self.detectors.on_gone
        names = patterns_for(config.patterns, known=config.known_names)
        self.adoption = Adoption(kernel, self._hierarchy, names, self.slots, self.registry, self.tracker)
        self.takeover = Takeover(self.generations, self.registry, self.pipeline.verdict, self._path_of)
        self.continuity = Continuity(config, kernel, self.generations, self.registry, self.takeover)
        self.loop = Loop(
            kernel.alerts,
            kernel.activity,
            lambda a, b: self.dispatch.on_records(a, b),
            lambda: self.writer.settle(_SETTLE),
        )
        self._stack.callback(self.loop.close)
        self._supervise()

    def _supervise(self) -> None:
        """What keeps the kernel's tables, our picture of them, and our own load in order."""
        kernel, config = self.kernel, self.config
        lower_priority()
        self.backpressure = Backpressure(
            kernel.activity, config.activity_ring, kernel.map("halvings"), self.stats,
            self.limits.load, return_free_memory,
        )  # fmt: skip
        self.resync = Resync(
            kernel.losses,
            self.registry,
            self.tree,
            self.adoption,
            lambda: self.slots.unused,
            self.loop.call,
            adopt=config.adopt,
            misses=lambda: {one.name: one.misses for one in kernel.program_stats()},
        )
        self.manager = PolicyManager(
            config,
            kernel,
            self.generations,
            self._tiers,
            self.stats,
            self._plan,
            self.loop.call,
            self.tracker.facts,
            self.continuity.announce,
            self._files,
        )
        never = self.adoption.never
        enrolment = Enrolment(
            self._hierarchy, self.slots, self.tracker, self.generations, self.enrolment_store, never
        )
        self.defence = Defence(
            config, kernel, self.continuity, self.generations, self.registry, self.pipeline, self.stats,
            self._verdict, lambda: self.manager.reload("programs were detached"), self.loop.later,
        )  # fmt: skip
        refuses = self.defence.peer_check.refuses
        self.enroll_socket = EnrollSocket(
            config.enroll_socket, self.loop, enrolment, self.manager, self.enrolment_store, refuses
        )

    def _slot_freed(self, container: Container, ours: bool) -> None:
        self.tracker.slot_freed(container, ours=ours)
        self.enrolment_store.forget(container.cgroup_id)

    def _plan(self, *sets: CompiledPolicies) -> AttachPlan:
        """What to attach for these sets of policies together."""
        kinds = plans.needed_kinds(self.config, *sets)
        cgroup2 = str(self._hierarchy.v2_mount or "")
        node_has = self._boot.capabilities
        return plans.attach_plan(kinds, self.config, node_has, cgroup2, self._tiers, self.kernel.guarding)

    def _on_known(self, container: Container, facts: Facts) -> None:
        self.detectors.on_known(container, facts)
        self.outputs.identified(container)

    def _path_of(self, cgroup_id: int) -> str:
        """Path of a cgroup whose CREATE record was lost. Walks the hierarchy: only in the enrichment's
        thread.
        """
        return next((found.path for found in walk(self._hierarchy) if found.cgroup_id == cgroup_id), "")

    def _serve(self) -> None:
        """From here on the local socket and HTTP answer; `ready` says what is still missing."""
        config = self.config
        status = StatusQueries(
            config, self.kernel, self.loop, self.registry, self.slots, self.tree, self.manager, self.stats,
            self.writer, self.ready, f"{self._hierarchy.kind} {self._hierarchy.controller}".strip(),
        )  # fmt: skip
        refuses = self.defence.peer_check.refuses
        self.stream = StreamServer(config.socket, status.answer, self._render, refuses)
        self._stack.callback(self.stream.close)
        status.stream, status.redact = self.stream, self.outputs.redactor.arguments
        status.trouble = lambda: self.continuity.problem or self.kernel.pin_failure
        self.probes = self._custom_probes(config.probes_directory) if config.probes_directory else None
        status.probes = self.probes.manager.states if self.probes else {}
        self.dispatch = Dispatcher(
            self.stats, self.registry, self.tree, self.tracker, self.pipeline, self.stream, self.takeover
        )
        self.stream.start()
        self.audit = frontends.audit_of(config, self._stack, lambda: list(self.registry))
        frontends.serve(
            config, self._stack, metric_sources.sources(self),
            self.healthy, self.ready, status, self.stream,
        )  # fmt: skip

    def _custom_probes(self, directory: Path) -> CustomProbes:
        from ringfence.daemon.probes.setup import CustomProbes

        return CustomProbes(
            self.config, directory, self.kernel, self._hierarchy, self.loop, self.registry, self.slots,
            self.tree, self.generations, self.stats, self.pipeline.responses, self.outputs.emit,
            self._lines.emit, self.outputs.redactor.record, self.stream, self.manager.reload,
        )  # fmt: skip

    def _render(self, event: Any, container: Any) -> Mapping[str, Any]:
        pipeline = self.probes.pipeline if self.probes and not hasattr(event, "event") else self.pipeline
        return pipeline.render(event, container)

    def _defend(self) -> None:
        """Install the policies, attach the programs, adopt what runs; then remove what an earlier agent left
        attached.
        """
        kernel, config = self.kernel, self.config
        self._waiting_for = "policies and programs"
        self.continuity.begin(self.adoption.predecessor)
        self.defence.begin()
        fill_free_slots(self.slots)
        self.adoption.exempt()
        self.helpers = UsermodeHelpers(kernel.map("helpers"), config.helpers)
        self._beat()
        canary = Canary(self._hierarchy, self.stats) if canaries.enabled(config) else None
        patterns = plans.kernel_patterns(config)
        kernel.configure_patterns([*patterns, canary.pattern] if canary else patterns)
        kernel.observe_only(plans.observe_levels(config))
        self.manager.start(self._compiled)
        began = time.monotonic()
        kernel.attach(self._plan(self._compiled))
        self.stats.attach_seconds = time.monotonic() - began
        if self._boot.handover == GAP:
            self._log.warning("no ticket of the agent before this one: its pins were removed at the start",
                              unguarded_seconds=round(plans.process_age(), 3))  # fmt: skip
        for note in self._boot.notes:
            self._log.warning("assumed", what=note)
        for skipped in kernel.skipped:
            say = self._log.info if skipped.absent else self._log.warning
            say("not attached", target=skipped.target, reason=skipped.reason)
        if canary:
            self._start(canary)
        if config.adopt:
            self.enroll_socket.restore()
            self._beat()
            self.adoption.take_in()
        self.continuity.adopted()
        self.adoption.predecessor.close()
        self.defence.attached()

    def _start(self, canary: Canary) -> None:
        self._stack.callback(canary.close)
        canary.start()
        self.dispatch.canary = canary
        self.loop.every(_BEAT, canary.probe)

    def _watch(self) -> None:
        """Start timers, signals and threads. Then exempt what exists by now from garbage collection: it lives
        as long as the agent.
        """
        loop = self.loop
        loop.watch(self.worker.fileno(), self._on_answers)
        loop.every(_BEAT, self._beat)
        loop.every(_SWEEP, self.tracker.sweep)
        loop.every(_TICK, self.pipeline.tick)
        loop.every(_HOLD, self.outputs.tick)
        loop.every(_TICK, self.resync.tick)
        loop.every(_BEAT, self.backpressure.tick)
        loop.every(_BEAT, self.detectors.tick)
        loop.every(_BEAT, self.defence.tick)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.on_signal(number, loop.stop)
        loop.on_signal(signal.SIGHUP, self.hang_up)
        self.outbox.start()
        self.worker.start()
        self.pod_sources.start()
        self._stack.callback(self.pod_sources.close)
        self._stack.callback(self.worker.stop)
        self.manager.watch()
        self._stack.callback(self.manager.close)
        if self.probes:
            self._stack.callback(self.probes.manager.close)
            self.probes.manager.start()
        self.enroll_socket.start()
        self._stack.callback(self.enroll_socket.close)
        frontends.open_node(self.config, self._stack)
        self._beat()
        # A thread that computes (a scrape) may hold the interpreter for one interval: the alert must not
        # wait 5 ms.
        sys.setswitchinterval(0.001)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    def _beat(self) -> None:
        """Proof of life: for `/healthz`, and for the kernel, which reclaims slots by itself without it."""
        self.stats.loop_seen = time.monotonic()
        self.kernel.map("heartbeat").set(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        self.takeover.tick()
        self.helpers.refresh()

    def _verdict(self, event: Event) -> None:
        """Handle a verdict of user space. From any thread."""
        self.loop.call(lambda: self.pipeline.verdict(event, self.registry.find(event.container)))

    def _on_answers(self) -> None:
        self.tracker.on_answers()
        self.continuity.answered()

    def hang_up(self) -> None:
        """Reopen the output and read all files again. In the loop."""
        self.writer.reopen()
        self.manager.reload("SIGHUP")
        if self.probes:
            self.probes.manager.reload()


def fill_free_slots(slots: KernelSlots) -> None:
    """All slots are free; the lowest is taken first."""
    for slot in reversed(range(slots.size)):
        slots.put_back(slot)
