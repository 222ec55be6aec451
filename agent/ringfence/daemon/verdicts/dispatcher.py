# SPDX-License-Identifier: Apache-2.0
"""Records -> events -> handlers, by table. This is the hot path: 300,000 records a second on one core.

An activity record is decoded, counted, attributed and, for the three process events, entered in the tree. It
becomes text only if a client of the local socket asks for its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from ringfence.abi import EVENT_MAX, Action, EventKind, Mechanism
from ringfence.containers.registry import Registry
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.health.canary import Canary
from ringfence.daemon.succession.takeover import Takeover
from ringfence.daemon.tracking.containers import ContainerTracker
from ringfence.daemon.verdicts.pipeline import VerdictPipeline
from ringfence.export.stats import Stats
from ringfence.export.stream import StreamServer
from ringfence.faults import ErrorCounter
from ringfence.wire import HEADER, DecodeError, decode

__all__ = ["Dispatcher"]

_TIME = HEADER.offset_of("time_ns")
_OWNER = HEADER.offset_of("container")
_Taken = tuple[int, Callable[[bytes], None], bytes]  # time, handler, record
_SLOT, _CONTAINER = 7, 9  # positions in every event; a look-up by name costs more
_MEMBER_KINDS = frozenset(kind for kind in EventKind if kind.name.startswith(("CONTAINER_", "CGROUP_")))
_CGROUP_KINDS = frozenset(
    (
        EventKind.CGROUP_MKDIR,
        EventKind.CGROUP_RMDIR,
        EventKind.CGROUP_RELEASE,
        EventKind.CONTAINER_CREATE,
        EventKind.CONTAINER_REMOVE,
    )
)
_TREE_KINDS = (EventKind.PROCESS_FORK, EventKind.PROCESS_EXEC, EventKind.PROCESS_EXIT)


class Dispatcher:
    """`on_records` takes what the rings gave. Nothing in a record can end the loop."""

    def __init__(
        self,
        stats: Stats,
        registry: Registry,
        tree: ProcessTree,
        tracker: ContainerTracker,
        pipeline: VerdictPipeline,
        stream: StreamServer,
        takeover: Takeover,
    ) -> None:
        self._stats, self._registry, self._tree = stats, registry, tree
        self._tracker, self._pipeline, self._stream = tracker, pipeline, stream
        self.canary: Canary | None = None
        self._takeover = takeover
        self._bug = ErrorCounter("record").failed
        self._handlers: list[Callable[[Any], None] | None] = [None] * EVENT_MAX
        for kind in _TREE_KINDS:
            self._handlers[kind] = tree.on_event

    def on_activity(self, records: Sequence[bytes]) -> None:
        """A batch of the ring of activity."""
        received, handlers, get = self._stats.received, self._handlers, self._registry.get
        wanted, offer = self._stream.wanted, self._stream.offer
        for record in records:
            try:
                event: Any = decode(record)
                kind = event[0]
                received[kind] += 1
                container = get(event[_SLOT], event[_CONTAINER])
                handler = handlers[kind]
                if handler is not None:
                    handler(event)
                if wanted[kind]:
                    offer(event, container)
            except DecodeError as error:
                self._stats.decode_errors[error.reason] += 1
            except Exception as error:  # one record must not cost the others
                self._bug(error)

    def on_records(self, alerts: Sequence[bytes], activity: Sequence[bytes]) -> None:
        """A batch of each ring; with alerts among them, each container's in the order of their times."""
        if not alerts:
            self.on_activity(activity)
            return
        mixed: list[_Taken] = [(_time_of(record), self._alert, record) for record in alerts]
        if activity:
            mixed += [(_time_of(record), self._one, record) for record in activity]
            mixed.sort(key=_first)
        for _, handle, record in _fairly(mixed):
            handle(record)

    def _one(self, record: bytes) -> None:
        self.on_activity((record,))

    def _alert(self, record: bytes) -> None:
        """A record of the ring of alerts: a verdict, or the life of a container."""
        try:
            event = decode(record)
            self._stats.received[event.event] += 1
            if event.event in _MEMBER_KINDS:
                if (
                    self.canary is not None
                    and event.event in _CGROUP_KINDS
                    and self.canary.is_own_event(event)
                ):
                    return
                container = self._tracker.on_event(event)
            else:
                container = self._registry.get(event.slot, event.container)
                if not _was_refused(event):
                    self._tree.on_event(event)
            if event.action:
                self._takeover.witness(event)
                self._pipeline.verdict(event, container)
            else:
                self._pipeline.lifecycle(event, container)
        except DecodeError as error:
            self._stats.decode_errors[error.reason] += 1
        except Exception as error:
            self._bug(error)


def _was_refused(event: Any) -> bool:
    """Whether it did not come to pass: a program that was not executed is not in the tree."""
    return event.mechanism == Mechanism.LSM and event.action in (Action.DENY, Action.KILL)


def _time_of(record: bytes) -> int:
    """The time in a record's header, before it is decoded; 0 in one that is too short."""
    return int.from_bytes(record[_TIME : _TIME + 8], "little")


def _fairly(mixed: list[_Taken]) -> list[_Taken]:
    """One record of each container in turn: who sends many waits for who sends few. Within a container the
    order stays."""
    counts: dict[bytes, int] = {}
    turns: list[tuple[int, _Taken]] = []
    for one in mixed:
        owner = one[2][_OWNER : _OWNER + 8]
        turn = counts[owner] = counts.get(owner, -1) + 1
        turns.append((turn, one))
    if len(counts) < 2:
        return mixed
    turns.sort(key=_first)
    return [one for _, one in turns]


_first = itemgetter(0)
