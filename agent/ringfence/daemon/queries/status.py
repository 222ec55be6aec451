# SPDX-License-Identifier: Apache-2.0
"""The answer to `ringfence status`, and the table of all requests of the local socket."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ringfence import __version__
from ringfence.abi import Drop, EventKind
from ringfence.daemon.delivery.outputs import Egress
from ringfence.daemon.parts import Loaded, Node, Picture
from ringfence.daemon.policies.manager import PolicyManager
from ringfence.errors import Error
from ringfence.export.escape import escape
from ringfence.faults import handler_errors, thread_failures
from ringfence.policy import NodeTiers

if TYPE_CHECKING:
    from ringfence.daemon.probes.manager import ProbeState

__all__ = ["Answers", "StatusQuery", "rss_bytes"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
Request = Mapping[str, Any]


def rss_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * _PAGE


class Answers:
    """Answers requests of the local socket, by the name of the operation."""

    def __init__(self, operations: Mapping[str, Callable[[Request], Any]]) -> None:
        self._operations = dict(operations)

    def answer(self, op: str, request: Request) -> Any:
        """The result of one request. Raises Error if the operation does not exist."""
        operation = self._operations.get(op)
        if operation is None:
            raise Error(f"no such request: {escape(op, 64)}")
        return operation(request)


class StatusQuery:
    """Called in the thread of the local socket."""

    def __init__(
        self,
        node: Node,
        loaded: Loaded,
        picture: Picture,
        manager: PolicyManager,
        egress: Egress,
        checks: Sequence[Callable[[], str]],
        probes: Mapping[str, ProbeState],
    ) -> None:
        """Each of `checks` returns a problem, or nothing. `probes`: the custom probes by name."""
        self._config, self._kernel, self._slots = node.config, loaded.kernel, loaded.slots
        self._capabilities = node.capabilities
        self._hierarchy = f"{node.hierarchy.kind} {node.hierarchy.controller}".strip()
        self._registry, self._stats, self._manager = picture.registry, picture.stats, manager
        self._writer, self._stream = egress.writer, egress.stream
        self._checks, self._probe_states = checks, probes
        self._started = time.monotonic()

    def status(self, _request: Request) -> dict[str, Any]:
        """The answer to `ringfence status`."""
        stats, state = self._stats, self._manager.state
        usage = resource.getrusage(resource.RUSAGE_SELF)
        mechanisms: dict[str, int] = {}
        for (action, mechanism), count in state.rules.items():
            name = _effect(action, mechanism)
            mechanisms[name] = mechanisms.get(name, 0) + count
        return {
            "version": __version__,
            "time": time.time(),
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._started, 3),
            "startup_seconds": stats.startup_seconds,
            "attach_seconds": stats.attach_seconds,
            "problems": self._problems(),
            "mode": self._config.mode,
            "policies": {
                "generation": state.generation,
                "digest": state.digest,
                "policies": state.policies,
                "rules": sum(state.rules.values()),
                "mechanisms": mechanisms,
                "loaded_at": state.loaded_at,
                "problems": list(state.refused),
            },
            "containers": self._containers(),
            "alerts": _summed(stats.alerts, 3),
            "events": {kind.label: n for kind in EventKind if kind and (n := stats.received[kind])},
            "lost": self._lost(),
            "output": {"name": self._writer.name, "written": self._writer.written},
            "node": self._node(),
            "probes": self._probes(),
            "process": {"cpu_seconds": usage.ru_utime + usage.ru_stime, "rss_bytes": rss_bytes()},
        }

    def _node(self) -> dict[str, Any]:
        node = self._capabilities
        return {
            "name": escape(self._config.node_name, 253),
            "cluster": escape(self._config.alerts_labels.get("cluster", ""), 253),
            "kernel": platform.release(),
            "hierarchy": self._hierarchy,
            "blind": self._blind(),
            "hooks": len(node.lsm_hooks),
            "hook_mechanism": node.hook_mechanism.label if node.lsm_hooks else "",
            "hook_lack": node.hook_lack,
            "preemption": str(node.preemption),
            "skips": NodeTiers.of(node).skips,
        }

    def _problems(self) -> list[str]:
        problems = [problem for check in self._checks if (problem := check())]
        if self._manager.state.refused:
            problems.append("the policies on disk were refused; those before are in force")
        if bugs := handler_errors.total() + thread_failures.total():
            problems.append(f"{bugs} bugs of the agent were survived: see its log")
        if self._writer.dropped.get("closed") or self._writer.dropped.get("disk_full"):
            problems.append(f"lines to {self._writer.name} were lost")
        refused = [name for name, state in sorted(self._probe_states.items()) if state.problems]
        if refused:
            problems.append(f"custom probes were refused: {', '.join(refused)}")
        return problems

    def _probes(self) -> list[dict[str, Any]]:
        return [state.status() for _, state in sorted(self._probe_states.items())]

    def _containers(self) -> dict[str, Any]:
        live = [self._slots.read(container.slot) for container in self._registry.workloads()]
        return {
            "live": len(live),
            "armed_tasks": sum(max(value.tasks, 0) for value in live if value),
            "created": self._registry.counts.created,
            "unattributed": dict(self._registry.counts.unattributed),
        }

    def _lost(self) -> dict[str, int]:
        lost: dict[str, int] = {}
        for (_, reason), count in self._kernel.losses.totals().items():
            name = next((drop.label for drop in Drop if drop == reason), "unknown")
            lost[name] = lost.get(name, 0) + count
        lost |= {f"decode: {reason}": n for reason, n in self._stats.decode_errors.items()}
        lost |= {f"output: {reason}": n for reason, n in self._writer.dropped.items()}
        lost |= {"stream": self._stream.lost + self._stream.missed}
        return {name: count for name, count in lost.items() if count}

    def _blind(self) -> list[str]:
        """Rules without effect on this node, and programs that could not be attached."""
        compiled = self._manager.compiled
        rules = [
            f"rule {one.rule.id}" + ("" if one.whole else f" on {_labels(one.events)}") + f": {one.why}"
            for one in (compiled.blind if compiled else ())
        ]
        return rules + [f"{skipped.target}: {skipped.reason}" for skipped in self._kernel.skipped]


def _labels(events: Sequence[EventKind]) -> str:
    return ", ".join(kind.label for kind in events)


def _effect(action: str, mechanism: str) -> str:
    """Returns an effective action in the words of `ringfence probe`."""
    if action == "none":
        return "blind"
    return action if mechanism in ("observe", action) else f"{action} by {mechanism}"


def _summed(counts: Mapping[tuple[str, str, str, str], int], position: int) -> dict[str, int]:
    """The counts, summed by one of their labels."""
    summed: dict[str, int] = {}
    for labels, count in list(counts.items()):
        if count:  # rules have series from the start
            summed[labels[position]] = summed.get(labels[position], 0) + count
    return summed
