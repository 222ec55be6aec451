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
from ringfence.daemon.defence.usermode_helpers import Helpers
from ringfence.daemon.delivery.outputs import Outlets, limiter_of, open_outbox
from ringfence.daemon.health.backpressure import Pressure
from ringfence.daemon.health.canary import Canary, sings
from ringfence.daemon.loop import Loop
from ringfence.daemon.policies.file_watch import FileWatch
from ringfence.daemon.policies.manager import PolicyKeeper, load
from ringfence.daemon.queries import http as frontends
from ringfence.daemon.queries.status import Snapshots
from ringfence.daemon.startup.handover import GAP
from ringfence.daemon.startup.resource_limits import spare_us
from ringfence.daemon.succession.continuity import Continuity
from ringfence.daemon.succession.takeover import Takeover
from ringfence.daemon.tracking.adoption import Adoption
from ringfence.daemon.tracking.containers import Members
from ringfence.daemon.tracking.enroll_socket import Enroller
from ringfence.daemon.tracking.enrolment import Entry
from ringfence.daemon.tracking.enrolment_store import Handshakes
from ringfence.daemon.tracking.pod_sources import Identity
from ringfence.daemon.tracking.resync import Reconciler
from ringfence.daemon.verdicts.detectors import DetectorFeed
from ringfence.daemon.verdicts.dispatcher import Dispatcher
from ringfence.daemon.verdicts.pipeline import Desk
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
        self.defence.doubts.finish()
        if self.probes:
            self.probes.finish()
        self.continuity.stop()
        self.kernel.map("heartbeat").set(0, 0)  # from here on the kernel gives slots back by itself
        self.desk.tick(last=True)
        self.outlets.flush()

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
        self.outlets = Outlets(self.config, self._show, self.outbox.put)

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
        self.told = Handshakes(config.enrolments_dir)
        self.registry = Registry(self.slots, on_free=self._slot_freed)
        self.identity = Identity(config, lambda uids: self.loop.call(lambda: self.members.pods_changed(uids)))
        self.worker = Worker(
            [*self.identity.sources(), *default_sources(config.runtime_roots)],
            exists=lambda path: self._hierarchy.directory(path).is_dir(),
            path_of=self._path_of,
        )
        self.members = Members(self.registry, self.tree, self.worker, self.generations, kernel.losses)
        self.desk = Desk(
            self.generations, self.tree, self.stats, self.outlets.emit, limiter_of(config),
            node=config.node_name,
        )  # fmt: skip
        self.desk.redact, self.outlets.find = self.outlets.redactor.record, self.registry.find
        self.detector_feed = DetectorFeed(self.desk, self.registry, self.slots, config.detectors_off)
        self.desk.watch = self.detector_feed.on_verdict
        self.members.on_known, self.members.on_gone = self._on_known, self.detector_feed.on_gone
        names = patterns_for(config.patterns, known=config.known_names)
        self.adoption = Adoption(kernel, self._hierarchy, names, self.slots, self.registry, self.members)
        self.takeover = Takeover(self.generations, self.registry, self.desk.verdict, self._path_of)
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
        spare_us()
        self.pressure = Pressure(
            kernel.activity, config.activity_ring, kernel.map("halvings"), self.stats,
            self.limits.load, return_free_memory,
        )  # fmt: skip
        self.reconciler = Reconciler(
            kernel.losses,
            self.registry,
            self.tree,
            self.adoption,
            lambda: self.slots.unused,
            self.loop.call,
            adopt=config.adopt,
            misses=lambda: {one.name: one.misses for one in kernel.program_stats()},
        )
        self.keeper = PolicyKeeper(
            config,
            kernel,
            self.generations,
            self._tiers,
            self.stats,
            self._plan,
            self.loop.call,
            self.members.facts,
            self.continuity.announce,
            self._files,
        )
        never = self.adoption.never
        entry = Entry(self._hierarchy, self.slots, self.members, self.generations, self.told, never)
        self.defence = Defence(
            config, kernel, self.continuity, self.generations, self.registry, self.desk, self.stats,
            self._verdict, lambda: self.keeper.reload("programs were detached"), self.loop.later,
        )  # fmt: skip
        refuses = self.defence.peers.refuses
        self.enroller = Enroller(config.enroll_socket, self.loop, entry, self.keeper, self.told, refuses)

    def _slot_freed(self, container: Container, ours: bool) -> None:
        self.members.slot_freed(container, ours=ours)
        self.told.forget(container.cgroup_id)

    def _plan(self, *sets: CompiledPolicies) -> AttachPlan:
        """What to attach for these sets of policies together."""
        kinds = plans.needed_kinds(self.config, *sets)
        cgroup2 = str(self._hierarchy.v2_mount or "")
        node_has = self._boot.capabilities
        return plans.attach_plan(kinds, self.config, node_has, cgroup2, self._tiers, self.kernel.guarding)

    def _on_known(self, container: Container, facts: Facts) -> None:
        self.detector_feed.on_known(container, facts)
        self.outlets.identified(container)

    def _path_of(self, cgroup_id: int) -> str:
        """Path of a cgroup whose CREATE record was lost. Walks the hierarchy: only in the enrichment's
        thread.
        """
        return next((found.path for found in walk(self._hierarchy) if found.cgroup_id == cgroup_id), "")

    def _serve(self) -> None:
        """From here on the local socket and HTTP answer; `ready` says what is still missing."""
        config = self.config
        snapshots = Snapshots(
            config, self.kernel, self.loop, self.registry, self.slots, self.tree, self.keeper, self.stats,
            self.writer, self.ready, f"{self._hierarchy.kind} {self._hierarchy.controller}".strip(),
        )  # fmt: skip
        refuses = self.defence.peers.refuses
        self.stream = StreamServer(config.socket, snapshots.answer, self._render, refuses)
        self._stack.callback(self.stream.close)
        snapshots.stream, snapshots.redact = self.stream, self.outlets.redactor.arguments
        snapshots.trouble = lambda: self.continuity.problem or self.kernel.pin_failure
        self.probes = self._custom_probes(config.probes_directory) if config.probes_directory else None
        snapshots.probes = self.probes.keeper.states if self.probes else {}
        self.dispatch = Dispatcher(
            self.stats, self.registry, self.tree, self.members, self.desk, self.stream, self.takeover
        )
        self.stream.start()
        self.audit = frontends.audit_of(config, self._stack, lambda: list(self.registry))
        frontends.serve(
            config, self._stack, metric_sources.sources(self),
            self.healthy, self.ready, snapshots, self.stream,
        )  # fmt: skip

    def _custom_probes(self, directory: Path) -> CustomProbes:
        from ringfence.daemon.probes.setup import CustomProbes

        return CustomProbes(
            self.config, directory, self.kernel, self._hierarchy, self.loop, self.registry, self.slots,
            self.tree, self.generations, self.stats, self.desk.responses, self.outlets.emit, self._lines.emit,
            self.outlets.redactor.record, self.stream, self.keeper.reload,
        )  # fmt: skip

    def _render(self, event: Any, container: Any) -> Mapping[str, Any]:
        desk = self.probes.desk if self.probes and not hasattr(event, "event") else self.desk
        return desk.render(event, container)

    def _defend(self) -> None:
        """Install the policies, attach the programs, adopt what runs; then remove what an earlier agent left
        attached.
        """
        kernel, config = self.kernel, self.config
        self._waiting_for = "policies and programs"
        self.continuity.begin(self.adoption.inheritance)
        self.defence.begin()
        fill_free_slots(self.slots)
        self.adoption.exempt()
        self.helpers = Helpers(kernel.map("helpers"), config.helpers)
        self._beat()
        canary = Canary(self._hierarchy, self.stats) if sings(config) else None
        patterns = plans.kernel_patterns(config)
        kernel.configure_patterns([*patterns, canary.pattern] if canary else patterns)
        kernel.observe_only(plans.observe_levels(config))
        self.keeper.start(self._compiled)
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
            self.enroller.restore()
            self._beat()
            self.adoption.take_in()
        self.continuity.adopted()
        self.adoption.inheritance.close()
        self.defence.attached()

    def _start(self, canary: Canary) -> None:
        self._stack.callback(canary.close)
        canary.start()
        self.dispatch.canary = canary
        self.loop.every(_BEAT, canary.beat)

    def _watch(self) -> None:
        """Start timers, signals and threads. Then exempt what exists by now from garbage collection: it lives
        as long as the agent.
        """
        loop = self.loop
        loop.watch(self.worker.fileno(), self._on_answers)
        loop.every(_BEAT, self._beat)
        loop.every(_SWEEP, self.members.sweep)
        loop.every(_TICK, self.desk.tick)
        loop.every(_HOLD, self.outlets.tick)
        loop.every(_TICK, self.reconciler.tick)
        loop.every(_BEAT, self.pressure.tick)
        loop.every(_BEAT, self.detector_feed.tick)
        loop.every(_BEAT, self.defence.tick)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.on_signal(number, loop.stop)
        loop.on_signal(signal.SIGHUP, self.hang_up)
        self.outbox.start()
        self.worker.start()
        self.identity.start()
        self._stack.callback(self.identity.close)
        self._stack.callback(self.worker.stop)
        self.keeper.watch()
        self._stack.callback(self.keeper.close)
        if self.probes:
            self._stack.callback(self.probes.keeper.close)
            self.probes.keeper.start()
        self.enroller.start()
        self._stack.callback(self.enroller.close)
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
        self.loop.call(lambda: self.desk.verdict(event, self.registry.find(event.container)))

    def _on_answers(self) -> None:
        self.members.on_answers()
        self.continuity.answered()

    def hang_up(self) -> None:
        """Reopen the output and read all files again. In the loop."""
        self.writer.reopen()
        self.keeper.reload("SIGHUP")
        if self.probes:
            self.probes.keeper.reload()


def fill_free_slots(slots: KernelSlots) -> None:
    """All slots are free; the lowest is taken first."""
    for slot in reversed(range(slots.size)):
        slots.put_back(slot)
