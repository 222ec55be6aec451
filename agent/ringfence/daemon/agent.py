# SPDX-License-Identifier: Apache-2.0
"""The life of the agent: starts its parts in order, runs the loop, and stops. No record passes
through here.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import time
from collections.abc import Callable

from ringfence import log
from ringfence.bpf.kernel import Kernel
from ringfence.bpf.objects import return_free_memory
from ringfence.daemon.assembly import Assembly
from ringfence.daemon.attach import plan as plans
from ringfence.daemon.defence.usermode_helpers import UsermodeHelpers
from ringfence.daemon.health.service_manager import ServiceManager
from ringfence.daemon.parts import Node
from ringfence.daemon.queries import http as frontends
from ringfence.daemon.startup.handover import GAP
from ringfence.daemon.tracking.host_trees import HostTrees
from ringfence_linux.procfs import boottime_ahead_ns

__all__ = ["Agent"]

_BEAT, _SWEEP, _TICK, _HOLD = 1.0, 5.0, 5.0, 0.25  # seconds between two rounds of the timers
_LOOK = 20.0  # seconds between two looks at the kernel's preemption
_DRAIN = 10.0  # seconds in which the reader of the output must take the last lines


class Agent:
    """Everything that it creates is closed by the stack."""

    def __init__(self, node: Node, stack: contextlib.ExitStack, kernel: Callable[[], Kernel]) -> None:
        """`kernel` waits until programs and maps are loaded. Raises Error."""
        self._node, self._config, self._stack = node, node.config, stack
        self._parts = Assembly(node, stack, kernel)
        self._waiting = False  # for the end of an earlier agent's programs
        self._service = ServiceManager()
        self._log = log.get_logger("agent")

    def start(self) -> None:
        """Start everything. When it returns, the node is defended. Raises Error; then nothing is
        left behind.
        """
        parts = self._parts
        self._serve()
        self._defend()
        self._watch()
        self._in_force()
        parts.stats.started(plans.process_age())
        self._log.info(
            "ready",
            startup_ms=round(parts.stats.startup_seconds * 1000),
            attach_ms=round(parts.stats.attach_seconds * 1000),
            containers=len(parts.picture.registry),
            programs=len(parts.loaded.kernel.attached),
        )

    def _in_force(self) -> None:
        """The agent is ready when nothing else decides: neither another mode nor other policies."""
        deciding = self._parts.continuity.takeover.deciding
        self._waiting = deciding
        waiting_for = "the end of the earlier agent's programs" if deciding else ""
        self._parts.readiness.wait_for(waiting_for)
        if waiting_for:
            self._service.waiting(waiting_for)
        else:
            self._service.ready()

    def run(self, *, hang_up: bool = False) -> None:
        """Run the loop until a signal stops it. `hang_up`: SIGHUP came before the loop ran."""
        parts = self._parts
        if hang_up:
            parts.loop.call(self.hang_up)
        parts.loop.run(parts.dispatcher.on_records)

    def stop(self) -> None:
        """Report what is pending. Pinned programs keep enforcing."""
        parts = self._parts
        parts.readiness.wait_for("the end")
        if self.restarts:
            self._service.waiting("the restart")
        else:
            self._service.stopping()
        stays = parts.continuity.outlives(restarts=self.restarts)
        enforcement = "continues (pinned)" if stays else "ends"
        self._log.info("stopping", enforcement=enforcement, restarts=self.restarts)
        parts.loop.drain(parts.dispatcher.on_records)
        parts.pipeline.settle(last=True)
        if parts.probes:
            parts.probes.finish()
        parts.continuity.stop(parts.pipeline.handle, restarts=self.restarts)
        parts.loaded.kernel.map("heartbeat").set(0, 0)  # from here on the kernel frees slots by itself
        parts.pipeline.tick(last=True)
        parts.outputs.flush()
        parts.note_losses(last=True)
        if self.restarts:
            parts.writer.settle(_DRAIN)  # the next start's lines must not continue half a line of this one

    @property
    def restarts(self) -> bool:
        """True if it ends to be started again, with other programs."""
        return self._parts.preemption.restarts

    def hang_up(self) -> None:
        """Reopen the output and read all files again. In the loop."""
        parts = self._parts
        parts.writer.reopen()
        parts.manager.reload("SIGHUP")
        if parts.probes:
            parts.probes.manager.reload()

    def _serve(self) -> None:
        """From here on the local socket and HTTP answer; `ready` says what is still missing."""
        parts, config = self._parts, self._config
        answers, stream = parts.answers(), parts.egress.stream
        stream.start(answers.answer, parts.peer_check.refuses)
        audit = frontends.audit_of(config, self._stack, parts.picture.registry.workloads)
        metrics = [*parts.metrics(), audit]
        frontends.serve(self._config, self._stack, metrics, parts.readiness, answers, stream)

    def _defend(self) -> None:
        """Install the policies, attach the programs, adopt what runs; then remove the pins of an
        earlier agent.
        """
        parts, config = self._parts, self._config
        kernel = parts.loaded.kernel
        parts.readiness.wait_for("policies and programs")
        parts.continuity.begin(parts.adoption.predecessor)
        parts.defence.begin()
        parts.loaded.slots.put_all()
        parts.adoption.exempt()
        self._helpers = UsermodeHelpers(kernel.map("helpers"), config.helpers)
        self._trees = HostTrees(kernel.map("host_trees"), map(str, config.writable))
        self._stack.callback(self._trees.close)
        self._beat()
        patterns = plans.kernel_patterns(config)
        kernel.configure_patterns([*patterns, parts.canary.pattern] if parts.canary else patterns)
        kernel.observe_only(plans.observe_levels(config))
        parts.manager.start(*parts.first)
        began = time.monotonic()
        kernel.attach(parts.planner.plan(parts.first.compiled))
        parts.stats.attached(time.monotonic() - began)
        self._log_start()
        if parts.canary:
            self._stack.callback(parts.canary.close)
            parts.canary.start()
            parts.loop.every(_BEAT, parts.canary.probe)
        if config.adopt:
            parts.enroll_socket.restore()
            self._beat()
            parts.adoption.take_in()
            parts.adoption.settle()
            self._beat()
        else:
            parts.adoption.begin()
        parts.continuity.adopted(parts.pipeline.handle)
        parts.adoption.predecessor.close()
        parts.defence.attached(parts.continuity.base)

    def _log_start(self) -> None:
        if self._node.handover == GAP:
            self._log.warning("no ticket of the earlier agent: its pins were removed at the start",
                              unguarded_seconds=round(plans.process_age(), 3))  # fmt: skip
        if ahead := boottime_ahead_ns():
            self._log.error(
                "the agent runs in a time namespace: the times of alerts are wrong by so many seconds",
                seconds=ahead / 1e9,
            )
        for assumption in self._node.assumptions:
            self._log.warning("assumed", what=assumption)
        for skipped in self._parts.loaded.kernel.skipped:
            write = self._log.info if skipped.absent else self._log.warning
            write("not attached", target=skipped.target, reason=skipped.reason)

    def _watch(self) -> None:
        """Start timers, signals and threads. Then exempt all existing objects from garbage
        collection: they live as long as the agent.
        """
        parts, loop = self._parts, self._parts.loop
        loop.watch(parts.worker.fileno(), parts.dispatcher.on_answers)
        for seconds, work in (
            (_BEAT, self._beat),
            (_SWEEP, parts.tracker.sweep),
            (_TICK, parts.pipeline.tick),
            (_HOLD, parts.outputs.tick),
            (_TICK, parts.resync.tick),
            (_TICK, parts.note_losses),
            (_BEAT, parts.adoption.tick),
            (_BEAT, parts.backpressure.tick),
            (_BEAT, parts.reserve.tick),
            (_BEAT, parts.pipeline.look),
            (_BEAT, parts.defence.tick),
            (_LOOK, parts.preemption.tick),
        ):
            loop.every(seconds, work)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.on_signal(number, loop.stop)
        loop.on_signal(signal.SIGHUP, self.hang_up)
        self._start_threads()
        parts.enroll_socket.start()
        self._stack.callback(parts.enroll_socket.close)
        frontends.open_node(self._config, self._stack)
        self._beat()
        # A thread that computes (a scrape) may hold the interpreter for one interval: an alert
        # must not wait 5 ms.
        sys.setswitchinterval(0.001)
        gc.collect()
        return_free_memory()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    def _start_threads(self) -> None:
        parts = self._parts
        parts.outbox.start()
        parts.worker.start()
        parts.pods.start(lambda uids: parts.loop.call(lambda: parts.tracker.pods_changed(uids)))
        self._stack.callback(parts.pods.close)
        self._stack.callback(parts.worker.stop)
        parts.manager.watch()
        self._stack.callback(parts.manager.close)
        if parts.probes:
            self._stack.callback(parts.probes.manager.close)
            parts.probes.manager.start()

    def _beat(self) -> None:
        """Proof of life: for `/healthz`, for systemd, and for the kernel, which otherwise frees
        slots by itself.
        """
        parts = self._parts
        parts.stats.turned()
        parts.loaded.kernel.map("heartbeat").set(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        parts.continuity.takeover.tick(parts.pipeline.handle)
        if self._waiting:
            self._in_force()
        self._service.alive()
        self._helpers.refresh()
        self._trees.refresh()
