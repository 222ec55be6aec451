# SPDX-License-Identifier: Apache-2.0
"""The custom probes of a node: found, compiled, read, replaced when their files change, reported.

Reading YAML and waiting for bcc happen in one thread, one probe at a time; events are handled in
the loop. If a new version is refused, the running one stays, and the status shows the problem.
"""

from __future__ import annotations

import gc
import hashlib
import select
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ringfence import log
from ringfence.bpf.objects import return_free_memory
from ringfence.daemon.loop import Loop
from ringfence.daemon.policies.file_watch import FileWatch
from ringfence.daemon.probes.events import ProbePipeline
from ringfence.errors import Error, ProbeError
from ringfence.export.escape import escape
from ringfence.faults import SupervisedThread
from ringfence.files import read_regular
from ringfence.probes.compiler import Workshop
from ringfence.probes.definition import Definition
from ringfence.probes.live import Live
from ringfence.probes.read import Found, read_directory

__all__ = ["ProbeManager", "ProbeState"]

_END = 0.5  # seconds that `close` waits for a probe that is being loaded
_LOOK = 1.0  # seconds between two looks at the files
_BATCH = 512  # records of each probe per turn: an alert must not wait for more
_LAST_BATCHES = 64  # of each probe, at the end
_PAUSE = 0.01  # seconds between two reads of a ring that was not empty
_MAX_FILE = 16 << 20  # bytes of a file of a probe; whole headers of a kernel have some megabytes
_SUFFIXES = (".yaml", ".c", ".h")
_MEANT = ("sampled", "host")  # reasons for which events are left out on request


@dataclass(slots=True)
class ProbeState:
    """One probe. `live` None: it does not run; `problems`: those of the files as they are now."""

    name: str
    live: Live | None = None
    problems: Sequence[str] = ()
    loading: bool = False

    def load(self) -> None:
        """It is being loaded."""
        self.loading = True

    def refuse(self, problems: Sequence[str]) -> None:
        """The files are refused; an older version stays."""
        self.problems, self.loading = problems, False

    def run(self, live: Live) -> None:
        """This version runs now."""
        self.live, self.problems, self.loading = live, (), False

    @property
    def word(self) -> str:
        """running, loading, outdated (an older version runs, the new one was refused) or failed."""
        if self.loading:
            return "loading"
        if self.problems:
            return "outdated" if self.live else "failed"
        return "running" if self.live else "loading"

    def status(self) -> dict[str, Any]:
        """For `ringfence status`."""
        row: dict[str, Any] = {"name": self.name, "state": self.word, "problems": list(self.problems)}
        if (live := self.live) is not None:
            dropped = {reason: n for reason, n in live.dropped.items() if reason not in _MEANT}
            lost = {reason: n for reason, n in {**dropped, **live.failures}.items() if n}
            row |= {"hooks": list(live.hooks), "received": live.received, "alerts": live.alerts, "lost": lost}
            row["load_seconds"] = round(live.seconds, 3)
        return row


class ProbeManager:
    """Any thread may read `states` and `loads`; everything else belongs to the loop and one
    thread.
    """

    def __init__(
        self,
        directory: Path,
        workshop: Workshop,
        loop: Loop,
        pipeline: ProbePipeline,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called in the loop when probes came or went: policies may name them."""
        self._directory, self._workshop, self._loop, self._pipeline = directory, workshop, loop, pipeline
        self._changed = changed
        self._watch = FileWatch((directory,), suffixes=_SUFFIXES)
        self._epoll = select.epoll()
        self._by_fd: dict[int, Live] = {}
        self._resting: set[int] = set()
        self._prints: dict[str, bytes] = {}
        self._stopping, self._again = threading.Event(), threading.Event()
        self._thread = SupervisedThread("probes", self._work)
        self._log = log.get_logger("probes")
        self.states: dict[str, ProbeState] = {}
        self.loads: Counter[str] = Counter({"loaded": 0, "failed": 0})

    def start(self) -> None:
        """Begin to load, in the background."""
        self._workshop.tidy()
        self._loop.watch(self._epoll.fileno(), self._ready)
        self._thread.start()

    def close(self) -> None:
        """Detach every probe."""
        self._stopping.set()
        self._again.set()
        self._thread.stop()
        self._thread.join(_END)  # a running bcc ends with this process
        for live in self.running():
            live.detach()
        self._epoll.close()

    def drain(self) -> None:
        """Handle the records that the rings hold now, at the end. In the loop's thread; bounded,
        because events continue.
        """
        for live in self.running():
            for _ in range(_LAST_BATCHES):
                records = live.read(_BATCH)
                if records:
                    self._pipeline.handle(live, records)
                if len(records) < _BATCH:
                    break

    def reload(self) -> None:
        """Look at the files now. From any thread."""
        self._again.set()

    def running(self) -> Iterator[Live]:
        """The probes that run."""
        return (state.live for state in list(self.states.values()) if state.live is not None)

    # -- the thread ----------------------------------------------------------

    def _work(self) -> None:
        self._look(read_directory(self._directory), first=True)
        while not self._stopping.is_set():
            asked = self._again.wait(_LOOK)
            self._again.clear()
            if self._stopping.is_set():
                return
            if self._watch.changed() or asked:
                self._look(read_directory(self._directory), first=False)

    def _look(self, found: Found, *, first: bool) -> None:
        before = set(self.states)
        names = {*found.definitions, *found.problems}
        for gone in before - names:
            self._prints.pop(gone, None)
            self._loop.call(partial(self._remove, gone))
        for name, problems in found.problems.items():
            self._refuse(name, [str(problem) for problem in problems])
        for definition in found.definitions.values():
            if self._stopping.is_set():
                return
            self._load(definition)
        # The memory that reading YAML and waiting for bcc took is free again, but not returned
        # yet.
        gc.collect()
        return_free_memory()
        if not first:
            self._loop.call(self._changed)

    def _load(self, definition: Definition) -> None:
        print_now = _fingerprint(definition)
        if self._prints.get(definition.name) == print_now:
            return
        self._prints[definition.name] = print_now
        self.states.setdefault(definition.name, ProbeState(definition.name)).load()
        try:
            live = Live(definition, self._workshop.build(definition))
        except (Error, OSError) as error:
            self._refuse(definition.name, _messages(error))
        except Exception as error:  # a bug: this probe is not loaded, and the log shows it
            self._refuse(definition.name, [f"internal error: {type(error).__name__}: {error}"])
        else:
            self._loop.call(lambda: self._install(live))

    def _refuse(self, name: str, problems: Sequence[str]) -> None:
        shown = [escape(problem) for problem in problems]
        self._prints.setdefault(name, b"")

        def note() -> None:
            state = self.states.setdefault(name, ProbeState(name))
            if state.problems != shown or state.loading:
                self.loads["failed"] += 1
                self._log.error(
                    "probe refused",
                    probe=name,
                    problems=shown,
                    running="the version before" if state.live else "none",
                )
            state.refuse(shown)

        self._loop.call(note)

    # -- the loop ------------------------------------------------------------

    def _install(self, live: Live) -> None:
        name = live.probe.name
        state = self.states.setdefault(name, ProbeState(name))
        if state.live is None:
            live.begin()
        else:
            live.begin_after(state.live)
            self._end(state.live)
            live.take_over(state.live)
        state.run(live)
        self._by_fd[live.fileno()] = live
        self._epoll.register(live.fileno(), select.EPOLLIN)
        self.loads["loaded"] += 1
        self._log.info("probe runs", probe=name, ms=round(live.seconds * 1000), hooks=list(live.hooks))

    def _remove(self, name: str) -> None:
        state = self.states.pop(name, None)
        if state is not None and state.live is not None:
            self._end(state.live)
            self._log.info("probe removed", probe=name)

    def _end(self, live: Live) -> None:
        """Handle the records that its ring still holds, then detach."""
        while records := live.read(_BATCH):
            self._pipeline.handle(live, records)
        self._epoll.unregister(live.fileno())
        self._resting.discard(live.fileno())
        del self._by_fd[live.fileno()]
        live.detach()

    def _ready(self) -> None:
        """Some rings have records: handle a batch of each. A ring that was emptied is read again a
        little later: a wake-up for each record would cost more than the record.
        """
        for fd, _ in self._epoll.poll(0):
            live = self._by_fd[fd]
            records = live.read(_BATCH)
            if records:
                self._pipeline.handle(live, records)
            if len(records) < _BATCH:
                self._epoll.modify(fd, 0)
                if not self._resting:
                    self._loop.later(_PAUSE, self._rested)
                self._resting.add(fd)

    def _rested(self) -> None:
        for fd in self._resting:
            self._epoll.modify(fd, select.EPOLLIN)
        self._resting.clear()


def _messages(error: Error | OSError) -> list[str]:
    if isinstance(error, ProbeError):
        return [str(problem) for problem in error.problems]
    if isinstance(error, Error):
        return [f"{error.message}; {error.hint}" if error.hint else error.message]
    return [str(error)]


def _fingerprint(definition: Definition) -> bytes:
    """The digest of both files, and of the headers beside them."""
    digest = hashlib.sha256()
    for path in (definition.yaml, definition.source, *sorted(definition.source.parent.glob("*.h"))):
        try:
            digest.update(read_regular(path, _MAX_FILE))
        except OSError:
            digest.update(b"\0absent")
        digest.update(b"\0")
    return digest.digest()
