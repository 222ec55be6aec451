# SPDX-License-Identifier: Apache-2.0
"""Fakes of the kernel's maps, and a set of parts that have every metric."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from prometheus_client import Metric

from ringfence.abi import ACTIVITY, COUNTERS, DROP_KEY, ContainerValue, Drop, EventKind
from ringfence.abi import Counter as Class
from ringfence.audit.model import CHECKS, Finding, Unseen
from ringfence.bpf.attach import Skipped
from ringfence.bpf.losses import Losses
from ringfence.config import load
from ringfence.containers.model import Container, Enrichment, State
from ringfence.containers.registry import Counts
from ringfence.daemon.defence.condemned import condemned_metrics
from ringfence.daemon.queries.audit import AuditRound
from ringfence.export import families
from ringfence.export.container_alerts import RuleFacts
from ringfence.export.container_metrics import ContainerMetrics, PressureMetrics
from ringfence.export.families import KernelMetrics, PolicyState
from ringfence.export.metrics import Part
from ringfence.export.node_facts import heartbeat, node_info
from ringfence.export.probe_metrics import ProbeRow, probe_metrics
from ringfence.export.stats import Stats
from ringfence.faults import ErrorCounter, SupervisedThread
from ringfence.probes.tally import Tally
from tests.unit.probes.documents import definition

#: counters of the daemon's parts: name, label, value of the label
DAEMON_COUNTERS = (
    ("ringfence_enrichments", "result", "done"),
    ("ringfence_enrolments", "result", "enrolled"),
    ("ringfence_repairs", "what", "processes"),
    ("ringfence_tampered", "what", "pin"),
    ("ringfence_takeover_records", "outcome", "reported"),
)


class FakeMap:
    """A BPF map as a dict; `sums` as a per-CPU map answers."""

    def __init__(self, entries: dict[bytes, bytes] | None = None, max_entries: int = 100) -> None:
        self.entries = entries or {}
        self.max_entries = max_entries
        self.totals: dict[int, tuple[int, ...]] = {}

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self.entries.items()

    def take(self, key: bytes) -> bytes | None:
        return self.entries.pop(key, None)

    def sums(self, key: int) -> tuple[int, ...]:
        return self.totals.get(key, (0,) * COUNTERS)

    def sums_of(self, keys: Iterable[int]) -> dict[int, tuple[int, ...]]:
        return {key: self.sums(key) for key in keys}

    def fill(self) -> int:
        return len(self.entries)

    def all_sums(self) -> Iterator[tuple[bytes, tuple[int, ...]]]:
        for key, values in self.totals.items():
            yield key.to_bytes(4, "little"), values


class FakeRing:
    """A ring with some bytes in it."""

    def pending(self) -> int:
        return 640


class Stat(NamedTuple):
    """As ProgramStat."""

    name: str
    run_count: int
    run_time_ns: int
    misses: int = 0


class FakeKernel:
    """Maps by name, made on demand."""

    def __init__(self) -> None:
        self.maps: dict[str, FakeMap] = {}
        self.alerts, self.activity = FakeRing(), FakeRing()
        self.attached = ["exec", "exit"]
        self.skipped = [Skipped("kexec", "kexec", "refused"), Skipped("new", "new", "none such", absent=True)]

    def map(self, name: str) -> FakeMap:
        return self.maps.setdefault(name, FakeMap())

    @property
    def losses(self) -> Losses:
        return Losses(self.map("drops"))

    def program_stats(self) -> list[Stat]:
        return [Stat("on_exec", 12, 3_000)]

    def skipped_decisions(self, stats: list[Stat]) -> dict[str, int]:
        return {"file_open": 2}


class FakeSpool:
    """A queue with something in it."""

    size_max, undelivered, held, in_memory, sync_errors = 1 << 20, 3, 4096, 1, 2


class FakeSender:
    """An unavailable receiver."""

    name, spool, sent, last_sent = "webhook-0a", FakeSpool(), 5, 1.7e9

    def __init__(self) -> None:
        self.up: bool | None = False
        self.retries = Counter({"timeout": 2})


class FakeWatch:
    """An API server that was watched, and is unavailable."""

    up, used, unusable, last_heard = False, 7, 2, 1.7e9

    def __init__(self) -> None:
        self.restarts = {"gone": 1}


class FakePressure(PressureMetrics):
    """Every container waited for a second, and was held for two."""

    def __init__(self) -> None:
        super().__init__(Path("/v2"), None)

    def collect(self, containers: Iterable[Container]) -> Iterator[Metric]:
        return super().collect(replace(container, cgroup_path="/web") for container in containers)

    def _stalled(self, series: object) -> Iterator[tuple[str, str, float]]:
        yield "cpu", "some", 1.0

    def _throttled(self, series: object) -> float | None:
        return 2.0


def audited() -> AuditRound:
    """An audit that found one thing."""
    made = AuditRound(load(None, {}, {"audit.interval": ["0"]}), list)
    found = Finding(CHECKS["privileged"], "web", "")
    made.found([found, found._replace(accepted="a reason")], [Unseen("runtime-cve", "runc")])
    return made


SHOP = Container("a" * 64, 1, 1, namespace="shop", pod="web-0", name="web", enrichment=Enrichment.DONE)


class World:
    """Everything that a scrape reads; tests change it."""

    def __init__(self, limit: int = 2) -> None:
        ErrorCounter("test")  # one place and one thread that may fail: they have series from then on
        SupervisedThread("test", lambda: None)
        self.kernel = FakeKernel()
        self.kernel.map("emitted").totals[EventKind.FILE_OPEN] = (42,)
        key = DROP_KEY.pack(EventKind.FILE_OPEN, Drop.RING_FULL, 1)
        self.kernel.map("drops").entries[key] = (9).to_bytes(8, "little")
        self.live: list[Container] = []
        self.slots: dict[int, ContainerValue] = {}
        self.stats = Stats()
        facts = RuleFacts("core-pattern", "A container writes core_pattern", "critical")
        for _ in range(3):
            self.stats.count_alert(facts, "deny", "denied", ("T1611",), SHOP)
        self.canary_seen = time.monotonic() - 7
        self.stats.decode_errors["short"] = 1
        self.stats.alert_latency.observe(0.0015, "2866c188da39f1d0-1")
        self.policies = PolicyState(4, 2, {("deny", "cgroup"): 5}, (), 1.7e9, "3f2a90c1b7de")
        self.ready = True
        self.life = Counts()
        kernel: Any = self.kernel
        containers = ContainerMetrics(kernel, self.slots.get, lambda: list(self.live), FakePressure(), limit)
        self.parts: list[Part] = [self, KernelMetrics(kernel, timed=False), containers, audited()]

    def samples(self) -> Iterator[Metric]:
        """What the parts of the daemon show, each by its function."""
        yield heartbeat("node-1", 0.0)
        yield from families.agent(self.stats, "policy", ready=self.ready)
        yield node_info("node-1", "lsm", "never", "policy", self.policies.digest)
        yield from families.canary(self.canary_seen, 3)
        yield from families.records(self.stats, self.life.unattributed)
        yield from families.alerts(self.stats)
        yield from families.policies(self.policies, self.stats.reloads)
        yield from families.output((), None, 4)
        yield from families.receivers([cast(Any, FakeSender())], [("webhook-0a", "queue_full", 1)])
        yield families.enrichment_errors({"kubernetes": 3})
        yield from families.pod_watch(cast(Any, FakeWatch()), range(5))
        yield from families.capacity("lines", (1, 9))
        yield families.evicted("processes", 2)
        yield from families.own_limits((1 << 28, 0.25), 0.5, 1.5, 0)
        yield from families.memory_reserve(1 << 25, 1 << 26)
        yield families.unarmed({"no_memory": 0})
        yield from condemned_metrics(["web"], 1)
        yield families.gauge("ringfence_pinned", "a text", {}, 1)
        yield families.losses_of_predecessor({(16, 1): 3})
        yield families.counters("ringfence_container_transitions", "a text", "to", {"created": 1})
        for name, label, value in DAEMON_COUNTERS:
            yield families.counters(name, "a text", label, {value: 2})
        yield from self.probes()

    @staticmethod
    def probes() -> Iterator[Metric]:
        """Two custom probes, one of which runs."""
        rows = [ProbeRow("broken", running=False), ProbeRow("io", True, 0.8, 7, 6, {"ring_full": 2})]
        rows[1] = rows[1]._replace(tally=Tally(definition(name="io")))
        return probe_metrics(rows, {"loaded": 1, "failed": 1}, set())

    def add(self, number: int, name: str = "", opens: int = 0, tasks: int = 1) -> Container:
        """A live container in slot `number`, whose tasks opened so many files."""
        container = Container(
            f"{number:012x}" + "0" * 52, 1000 + number, number, name=name, state=State.RUNNING
        )
        self.live.append(container)
        self.slots[number] = ContainerValue(container.cgroup_id, state=3, tasks=tasks)
        self.open(number, opens)
        return container

    def open(self, number: int, opens: int) -> None:
        """Set a container's counter of opened files."""
        values = [0] * (ACTIVITY.size // 8)
        values[Class.OPEN] = opens
        self.kernel.map("counters").totals[number] = tuple(values)

    def remove(self, container: Container) -> None:
        """The container has ended, and its slot is empty."""
        self.live.remove(container)
        del self.slots[container.slot]
