# SPDX-License-Identifier: Apache-2.0
"""Queries the runtimes in a thread, never in the path of an event.

A request without a result is repeated a few times with increasing delays, as a runtime writes its state after
it created the cgroup. Everything is bounded: the queue, the answers, the time and size of each query.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ringfence.containers.enrich.proc import posture_of_task
from ringfence.containers.enrich.request import Request, Source
from ringfence.containers.model import Enrichment, Facts
from ringfence.containers.patterns import identify
from ringfence.containers.posture import merge
from ringfence.faults import ErrorCounter, SupervisedThread

__all__ = ["Answer", "Worker", "WorkerCounts", "enrich"]

QUEUE_MAX = 4096
# The delays before repetitions, in seconds; after the last one, the container is unknown.
RETRY_S = (0.05, 0.2, 1.0, 3.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one request."""

    cgroup_id: int
    facts: Facts


@dataclass(slots=True)
class WorkerCounts:
    """Counters for the metrics. `errors` by source."""

    asked: int = 0
    answered: int = 0
    dropped: int = 0
    errors: dict[str, int] = field(default_factory=dict)


def enrich(
    request: Request,
    sources: Sequence[Source],
    *,
    exists: Callable[[str], bool],
    proc: Path = Path("/proc"),
    on_error: Callable[[str, str], None] | None = None,
) -> Facts:
    """Returns the facts of the sources and /proc about one container; the first source of a fact is used.

    `exists` returns True if its cgroup still exists. Never raises: errors are in the result, and passed to
    `on_error` (source, message).
    """
    merged, failed = Facts(Enrichment.NONE), False
    for source in sources:
        try:
            found = source.find(request)
        except Exception as error:  # a source reads foreign data, which must not end the thread
            failed = True
            if on_error:
                on_error(source.name, f"{type(error).__name__}: {error}"[:500])
            continue
        if found is not None:
            merged = _merged(merged, found)
    pid, start_ns = (request.pid, request.start_ns) if request.pid else (merged.pid, 0)
    posture = posture_of_task(pid, start_ns, proc) if pid else None
    merged = replace(merged, posture=merge(posture, merged.posture))
    if merged.enrichment is Enrichment.NONE:
        if request.cgroup_path and not exists(request.cgroup_path):
            return replace(merged, enrichment=Enrichment.GONE)
        if failed:
            return replace(merged, enrichment=Enrichment.FAILED)
    return merged


def _merged(first: Facts, second: Facts) -> Facts:
    """Merges the facts of two sources: the second one supplies what the first one lacks."""
    missing = {name: getattr(second, name) for name in _FIELDS if not getattr(first, name)}
    labels = {**second.labels, **first.labels}
    posture = merge(first.posture, second.posture)
    cluster = {**second.cluster_labels, **first.cluster_labels}
    return replace(
        first,
        enrichment=Enrichment.DONE,
        **missing,
        labels=labels,
        cluster_labels=cluster,
        posture=posture,
    )


_FIELDS = (
    "source",
    "runtime",
    "name",
    "image",
    "image_id",
    "image_digest",
    "namespace",
    "pod",
    "pod_uid",
    "owner",
    "pid",
    "cgroup_path",
    "suspicions",
)


class Worker:
    """The thread, its queue and its answers. `fileno` is readable when there are answers."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        exists: Callable[[str], bool],
        path_of: Callable[[int], str] = lambda cgroup_id: "",
        proc: Path = Path("/proc"),
        queue_max: int = QUEUE_MAX,
        retries: Sequence[float] = RETRY_S,
    ) -> None:
        """`exists`: True if a cgroup path exists. `path_of`: the path of a cgroup by id, empty if gone."""
        self._sources, self._exists, self._path_of, self._proc = tuple(sources), exists, path_of, proc
        self._queue_max, self._retries = queue_max, tuple(retries)
        self._queue: list[tuple[float, int, int, Request]] = []  # due, order, attempt
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._answers: deque[Answer] = deque()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._thread = SupervisedThread("enrich", self._run)
        self._bug = ErrorCounter("enrich").failed
        self.counts = WorkerCounts()

    def start(self) -> None:
        """Starts the thread; before that, requests are only queued."""
        self._thread.start()

    def fileno(self) -> int:
        """For epoll."""
        return self._event

    @property
    def capacity(self) -> tuple[int, int]:
        """The number of queued requests, and its maximum."""
        return len(self._queue), self._queue_max

    def submit(self, request: Request) -> bool:
        """Queues a request; False: the queue is full, and the request was dropped and counted."""
        with self._wake:
            if len(self._queue) >= self._queue_max:
                self.counts.dropped += 1
                return False
            self.counts.asked += 1
            heapq.heappush(self._queue, (time.monotonic(), next(self._order), 0, request))
            self._wake.notify()
        return True

    def answers(self) -> list[Answer]:
        """Returns the results since the last call."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            pass
        found = []
        while self._answers:
            found.append(self._answers.popleft())
        return found

    def stop(self, timeout: float = 2.0) -> None:
        """Ends the thread; queued requests get no answer. A thread in a hanging source is abandoned."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.stop()
        self._thread.join(timeout)
        if not self._thread.alive:
            os.close(self._event)

    def _run(self) -> None:
        while (item := self._next()) is not None:
            attempt, request = item
            try:
                facts = self._ask(request)
            except Exception as error:  # the container must not stay pending forever
                self._bug(error)
                facts = Facts(Enrichment.FAILED)
            if facts.enrichment in (Enrichment.NONE, Enrichment.FAILED) and attempt < len(self._retries):
                self._again(attempt, request)
                if facts.posture is None:
                    continue  # no facts yet
                facts = replace(facts, enrichment=Enrichment.PENDING)
            if len(self._answers) >= self._queue_max:  # answers are not being read
                self.counts.dropped += 1
                continue
            self._answers.append(Answer(request.cgroup_id, facts))
            self.counts.answered += 1
            os.eventfd_write(self._event, 1)

    def _next(self) -> tuple[int, Request] | None:
        """Waits for the next request that is due; None at the end."""
        with self._wake:
            while not self._stopping:
                now = time.monotonic()
                if self._queue and self._queue[0][0] <= now:
                    _, _, attempt, request = heapq.heappop(self._queue)
                    return attempt, request
                self._wake.wait(self._queue[0][0] - now if self._queue else None)
        return None

    def _again(self, attempt: int, request: Request) -> None:
        with self._wake:
            due = time.monotonic() + self._retries[attempt]
            heapq.heappush(self._queue, (due, next(self._order), attempt + 1, request))

    def _ask(self, request: Request) -> Facts:
        path = ""
        if not request.cgroup_path:
            path = self._path_of(request.cgroup_id)
            if not path:
                return Facts(Enrichment.GONE)
            request = replace(request, cgroup_path=path, id=identify(path).id)
        facts = enrich(
            request, self._sources, exists=self._exists, proc=self._proc, on_error=self._count_error
        )
        return replace(facts, cgroup_path=path) if path else facts

    def _count_error(self, source: str, message: str) -> None:
        self.counts.errors[source] = self.counts.errors.get(source, 0) + 1
