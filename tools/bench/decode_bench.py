# SPDX-License-Identifier: Apache-2.0
"""Records decoded and dispatched by one core, from a real ring that is filled faster than it can be read."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from ringfence.abi import EVENT_MAX, EventKind
from ringfence.bpf.attach import Attached, AttachPlan, attach_all, detach, places
from ringfence.bpf.objects import Loaded, ObjectFile
from ringfence.bpf.ring import Ring
from ringfence.containers.model import Container
from ringfence.containers.registry import Registry
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.loop import BATCH
from ringfence.daemon.parts import Picture
from ringfence.daemon.verdicts.dispatcher import Dispatcher
from ringfence.export.stats import Stats
from ringfence.wire import decode, encode, make
from tests.unit.containers.fakes import FakeSlots
from tools.bench.record import Bar, Measurement, Row, row

LEAST_PER_SECOND = 300_000
CGROUP, SLOT = 4711, 0
SOURCE = Path(__file__).with_name("decode_burst.bpf.c")
MIX = (
    EventKind.PROCESS_FORK,
    EventKind.PROCESS_EXEC,
    EventKind.FILE_OPEN,
    EventKind.FILE_OPEN,
    EventKind.FILE_OPEN,
    EventKind.NET_CONNECT,
    EventKind.SYS_MOUNT,
    EventKind.PROCESS_EXIT,
)
TRIED, SENT, NO_ROOM = range(3)


class _NoClient:
    """A stream without clients."""

    wanted = bytearray(EVENT_MAX)

    def offer(self, *_: object) -> None:
        raise AssertionError("nobody asked")


class Run(NamedTuple):
    """What one run of the reader found. Rates are records a second, times are seconds."""

    per_cpu: float  # of the time spent on reads that gave something
    per_wall: float  # of all time, also while others had the CPUs
    busy: float
    idle_reads: float  # share of the reads that found the ring empty: the flood was held up
    received: int
    decoded: int
    tried: int
    sent: int
    no_room: int
    in_order: bool

    @property
    def exact(self) -> bool:
        """Emitted = received + dropped, and every record was decoded."""
        return self.received == self.sent == self.decoded and self.tried == self.sent + self.no_room


def template(kind: EventKind) -> bytes:
    """A record such as containers send all the time."""
    known: dict[EventKind, dict[str, Any]] = {
        EventKind.PROCESS_EXEC: {"path": b"/usr/bin/python3.11", "args": b"python3\0-m\0http.server\0"},
        EventKind.FILE_OPEN: {"path": b"/usr/lib/python3.11/encodings/utf_8.py", "fd": 3, "mode": 0o100644},
        EventKind.NET_CONNECT: {"family": 2, "port": 443, "address": bytes([10, 0, 0, 1])},
        EventKind.SYS_MOUNT: {"nr": 165, "text": b"proc"},
    }
    return encode(make(kind, container=CGROUP, slot=SLOT, comm=b"python3", start_ns=1, **known.get(kind, {})))


def dispatcher() -> tuple[Dispatcher, Stats]:
    """The agent's own, with one container and no client."""
    stats = Stats()
    slots = FakeSlots()
    slots.enroll(CGROUP)
    registry = Registry(slots)
    registry.add(Container.unnamed(CGROUP, SLOT))
    picture, nobody = Picture("bench", registry, ProcessTree(), stats), cast(Any, None)
    pipeline = cast(Any, SimpleNamespace(render=None))
    return Dispatcher(picture, nobody, pipeline, nobody, cast(Any, _NoClient()), None, nobody), stats


class Flood:
    """A process on its own CPU that keeps a ring full until `stop`."""

    def __init__(self, cpu: int) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            os.sched_setaffinity(0, {cpu})
            while True:
                os.getppid()

    def stop(self) -> None:
        """After this no record is added. Twice is once."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


def load(directory: Path, target: int) -> Loaded:
    """The filler, for that process, with a record of each kind."""
    built = directory / "burst.bpf.o"
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", "-c", SOURCE, "-o", built], check=True)
    with ObjectFile(built) as file:
        file.write_constant("target", target.to_bytes(4, "little"))
        file.write_constant("burst", (64).to_bytes(4, "little"))
        done = file.load()
    for number, kind in enumerate(MIX):
        done.maps["templates"].set(number, template(kind).ljust(640, b"\0"))
    return done


@contextmanager
def flooded() -> Iterator[tuple[Loaded, Flood]]:
    """A ring under a flood from the first CPU, while this thread is on the last one."""
    cpus = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        flood = Flood(cpus[0])
        stack.callback(flood.stop)
        done = load(Path(directory), flood.pid)
        stack.callback(done.close)
        stack.callback(os.sched_setaffinity, 0, cpus)
        os.sched_setaffinity(0, {cpus[-1]})
        plan = AttachPlan(entry=frozenset({"getppid"}))
        for link in attach_all(places(done.programs.values(), plan), ""):
            assert isinstance(link, Attached), link
            stack.callback(detach, [link.fd])
        yield done, flood


class Reader:
    """The agent's way of a batch, and what it took. An empty ring is not work, and is not timed as work."""

    def __init__(self, ring: Ring, *, look: bool) -> None:
        self._ring, self._look = ring, look
        self.target, self.stats = dispatcher()
        self.received = self.reads = self.empty = 0
        self.busy, self.last, self.in_order = 0.0, -1, True

    def step(self) -> int:
        """One batch; says how many records it had."""
        begin = time.thread_time()
        records = self._ring.read(BATCH)
        self.target.on_activity(records)
        self.reads += 1
        if records:
            self.busy += time.thread_time() - begin
        else:
            self.empty += 1
        self.received += len(records)
        for record in records if self._look else ():
            number = int.from_bytes(record[16:24], "little")
            self.in_order, self.last = self.in_order and number > self.last, number
        return len(records)


def run(seconds: float, *, look: bool = False) -> Run:
    """Read, decode and dispatch until that much CPU time went into it; then stop the flood, drain and count.

    `look`: check the number of each record, too. Gives up after 20 times as long; what was done counts.
    """
    with flooded() as (done, flood), Ring(done.maps["ring"].fd, done.maps["ring"].max_entries) as ring:
        reader = Reader(ring, look=look)
        begin = time.monotonic()
        while reader.busy < seconds and time.monotonic() - begin < 20 * seconds:
            reader.step()
        wall, busy, timed = time.monotonic() - begin, reader.busy, reader.received
        idle = reader.empty / reader.reads
        flood.stop()
        while reader.step():
            pass
        tried, sent, no_room = (done.maps["counts"].sum(which) for which in (TRIED, SENT, NO_ROOM))
    decoded = sum(reader.stats.received)
    rates = (timed / busy if busy else 0.0, timed / wall)
    return Run(*rates, busy, idle, reader.received, decoded, tried, sent, no_room, reader.in_order)


def per_second(step: Callable[[bytes], object], seconds: float) -> float:
    """How often a step is done on the mix of records, in a second of CPU time."""
    records = [template(kind) for kind in MIX] * 512
    done, begin = 0, time.thread_time()
    while (took := time.thread_time() - begin) < seconds:
        for record in records:
            step(record)
        done += len(records)
    return done / took


def measure(*, quick: bool) -> Measurement:
    """The rate under a flood, and the sums of it."""
    seconds, times = (1.0, 2) if quick else (10.0, 3)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as the daemon does
    try:
        runs = [run(seconds) for _ in range(times)]
        checked = run(seconds / 2, look=True)
        alone = per_second(decode, seconds / 4)
    finally:
        gc.unfreeze()
        gc.set_threshold(700, 10, 10)
    exact = sum(one.exact for one in runs) + (checked.exact and checked.in_order)
    return Measurement(
        "decode",
        "a ring of 4 MiB flooded by one CPU (1/8 fork, exec, exit, connect, system call each, 3/8 open); "
        f"another reads it in batches of {BATCH} through the agent's dispatcher; empty reads are not timed",
        _rows(runs, alone),
        [
            Bar(
                "records a second of CPU time on one core, slowest run",
                min(one.per_cpu for one in runs),
                LEAST_PER_SECOND,
                "/s",
                least=True,
            ),
            Bar("runs where emitted = received + dropped", float(exact), len(runs) + 1, "", least=True),
        ],
        _notes(runs, seconds),
    )


def _rows(runs: list[Run], alone: float) -> list[Row]:
    return [
        row("read, decode, dispatch: records / CPU second", [one.per_cpu for one in runs], "/s", best=False),
        row("received by the wall clock", [one.per_wall for one in runs], "/s", best=False),
        Row("decode alone", alone, "/s", alone, alone, []),
        row("CPU time of a run", [one.busy for one in runs], "s", best=False),
        row("reads of an empty ring", [100 * one.idle_reads for one in runs], "%", best=False),
        row("sent and received", [float(one.received) for one in runs], "", best=False),
        row("refused, ring full (counted)", [float(one.no_room) for one in runs], "", best=False),
    ]


def _notes(runs: list[Run], seconds: float) -> list[str]:
    notes = [f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs at the end, 2 of it from here"]
    if any(one.idle_reads > 0.1 for one in runs):
        notes.append("the ring ran empty: other processes delayed the flood, so the load was not sustained")
    if any(one.busy < seconds for one in runs):
        notes.append(f"a run was ended before it had {seconds:.0f} s of CPU time")
    return notes
