# SPDX-License-Identifier: Apache-2.0
"""Answers of the local socket: status, top, tree, policies. Runs in that server's thread.

The loop's own data is copied in the loop, in one short call; it is formatted here.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ringfence import __version__
from ringfence.abi import LEARNED_KEY, Drop, EventKind
from ringfence.bpf.kernel import Kernel
from ringfence.config import Config
from ringfence.containers.model import Container
from ringfence.containers.registry import Registry
from ringfence.containers.slots import KernelSlots
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.loop import Loop
from ringfence.daemon.policies.manager import PolicyManager
from ringfence.errors import Error
from ringfence.export.escape import arguments, escape
from ringfence.export.jsonl import LineWriter
from ringfence.export.metrics_containers import ACTIVITY_CLASSES
from ringfence.export.stats import Stats
from ringfence.export.stream import StreamServer
from ringfence.faults import handler_errors, thread_failures
from ringfence.policy import CompiledRule, Policy
from ringfence.policy.probe_rules import ProbeRule

__all__ = ["StatusQueries", "rss_bytes"]

_TREE_MAX = 512  # processes of one container that are shown
_PAGE = os.sysconf("SC_PAGE_SIZE")
Request = Mapping[str, Any]


def rss_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * _PAGE


class StatusQueries:
    """`answer` is what the server calls."""

    def __init__(
        self,
        config: Config,
        kernel: Kernel,
        loop: Loop,
        registry: Registry,
        slots: KernelSlots,
        tree: ProcessTree,
        manager: PolicyManager,
        stats: Stats,
        writer: LineWriter,
        ready: Callable[[], str],
        hierarchy: str,
    ) -> None:
        self._config, self._kernel, self._loop = config, kernel, loop
        self._registry, self._slots, self._tree, self._manager = registry, slots, tree, manager
        self._stats, self._writer, self._ready, self._hierarchy = stats, writer, ready, hierarchy
        self._started = time.monotonic()
        self.stream: StreamServer | None = None
        self.trouble: Callable[[], str] = str  # of what is to outlive the agent
        self.redact: Callable[[Sequence[str]], list[str]] = list  # the words of a command line
        self.probes: Mapping[str, Any] = {}  # states of custom probes, where there are some
        self._operations: dict[str, Callable[[Request], Any]] = {
            "status": self._status,
            "top": self._top,
            "tree": self._trees,
            "policies": self._policies,
            "learned": self._learned,
        }

    def answer(self, op: str, request: Request) -> Any:
        """The result of one request."""
        operation = self._operations.get(op)
        if operation is None:
            raise Error(f"no such request: {escape(op, 64)}")
        return operation(request)

    def _status(self, _request: Request) -> dict[str, Any]:
        stats, state = self._stats, self._manager.state
        usage = resource.getrusage(resource.RUSAGE_SELF)
        mechanisms: dict[str, int] = {}
        for (action, mechanism), count in state.rules.items():
            name = action if mechanism in ("observe", action) else f"{action} by {mechanism}"
            mechanisms[name] = mechanisms.get(name, 0) + count
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._started, 3),
            "startup_seconds": stats.startup_seconds,
            "attach_seconds": stats.attach_seconds,
            "problems": self._problems(),
            "mode": self._config.mode,
            "policies": {
                "generation": state.generation,
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
            "node": {"kernel": platform.release(), "hierarchy": self._hierarchy, "blind": self._blind()},
            "probes": self._probes(),
            "process": {"cpu_seconds": usage.ru_utime + usage.ru_stime, "rss_bytes": rss_bytes()},
        }

    def _problems(self) -> list[str]:
        problems = [self._ready()] if self._ready() else []
        if trouble := self.trouble():
            problems.append(trouble)
        if self._manager.state.refused:
            problems.append("the policies on disk were refused; those before are in force")
        if bugs := handler_errors.total() + thread_failures.total():
            problems.append(f"{bugs} bugs of the agent were survived: see its log")
        if self._writer.dropped.get("closed") or self._writer.dropped.get("disk_full"):
            problems.append(f"lines to {self._writer.name} were lost")
        refused = [name for name, state in sorted(self.probes.items()) if state.problems]
        if refused:
            problems.append(f"custom probes were refused: {', '.join(refused)}")
        return problems

    def _probes(self) -> list[dict[str, Any]]:
        return [state.status() for _, state in sorted(self.probes.items())]

    def _containers(self) -> dict[str, Any]:
        live = [self._slots.read(container.slot) for container in self._registry]
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
        if self.stream:
            lost |= {"stream": self.stream.lost + self.stream.missed}
        return {name: count for name, count in lost.items() if count}

    def _blind(self) -> list[str]:
        return [f"{skipped.target}: {skipped.reason}" for skipped in self._kernel.skipped]

    def _top(self, _request: Request) -> dict[str, Any]:
        rows = []
        for container in self._registry:
            value = self._slots.read(container.slot)
            if value is None or value.cgroup != container.cgroup_id:
                continue
            sums = self._kernel.map("counters").sums(container.slot)
            counts = {name: sums[index] for index, name in ACTIVITY_CLASSES.items()}
            rows.append({**_about(container), "tasks": max(value.tasks, 0), "counts": counts})
        return {"time": time.monotonic(), "containers": rows}

    def _learned(self, _request: Request) -> list[list[Any]]:
        """What `syscalls.learn` counted: [kind, number, 32-bit, program, times] each. Slots are not told
        apart: an agent that learns has one container."""
        rows = []
        for raw, value in self._kernel.map("learned").items():
            key = LEARNED_KEY.unpack_from(raw)
            comm = escape(key[4].partition(b"\0")[0], 64)
            rows.append([key[2], key[1], key[3], comm, int.from_bytes(value, sys.byteorder)])
        return rows

    def _trees(self, request: Request) -> list[dict[str, Any]]:
        words = [word for word in request.get("containers") or [] if isinstance(word, str)]
        wanted = [c for c in self._registry if not words or any(_is(c, word) for word in words)]
        copies = self._loop.ask(lambda: {c.cgroup_id: self._processes(c.cgroup_id) for c in wanted})
        return [{**_about(container), **self._shown(copies[container.cgroup_id])} for container in wanted]

    def _shown(self, processes: list[tuple[Any, ...]]) -> dict[str, Any]:
        shown = [
            {
                "pid": pid,
                "ppid": ppid,
                "uid": uid,
                "comm": escape(comm.partition(b"\0")[0], 64),
                "exe": escape(exe),
                "args": self.redact(arguments(args.rstrip(b"\0"))) if args else [],
            }
            for pid, ppid, uid, comm, exe, args in processes[:_TREE_MAX]
        ]
        return {"processes": shown, "more": max(0, len(processes) - _TREE_MAX)}

    def _processes(self, cgroup: int) -> list[tuple[Any, ...]]:
        """Call in the loop, which changes the tree's objects."""
        return [(p.pid, p.ppid, p.uid, p.comm, p.exe, p.args) for p in self._tree.of_container(cgroup)]

    def _policies(self, _request: Request) -> list[dict[str, Any]]:
        compiled = self._manager.compiled
        if compiled is None:
            return []
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        for rule in compiled.rules.values():  # one rule may have several numbers
            row = rows.setdefault((rule.rule_id, rule.action, rule.mechanism), _rule(rule))
            row["events"] = sorted({*row["events"], *(kind.label for kind in rule.events)})
        probe_rules = ((policy, rule) for policy in compiled.policies.policies for rule in policy.probe_rules)
        return [
            *rows.values(),
            *(_probe_rule(policy, rule, self._config.mode) for policy, rule in probe_rules),
        ]


def _rule(rule: CompiledRule) -> dict[str, Any]:
    return {
        "rule": rule.rule_id,
        "title": escape(rule.title),
        "severity": rule.severity,
        "policy": rule.policy,
        "events": [],
        "attack": list(rule.attack),
        "mode": rule.mode,
        "asked": rule.asked_action.label,
        "action": rule.action.label,
        "enforced": rule.enforced.action.label,
        "why": rule.enforced.why,
        "mechanism": rule.mechanism.label,
        "file": escape(rule.file),
        "line": rule.line,
    }


def _probe_rule(policy: Policy, rule: ProbeRule, mode: str) -> dict[str, Any]:
    mode = policy.mode if mode == "policy" else mode
    return {
        "rule": rule.id,
        "title": escape(rule.title),
        "severity": rule.severity,
        "policy": policy.name,
        "events": [rule.label],
        "attack": list(rule.attack),
        "mode": mode,
        "asked": rule.action.label,
        "action": rule.action.label if mode == "enforce" else "alert",
        "enforced": rule.action.label,
        "why": "a custom probe: user space acts, after the event",
        "mechanism": "observe",
        "file": escape(rule.place.file),
        "line": rule.place.line,
    }


def _summed(counts: Mapping[tuple[str, str, str, str], int], position: int) -> dict[str, int]:
    """Counts by one of their labels."""
    summed: dict[str, int] = {}
    for labels, count in list(counts.items()):
        if count:  # rules have their series from the start
            summed[labels[position]] = summed.get(labels[position], 0) + count
    return summed


def _about(container: Container) -> dict[str, Any]:
    facts = ("id", "name", "image", "runtime", "namespace", "pod")
    known = {name: escape(str(getattr(container, name) or ""), 256) for name in facts}
    return {**known, "cgroup": container.cgroup_id, "state": str(container.state)}


def _is(container: Container, word: str) -> bool:
    names = (container.id, container.name, container.pod)
    return word in names or (len(word) >= 4 and container.id.startswith(word))
