# SPDX-License-Identifier: Apache-2.0
"""Records -> events -> handlers, by table. This is the hot path: 300,000 records a second on one
core.

An activity record is decoded, counted, attributed and, for the three process events, entered in
the tree. It becomes text only if a client of the local socket follows its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from prometheus_client.core import Metric

from ringfence.abi import EVENT_MAX, Action, EventKind, Mechanism
from ringfence.daemon.health.canary import Canary
from ringfence.daemon.parts import Picture
from ringfence.daemon.succession.continuity import Continuity
from ringfence.daemon.tracking.containers import ContainerTracker
from ringfence.daemon.verdicts.pipeline import VerdictPipeline
from ringfence.events import Event
from ringfence.export import families
from ringfence.export.stream import StreamServer
from ringfence.faults import ErrorCounter
from ringfence.wire import HEADER, DecodeError, decode

__all__ = ["Dispatcher"]

_TIME = HEADER.offset_of("time_ns")
_OWNER = HEADER.offset_of("container")
_Pending = tuple[int, Callable[[bytes], None], bytes]  # time, handler, record
# Positions in every event, whose first fields are those of the header; a look-up by name costs
# more.
_SLOT, _CONTAINER = HEADER.names.index("slot"), HEADER.names.index("container")
_LIFE_KINDS = frozenset(kind for kind in EventKind if kind.name.startswith(("CONTAINER_", "CGROUP_")))
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
    """Used by the loop only, but for `report`. Nothing in a record can end the loop."""

    def __init__(
        self,
        picture: Picture,
        tracker: ContainerTracker,
        pipeline: VerdictPipeline,
        continuity: Continuity,
        stream: StreamServer,
        canary: Canary | None,
        in_loop: Callable[[Callable[[], None]], object],
    ) -> None:
        """`canary` None: there is none. `in_loop` hands work to the loop, from any thread."""
        self._stats, self._registry, self._tree = picture.stats, picture.registry, picture.tree
        self._tracker, self._pipeline, self._stream = tracker, pipeline, stream
        self._continuity, self._canary, self._in_loop = continuity, canary, in_loop
        self._bug = ErrorCounter("record").failed
        self._handlers: list[Callable[[Any], None] | None] = [None] * EVENT_MAX
        for kind in _TREE_KINDS:
            self._handlers[kind] = picture.tree.on_event

    def on_records(self, alerts: Sequence[bytes], activity: Sequence[bytes]) -> None:
        """A batch of each ring. With alerts among them, the records of a container are handled in
        the order of their times.
        """
        if not alerts:
            self.on_activity(activity)
            return
        mixed: list[_Pending] = [(_time_of(record), self._alert, record) for record in alerts]
        if activity:
            mixed += [(_time_of(record), self._one_activity, record) for record in activity]
            mixed.sort(key=_first)
        for _, handle, record in _fairly(mixed):
            handle(record)

    def on_activity(self, records: Sequence[bytes]) -> None:
        """A batch of the activity ring."""
        received, handlers, get = self._stats.received, self._handlers, self._registry.get
        wanted, offer, render = self._stream.wanted, self._stream.offer, self._pipeline.render
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
                    offer(render, event, container)
            except DecodeError as error:
                self._stats.decode_errors[error.reason] += 1
            except Exception as error:  # one record must not cost the others
                self._bug(error)

    def on_answers(self) -> None:
        """Runtimes answered: containers are identified."""
        for container, facts in self._tracker.answers():
            self._pipeline.identified(container, facts)
        self._continuity.answered()

    def report(self, event: Event) -> None:
        """A verdict that user space made itself. From any thread."""
        self._in_loop(lambda: self._pipeline.handle(event, self._registry.find(event.container)))

    def samples(self) -> Iterator[Metric]:
        """Records as they were received, those of the canary among them."""
        yield from families.records(self._stats, self._registry.counts.unattributed)
        yield from self._canary.samples() if self._canary else families.canary(0.0, 0)

    def _one_activity(self, record: bytes) -> None:
        self.on_activity((record,))

    def _alert(self, record: bytes) -> None:
        """A record of the alerts ring: a verdict, or the life of a container."""
        try:
            event = decode(record)
            self._stats.received[event.event] += 1
            if event.event in _LIFE_KINDS:
                canary = self._canary
                if canary is not None and event.event in _CGROUP_KINDS and canary.is_own_event(event):
                    return
                container = self._tracker.on_event(event)
                if container is not None and container.is_canary and not event.action:
                    return
            else:
                container = self._registry.get(event.slot, event.container)
                if not _was_refused(event):
                    self._tree.on_event(event)
            if event.action:
                self._continuity.takeover.witness(event)
                self._pipeline.handle(event, container)
            else:
                self._pipeline.lifecycle(event, container)
        except DecodeError as error:
            self._stats.decode_errors[error.reason] += 1
        except Exception as error:
            self._bug(error)


def _was_refused(event: Any) -> bool:
    """Returns True if the call did not happen: a program that was not executed is not in the tree."""
    return event.mechanism in (Mechanism.LSM, Mechanism.HOOK) and event.action in (Action.DENY, Action.KILL)


def _time_of(record: bytes) -> int:
    """The time in a record's header, before it is decoded; 0 in a record that is too short."""
    return int.from_bytes(record[_TIME : _TIME + 8], "little")


def _fairly(mixed: list[_Pending]) -> list[_Pending]:
    """One record of each container in turn, so that a container with few records does not wait for
    one with many. Within a container the order stays.
    """
    counts: dict[bytes, int] = {}
    turns: list[tuple[int, _Pending]] = []
    for one in mixed:
        owner = one[2][_OWNER : _OWNER + 8]
        turn = counts[owner] = counts.get(owner, -1) + 1
        turns.append((turn, one))
    if len(counts) < 2:
        return mixed
    turns.sort(key=_first)
    return [one for _, one in turns]


_first = itemgetter(0)
