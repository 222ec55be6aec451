# SPDX-License-Identifier: Apache-2.0
"""Creates the parts of the agent in the order of their dependencies. Nothing is started here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ringfence import log
from ringfence.bpf.kernel import Kernel
from ringfence.bpf.objects import return_free_memory
from ringfence.containers.enrich import Worker, default_sources
from ringfence.containers.registry import Registry
from ringfence.containers.slots import KernelSlots
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.attach import plan as plans
from ringfence.daemon.defence.condemned import CondemnedContainers
from ringfence.daemon.defence.peer_check import PeerCheck
from ringfence.daemon.defence.protected_objects import ProtectedObjects
from ringfence.daemon.defence.setup import Defence
from ringfence.daemon.defence.watchdog import Watchdog
from ringfence.daemon.delivery.alert_counters import make_builtin_series
from ringfence.daemon.delivery.losses import LossLog, kernel_losses, output_losses
from ringfence.daemon.delivery.outputs import Egress, Outputs, limiter_of, open_outbox
from ringfence.daemon.health import canary
from ringfence.daemon.health.backpressure import Backpressure
from ringfence.daemon.health.memory_reserve import MemoryReserve
from ringfence.daemon.health.preemption_watch import PreemptionWatch
from ringfence.daemon.health.readiness import Readiness
from ringfence.daemon.loop import Loop
from ringfence.daemon.parts import Loaded, Node, Picture
from ringfence.daemon.policies.manager import PolicyFiles, PolicyManager, load_first
from ringfence.daemon.queries.containers import ContainerQueries
from ringfence.daemon.queries.metrics import container_metrics
from ringfence.daemon.queries.policies import PolicyQuery
from ringfence.daemon.queries.status import Answers, StatusQuery
from ringfence.daemon.startup.resource_limits import lower_priority
from ringfence.daemon.succession.continuity import Continuity
from ringfence.daemon.succession.takeover import Takeover
from ringfence.daemon.tracking.adoption import Adoption, path_of
from ringfence.daemon.tracking.containers import ContainerTracker, SlotRelease
from ringfence.daemon.tracking.enroll_socket import EnrollSocket
from ringfence.daemon.tracking.enrolment import Enrolment
from ringfence.daemon.tracking.enrolment_store import EnrolmentStore
from ringfence.daemon.tracking.pod_sources import PodSources
from ringfence.daemon.tracking.resync import Resync
from ringfence.daemon.verdicts.detectors import Detectors
from ringfence.daemon.verdicts.dispatcher import Dispatcher
from ringfence.daemon.verdicts.pipeline import VerdictPipeline
from ringfence.daemon.verdicts.rules import RuleLookup
from ringfence.daemon.verdicts.tamper import TamperConfirmation
from ringfence.export.families import KernelMetrics
from ringfence.export.jsonl import LineWriter
from ringfence.export.metrics import Part
from ringfence.export.redact import Redactor
from ringfence.export.stats import Stats
from ringfence.export.stream import StreamServer
from ringfence.policy.install import Generations
from ringfence.response.builtin import BuiltinRules

if TYPE_CHECKING:
    from ringfence.daemon.probes.setup import CustomProbes

__all__ = ["Assembly"]

_SETTLE = 0.002  # seconds that alerts stay in their ring for a slow output


class Assembly:
    """The parts of the agent. What must be closed is closed by the stack. Raises Error."""

    def __init__(self, node: Node, stack: contextlib.ExitStack, kernel: Callable[[], Kernel]) -> None:
        """`kernel` waits until programs and maps are loaded."""
        self._node, self._config, self._stack = node, node.config, stack
        self.stats = Stats(node.config.node_name)
        self._log = log.get_logger("agent")
        self.readiness = Readiness(self.stats, node.config.mode, node.config.node_name)
        self._open_outputs()
        self._load(kernel)
        self._make_egress()
        self._make_tracking()
        self._make_policies()
        self._make_verdicts()
        self._make_defence()
        self.probes = self._custom_probes()

    def _open_outputs(self) -> None:
        log_lines = LineWriter(2)
        self._stack.callback(log_lines.close)
        self._stack.callback(log.configure, self._config.log_level)
        log.configure(self._config.log_level, log_lines.write)
        self.writer = LineWriter(self._config.output or 1, complain=self._complain)
        self._stack.callback(self.writer.close)
        self.outbox = open_outbox(self._config)
        self._losses = LossLog()
        self._stack.callback(self._close_outbox)

    def _close_outbox(self) -> None:
        """A queue whose disk stays full loses at its end what was only in memory."""
        self.outbox.close()
        self._losses.note(output_losses(self.writer, self.outbox), last=True)

    def note_losses(self, *, last: bool = False) -> None:
        """Log what was lost since the last line about it. Called by a timer."""
        self._losses.note(kernel_losses(self.loaded.kernel.losses), last=last)
        self._losses.note(output_losses(self.writer, self.outbox), last=last)

    def _complain(self, reason: str, destination: str) -> None:
        if reason == "not_reopened":
            text = "the output cannot be opened again; lines still go to the old file"
        else:
            text = "lines are lost; the agent goes on"
        self._log.error(text, destination=destination, reason=reason)

    def _load(self, kernel_when_loaded: Callable[[], Kernel]) -> None:
        """Policies, programs and maps; nothing is attached yet."""
        # First without the kernel: a mistake in a file must not cost more than this start.
        config, capabilities = self._config, self._node.capabilities
        self.files = PolicyFiles(config)  # before they are read
        tiers = plans.tiers_of(capabilities)
        self.first = load_first(config, tiers)
        kernel = kernel_when_loaded()
        loaded_tiers = plans.tiers_of(capabilities, [program.section for program in kernel.programs])
        if loaded_tiers != tiers:
            self.first = load_first(config, loaded_tiers)
        if config.program_stats:
            kernel.keep_statistics(on=True)
        self.planner = plans.Planner(self._node, loaded_tiers, kernel.guarding)
        self._protected = ProtectedObjects(config, kernel)
        slots = KernelSlots(*(kernel.map(name) for name in ("slots", "free_slots", "containers", "counters")))
        self._stack.callback(slots.close)
        self.loaded = Loaded(kernel, slots, Generations(kernel.map))

    def _make_egress(self) -> None:
        """The loop, and the ways out of the agent."""
        config, kernel = self._config, self.loaded.kernel
        self.loop = Loop(kernel.alerts, kernel.activity, lambda: self.writer.settle(_SETTLE))
        self._stack.callback(self.loop.close)
        stream = StreamServer(config.socket)
        self._stack.callback(stream.close)
        redactor = Redactor(config.redact_patterns, defaults=config.redact_defaults)
        self.egress = Egress(redactor, self.writer, stream, self.outbox)

    def _make_tracking(self) -> None:
        """Containers and processes, and how they are found."""
        node, config, loaded, tree = self._node, self._config, self.loaded, ProcessTree()
        self._store = EnrolmentStore(config.enrolments_dir)
        self._detectors = Detectors(loaded.slots, config.detectors_off)
        forget = (self._detectors.forget, lambda container: self._store.forget(container.cgroup_id))
        release = SlotRelease(loaded.generations, loaded.kernel.losses, tree, forget)
        registry = Registry(loaded.slots, on_free=release.freed)
        self.picture = Picture(config.node_name, registry, tree, self.stats)
        self.pods = PodSources(config)
        self.worker = Worker(
            [*self.pods.sources(), *default_sources(config.runtime_roots)],
            exists=lambda path: node.hierarchy.directory(path).is_dir(),
            path_of=partial(path_of, node.hierarchy),
        )
        self.tracker = ContainerTracker(loaded, self.picture, self.worker)
        self.adoption = Adoption(node, loaded, self.tracker)
        self.resync = Resync(loaded, self.picture, self.adoption, self.loop.call, adopt=config.adopt)
        lower_priority()
        halvings, size = loaded.kernel.map("halvings"), config.activity_ring
        self.backpressure = Backpressure(
            loaded.kernel.activity, size, halvings, node.limits, return_free_memory
        )
        self.reserve = MemoryReserve(node.limits)

    def _make_policies(self) -> None:
        """The policies in force, what stays after this agent, and enrolment by request."""
        node, config, loaded = self._node, self._config, self.loaded
        takeover = Takeover(
            loaded.generations,
            self.picture.registry,
            loaded.kernel.mark_complete,
            partial(path_of, node.hierarchy),
        )
        self.continuity = Continuity(config, loaded, self.picture.registry, takeover)
        self.manager = PolicyManager(
            self.files,
            loaded,
            self.planner,
            self.stats,
            self.loop.call,
            self.tracker.facts,
            self.continuity.announce,
        )
        self._enrolment = Enrolment(node.hierarchy, loaded, self.tracker, self._store, self.adoption.never)

    def _make_verdicts(self) -> None:
        """The way of a record, from the ring to the outputs."""
        config, loaded, picture = self._config, self.loaded, self.picture
        builtin = BuiltinRules(config.defence, loaded.kernel.guarding)
        if loaded.kernel.guarding:
            make_builtin_series(self.stats, builtin.all)
        self.watchdog = Watchdog(
            loaded,
            picture.registry,
            self.continuity.files,
            lambda: self.manager.reattach(),
            lambda: (self.egress.stream, self.enroll_socket),
            reports="agent-tampered" not in config.detectors_off,
        )
        self.outputs = Outputs(
            config, self.egress, picture.registry.find, digest=lambda: self.manager.state.digest
        )
        self.pipeline = VerdictPipeline(
            picture,
            RuleLookup(builtin, loaded.generations),
            TamperConfirmation(
                self.watchdog.look,
                condemned=lambda: self.loop.later(0, self.defence.tick),
                enabled=config.defence == "deny",
            ),
            self._detectors,
            limiter_of(config),
            self.outputs,
            self.loop.later,
        )
        self.canary = canary.Canary(self._node.hierarchy) if canary.enabled(config) else None
        self.dispatcher = Dispatcher(
            picture,
            self.tracker,
            self.pipeline,
            self.continuity,
            self.egress.stream,
            self.canary,
            self.loop.call,
        )

    def _make_defence(self) -> None:
        """The defence of the agent itself, and what depends on it: the sockets."""
        config, kernel = self._config, self.loaded.kernel
        self.condemned = CondemnedContainers(self._node.hierarchy, self.loaded, self.picture.registry)
        self.defence = Defence(self._protected, self.watchdog, self.condemned, self.pipeline)
        self.preemption = PreemptionWatch(
            self._node.capabilities,
            refused_with=self.manager.refused_with,
            report=self.pipeline.report,
            stop=self.loop.stop,
            reports="preemption-changed" not in config.detectors_off,
        )
        self.peer_check = PeerCheck(config, kernel, self.dispatcher.report)
        self.enroll_socket = EnrollSocket(
            config.enroll_socket,
            self.loop,
            self._enrolment,
            self.manager,
            self._store,
            self.peer_check.refuses,
        )

    def _custom_probes(self) -> CustomProbes | None:
        directory = self._config.probes_directory
        if not directory:
            return None
        from ringfence.daemon.probes.setup import CustomProbes

        return CustomProbes(
            self._node,
            directory,
            self.loaded,
            self.picture,
            self.outputs,
            self.loop,
            self.manager.reload,
        )

    def answers(self) -> Answers:
        """The answers to requests on the local socket."""
        states = self.probes.manager.states if self.probes else {}
        checks = (self.readiness.ready, lambda: self.continuity.problem, self.preemption.problem)
        status = StatusQuery(self._node, self.loaded, self.picture, self.manager, self.egress, checks, states)
        containers = ContainerQueries(self.loaded, self.picture, self.egress.redactor, self.loop)
        return Answers(
            {
                "status": status.status,
                "top": containers.top,
                "tree": containers.trees,
                "learned": containers.learned,
                "policies": PolicyQuery(self.manager, self._config.mode).rules,
            }
        )

    def metrics(self) -> list[Part]:
        """The parts that have metrics."""
        config, loaded = self._config, self.loaded
        parts: list[Part] = [
            self.readiness, self.dispatcher, self.pipeline, self.manager, self.egress, self.outputs,
            self.tracker, self.adoption, self.pods, self.enroll_socket, self.resync, self.continuity,
            self.watchdog, self.condemned, self.backpressure, self.reserve, self.loop,
            KernelMetrics(loaded.kernel, timed=config.program_stats),
            container_metrics(loaded, self.picture.registry, config.metrics_containers),
        ]  # fmt: skip
        return [*parts, self.probes] if self.probes else parts
