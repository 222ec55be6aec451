# SPDX-License-Identifier: Apache-2.0
"""Asks the runtimes, in a thread: never in the path of an event.

A request that cannot be answered yet is repeated a few times, each time later (a runtime writes its state
down after it made the cgroup). Everything is bounded: the queue, the answers, the time and size of each
question.
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
# After these many seconds it is asked again; then nobody knows the container.
RETRY_S = (0.05, 0.2, 1.0, 3.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    cgroup_id: int
    facts: Facts


@dataclass(slots=True)
class WorkerCounts:
    """For the metrics. `errors` by source."""

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
    """Everything that the sources and /proc say of one container, the first source of each fact first.

    `exists` says whether its cgroup is still there. Never raises: what is wrong is in the answer, and given
    to `on_error` (source, message).
    """
    merged, failed = Facts(Enrichment.NONE), False
    for source in sources:
        try:
            found = source.find(request)
        except Exception as error:  # a source reads what others wrote: nothing in it may end the thread
            failed = True
            if on_error:
                on_error(source.name, f"{type(error).__name__}: {error}"[:500])
            continue
        if found is not None:
            merged = _together(merged, found)
    pid, start_ns = (request.pid, request.start_ns) if request.pid else (merged.pid, 0)
    posture = posture_of_task(pid, start_ns, proc) if pid else None
    merged = replace(merged, posture=merge(posture, merged.posture))
    if merged.enrichment is Enrichment.NONE:
        if request.cgroup_path and not exists(request.cgroup_path):
            return replace(merged, enrichment=Enrichment.GONE)
        if failed:
            return replace(merged, enrichment=Enrichment.FAILED)
    return merged


def _together(first: Facts, second: Facts) -> Facts:
    """The facts of two sources: what the first found counts, the second fills in the rest."""
    gaps = {name: getattr(second, name) for name in _FIELDS if not getattr(first, name)}
    labels = {**second.labels, **first.labels}
    posture = merge(first.posture, second.posture)
    return replace(first, enrichment=Enrichment.DONE, **gaps, labels=labels, posture=posture)


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
        """`exists`: is that cgroup path there? `path_of`: the path of a cgroup by its id, empty when gone."""
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
        """Begin; before that, requests only queue up."""
        self._thread.start()

    def fileno(self) -> int:
        """For epoll."""
        return self._event

    @property
    def capacity(self) -> tuple[int, int]:
        """Requests that wait, and may."""
        return len(self._queue), self._queue_max

    def submit(self, request: Request) -> bool:
        """Ask; False: the queue is full, and the request was dropped and counted."""
        with self._wake:
            if len(self._queue) >= self._queue_max:
                self.counts.dropped += 1
                return False
            self.counts.asked += 1
            heapq.heappush(self._queue, (time.monotonic(), next(self._order), 0, request))
            self._wake.notify()
        return True

    def answers(self) -> list[Answer]:
        """What became known since the last call."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            pass
        found = []
        while self._answers:
            found.append(self._answers.popleft())
        return found

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread; what is queued stays unanswered. A source that hangs is left behind."""
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
            except Exception as error:  # who is asked about must not wait for ever
                self._bug(error)
                facts = Facts(Enrichment.FAILED)
            if facts.enrichment in (Enrichment.NONE, Enrichment.FAILED) and attempt < len(self._retries):
                self._again(attempt, request)
                if facts.posture is None:
                    continue  # nothing to tell yet
                facts = replace(facts, enrichment=Enrichment.PENDING)
            if len(self._answers) >= self._queue_max:  # nobody reads
                self.counts.dropped += 1
                continue
            self._answers.append(Answer(request.cgroup_id, facts))
            self.counts.answered += 1
            os.eventfd_write(self._event, 1)

    def _next(self) -> tuple[int, Request] | None:
        """The next request that is due; None at the end."""
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
