# SPDX-License-Identifier: Apache-2.0
"""Fakes of the kernel's maps, and a set of sources with samples of everything."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Metric

from ringfence.abi import ACTIVITY, COUNTERS, DROP_KEY, ContainerValue, Drop, EventKind
from ringfence.abi import Counter as Class
from ringfence.audit.model import CHECKS, Finding, Unseen
from ringfence.bpf.attach import Skipped
from ringfence.bpf.losses import Losses
from ringfence.config import load
from ringfence.containers.model import Container, State
from ringfence.containers.registry import Counts
from ringfence.daemon.queries.audit import AuditRound
from ringfence.export.metrics import PolicyState, Sources
from ringfence.export.metrics_alerts import SenderLike
from ringfence.export.metrics_identity import identity_metrics
from ringfence.export.metrics_pressure import PressureMetrics
from ringfence.export.metrics_probes import ProbeRow, probe_metrics
from ringfence.export.metrics_room import continuity_metrics, limit_metrics, room_metrics
from ringfence.export.stats import Stats
from ringfence.faults import Guard, SupervisedThread
from ringfence.probes.tally import Tally
from tests.unit.probes.documents import definition

EXTRA = [
    ("ringfence_enrichments", "done", 2.0),
    ("ringfence_handshakes", "enrolled", 1.0),
    ("ringfence_repairs", "processes", 1.0),
    ("ringfence_tampered", "pin", 1.0),
    ("ringfence_takeover_records", "reported", 1.0),
]


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


class FakeLimits:
    """An agent with its own resource limits."""

    memory_limit, cpus, throttled_seconds = 1 << 28, 0.5, 1.5

    def memory_used(self) -> float:
        return 0.25


class FakeSpool:
    """A queue with something in it."""

    size_max, undelivered, held, in_memory, sync_errors = 1 << 20, 3, 4096, 1, 2


class FakeSender:
    """An unavailable receiver."""

    name, spool, sent, last_sent = "webhook-0a", FakeSpool(), 5, 1.7e9

    def __init__(self) -> None:
        self.up: bool | None = False
        self.retries = Counter({"timeout": 2})


class FakeOutbox:
    """One receiver."""

    def __init__(self) -> None:
        self.senders: list[SenderLike] = [FakeSender()]

    def lost_by_reason(self) -> Iterator[tuple[str, str, int]]:
        yield "webhook-0a", "queue_full", 1


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
    made.found([Finding(CHECKS["privileged"], "web", "")], [Unseen("runtime-cve", "runc")])
    return made


class World:
    """Everything that a scrape reads; tests change it."""

    def __init__(self, limit: int = 2) -> None:
        Guard("test")  # one place and one thread that may fail: they have series from then on
        SupervisedThread("test", lambda: None)
        self.kernel = FakeKernel()
        self.kernel.map("emitted").totals[EventKind.FILE_OPEN] = (42,)
        key = DROP_KEY.pack(EventKind.FILE_OPEN, Drop.RING_FULL, 1)
        self.kernel.map("drops").entries[key] = (9).to_bytes(8, "little")
        self.live: list[Container] = []
        self.slots: dict[int, ContainerValue] = {}
        self.stats = Stats()
        self.stats.attempts.add(("T1611",), "shop", "denied")
        self.stats.canary_seen = time.monotonic() - 7
        self.stats.alerts["core-pattern", "critical", "deny", "denied"] = 3
        self.stats.decode_errors["short"] = 1
        self.stats.alert_latency.observe(0.0015)
        self.policies = PolicyState(4, 2, {("deny", "cgroup"): 5}, (), 1_700_000_000.0)
        self.why_not_ready = ""
        self.sources = Sources(
            pressure=FakePressure(),
            stats=self.stats, kernel=self.kernel, containers=lambda: list(self.live), slots=self.slots.get,
            life=Counts(), outbox=FakeOutbox(), redacted=lambda: 4,
            more=[lambda: identity_metrics(FakeWatch(), range(5), {"kubernetes": 3}), audited().metrics,
                  lambda: room_metrics({"lines": (1, 9)}, {"processes": 2}),
                  lambda: limit_metrics(FakeLimits()), lambda: continuity_metrics(True, {(16, 1): 3})],
            policies=lambda: self.policies, ready=lambda: self.why_not_ready,
            container_limit=limit, probes=self.probes, extra=lambda: EXTRA,
        )  # fmt: skip

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
