# SPDX-License-Identifier: Apache-2.0
"""Takes over from the earlier agent, with no unguarded moment and no unreported verdict.

The pinned programs of the earlier agent keep deciding while this one attaches, adopts running
containers, and asks the runtimes; only then are the old pins removed. Meanwhile both decide and
both record. So the old rings are read twice, and a verdict that both recorded is reported once:

- Verdicts in the old ring from before this agent's programs (the gap) are reported at once, late
  but complete.
- Verdicts that both recorded (the overlap) were reported from the new ring, and count as
  duplicates. Verdicts that only the old programs recorded, because they refused the call first,
  are reported after their end; so are calls that only the old programs stopped (the mode was
  switched to audit).
- Records of activity are counted, not reported: the process tree was read from the kernel again.

It does not matter whether the old programs are of this build: they are never reused, always
replaced. Records of another ABI are counted as unreadable.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import Metric

from ringfence import log
from ringfence.abi import DROP_KEY, DROP_MAX, MAPS, NO_SLOT, Action, EventKind
from ringfence.bpf.pins import PinDirectory
from ringfence.bpf.ring import Ring
from ringfence.containers.model import Container
from ringfence.containers.registry import Registry
from ringfence.events import ContainerEvent, Event
from ringfence.export import families
from ringfence.export.families import event_label, reason_label
from ringfence.policy.install import Generations
from ringfence.policy.rulebook import RuleBook
from ringfence.wire import DecodeError, decode

__all__ = ["OUTCOMES", "Report", "Takeover"]

#: the outcomes of a record that an earlier agent left unread
OUTCOMES = ("reported", "duplicate", "activity", "life", "unreadable", "dropped")
#: two programs on one hook record one call within this, also if the task was preempted between
#: them
_SAME_CALL_NS = 50_000_000
_WITNESSED = 100_000  # verdicts of the overlap that are remembered
_SAME_CALL = 4096  # verdicts of one task and rule that are compared
_BATCH = 4096
_PATIENCE = 5.0  # seconds for the runtimes to identify the containers
_GOING = 1.0  # seconds after which programs that lost their last pin have ended (RCU: some 40 ms)
#: gets a verdict of an earlier agent; its process may have ended
Report = Callable[[Event, Container | None], None]


class _Seen(NamedTuple):
    """A verdict of the new ring: its time, and whether the call was denied or its task killed."""

    time_ns: int
    stopped: bool


class _Call(NamedTuple):
    """The part that both agents' records of one verdict have in common, except the time."""

    kind: int
    tid: int
    rule: str


@dataclass(slots=True)
class _Left:
    """A verdict of the gap that was reported, and the last ring in which it was found."""

    time_ns: int
    ring: int

    def is_again_in(self, ring: int, time_ns: int) -> bool:
        """Returns True if a record of another ring, of that time, is the same verdict."""
        if self.ring == ring or abs(self.time_ns - time_ns) > _SAME_CALL_NS:
            return False
        self.ring = ring
        return True


class Takeover:
    """Call `begin` before anything attaches, `adopted` when running containers are known,
    `release` when this agent is complete (otherwise `tick` does), `finish` at the end of a short
    life. Used by the loop's thread.
    """

    def __init__(
        self,
        generations: Generations,
        registry: Registry,
        complete: Callable[[], None],
        path_of: Callable[[int], str],
    ) -> None:
        """`complete` is called when this agent is complete. `path_of` finds a cgroup's path by its
        id.
        """
        self._generations, self._registry = generations, registry
        self._complete, self._path_of = complete, path_of
        self._before: list[PinDirectory] = []
        self._rings: list[tuple[str, Ring]] = []
        self._began = 0  # CLOCK_BOOTTIME in ns
        self._due = 0.0  # monotonic time of the next step
        self._ended = 0.0  # monotonic time at which the old programs have ended
        self._overlap: list[tuple[int, Event]] = []  # of the old rings (number of the ring), since `begin`
        self._seen: dict[_Call, deque[_Seen]] = defaultdict(deque)
        self._left: dict[_Call, deque[_Left]] = defaultdict(lambda: deque(maxlen=_SAME_CALL))
        self._reading = 0  # number of the ring
        self._witnessed = 0  # entries of `_seen` and `_left`
        self._gone: dict[int, Container] = {}  # containers that lived and died in the gap
        self._log = log.get_logger("takeover")
        self.counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.lost: Counter[tuple[int, int]] = Counter()  # by event and reason: part of `dropped`

    @property
    def before(self) -> list[PinDirectory]:
        """Pins of earlier agents, oldest first, until they are released."""
        return list(self._before)

    @property
    def pending(self) -> bool:
        """True if an earlier agent's programs may still decide beside this agent's, or left
        records to read.
        """
        return bool(self._rings or self._before)

    @property
    def deciding(self) -> bool:
        """True if an earlier agent's programs may still decide: with its policies, in its mode."""
        return bool(self._before) or time.monotonic() < self._ended

    def begin(self, base: Path, book: RuleBook | None) -> None:
        """Open what is pinned; continue the numbering of generations of the last agent."""
        self._before = PinDirectory.all(base)
        self._rings = [
            (name, ring)
            for found in self._before
            for name in ("alerts", "activity")
            if (ring := _ring(found, name)) is not None
        ]
        self._began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._due = time.monotonic() + _PATIENCE
        known = dict(book.generations) if book is not None else {}
        # Without a book, the numbers continue all the same: a rule of that time has no name, but
        # never the name of another rule.
        known |= {number: {} for found in self._before if (number := _generation(found)) not in known}
        self._generations.follow(known)
        if self._before:
            self._log.info("an earlier agent's programs decide until this one is complete",
                           pins=[found.name for found in self._before])  # fmt: skip

    def witness(self, event: Event) -> None:
        """Remember a verdict of the new ring, while both decide."""
        if self.pending and self._witnessed < _WITNESSED:
            self._seen[self._call(event)].append(_Seen(event.time_ns, _is_stopped(event)))
            self._witnessed += 1

    def adopted(self, report: Report) -> None:
        """Running containers are known: report the verdicts from before this agent."""
        self._read(report)

    def tick(self, report: Report) -> None:
        """Do the next step when its time has come; called by a timer."""
        if self.pending and time.monotonic() >= self._due:
            if self._before:
                self.release()
            else:
                self._report_the_rest(report)

    def release(self) -> None:
        """This agent is complete: remove the old programs. Their rings stay open until they have
        ended. Further calls have no effect.
        """
        before, self._before = self._before, []
        self._complete()
        if before:
            self._remove(before)
            self._due = self._ended = time.monotonic() + _GOING

    def thin_out(self) -> None:
        """Remove the pins of agents that were killed in a row before they were complete, except
        the last, and of those before the last complete one: a cgroup holds 64 programs, and a
        dozen agents would fill it. Their unread records are read.
        """
        kept = {id(found) for found in self._before[-1:]}
        whole = [found for found in self._before if found.whole]
        kept |= {id(found) for found in whole[-1:]}
        kept |= {id(found) for found in [one for one in whole if one.complete][-1:]}
        gone = [found for found in self._before if id(found) not in kept]
        self._before = [found for found in self._before if id(found) in kept]
        self._remove(gone)

    def _remove(self, before: list[PinDirectory]) -> None:
        for found in before:
            self._count_dropped(found)
        for found in before:
            found.remove()
            if found.path.exists():
                self._log.error(
                    "pins of an earlier agent cannot be removed: its programs keep deciding", pins=found.name
                )

    def _count_dropped(self, found: PinDirectory) -> None:
        """Count the records that this agent's programs lost, by kind, reason and container."""
        for event, reason, container, count in _dropped(found):
            self.counts["dropped"] += count
            self.lost[event, reason] += count
            self._log.warning("the earlier agent lost records", kind=event_label(event),
                              reason=reason_label(reason), container=container, records=count)  # fmt: skip

    def finish(self, report: Report) -> None:
        """Do all remaining steps now."""
        self.release()
        if self._rings:
            self._report_the_rest(report)

    def samples(self) -> Iterator[Metric]:
        """Records of the earlier agent, and those that it lost."""
        yield families.counters(
            "ringfence_takeover_records",
            "Records that an earlier agent left unread, by outcome.",
            "outcome",
            self.counts,
        )
        yield families.losses_of_predecessor(dict(self.lost))

    def _report_the_rest(self, report: Report) -> None:
        self._read(report)
        for number, event in self._overlap:
            self._reading = number
            witnessed = self._was_left_twice(event) or self._was_witnessed(event)
            self._one(event, report, witnessed=witnessed)
        for _, ring in self._rings:
            ring.commit()
            ring.close()
        self._rings = []
        self._overlap.clear()
        self._seen.clear()
        self._left.clear()
        self._witnessed = 0
        self._gone.clear()
        self._log.info("taken over", **self.counts)

    def _read(self, report: Report) -> None:
        # Records stay in their rings until all are reported: if this agent is killed, the next one
        # finds them.
        for number, (name, ring) in enumerate(self._rings):
            self._reading = number
            while records := ring.read(_BATCH, keep=True):
                if name == "alerts":
                    for record in records:
                        self._alert(record, report)
                else:
                    self.counts["activity"] += len(records)

    def _alert(self, record: bytes, report: Report) -> None:
        try:
            event = decode(record)
        except DecodeError:
            self.counts["unreadable"] += 1
            return
        if event.time_ns < self._began or not event.action:
            self._one(event, report, witnessed=bool(event.action) and self._was_left_twice(event))
        elif len(self._overlap) < _WITNESSED:
            self._overlap.append((self._reading, event))
        else:
            self.counts["dropped"] += 1

    def _one(self, event: Event, report: Report, *, witnessed: bool) -> None:
        if not event.action:
            self.counts["life"] += 1
            if event.event == EventKind.CONTAINER_CREATE and isinstance(event, ContainerEvent):
                self._remember(event)
        elif witnessed:
            self.counts["duplicate"] += 1
        else:
            self.counts["reported"] += 1
            report(event, self._container(event))

    def _container(self, event: Event) -> Container | None:
        """The container of a record: a live one, one that existed only in the gap, or one without
        a task now.
        """
        found = self._registry.find(event.container) or self._gone.get(event.container)
        if found is None and event.container:
            path = self._path_of(event.container)
            found = self._gone[event.container] = Container.unnamed(event.container, event.slot).at(path)
        return found

    def _remember(self, event: ContainerEvent) -> None:
        if self._registry.find(event.container) is None:
            made = Container.unnamed(event.container, event.slot, created_ns=event.time_ns)
            self._gone[event.container] = made.at(event.path.decode("utf-8", "surrogateescape"))

    def _was_witnessed(self, event: Event) -> bool:
        seen = self._seen.get(self._call(event))
        while seen:
            if abs(seen[0].time_ns - event.time_ns) <= _SAME_CALL_NS:
                # After a switch to audit, the old programs stop a call that the new ones only report.
                return seen.popleft().stopped or not _is_stopped(event)
            if seen[0].time_ns > event.time_ns:
                return False
            seen.popleft()  # recorded in the new ring only
        return False

    def _was_left_twice(self, event: Event) -> bool:
        """Returns True if the same verdict was reported from another old ring: agents that were
        killed one after the other leave programs that all decide.
        """
        if sum(name == "alerts" for name, _ in self._rings) < 2:
            return False
        left = self._left[self._call(event)]
        if any(one.is_again_in(self._reading, event.time_ns) for one in left):
            return True
        if self._witnessed < _WITNESSED:
            left.append(_Left(event.time_ns, self._reading))
            self._witnessed += 1
        return False

    def _call(self, event: Event) -> _Call:
        rule = self._generations.rule(event.generation, event.rule)
        return _Call(event.event, event.tid, rule.rule_id if rule else "")


def _is_stopped(event: Event) -> bool:
    """Returns True if the kernel denied the call or killed its task."""
    return event.action in (Action.DENY, Action.KILL)


def _ring(found: PinDirectory, name: str) -> Ring | None:
    """A ring that an earlier agent left; None if its pins are incomplete."""
    with suppress(OSError):
        left = found.open_map(name)
        if left is not None:
            with left:  # the pages stay mapped
                return Ring(left.fd, left.max_entries)
    return None


def _generation(found: PinDirectory) -> int:
    """The number of the generation that was in force there; 0: unknown."""
    with suppress(OSError):
        left = found.open_map("generation")
        if left is not None:
            with left:
                return left.get_int(0) if (left.key_size, left.value_size) == MAPS["generation"] else 0
    return 0


def _dropped(found: PinDirectory) -> Iterator[tuple[int, int, str, int]]:
    """Event, reason, container and number of records that were lost since that agent started."""
    names = _names(found)
    with suppress(OSError):
        for name in ("drops", "drops_unnamed"):
            left = found.open_map(name)
            if left is None:
                continue
            with left:
                if (left.key_size, left.value_size) != MAPS[name]:
                    continue
                for key, value in left.items():
                    count = int.from_bytes(value, "little")
                    if name == "drops":
                        event, reason, slot = DROP_KEY.unpack(key)
                    else:
                        (event, reason), slot = divmod(int.from_bytes(key, "little"), DROP_MAX), NO_SLOT
                    if count:
                        yield event, reason, names.get(slot, ""), count


def _names(found: PinDirectory) -> dict[int, str]:
    """The cgroup id of each slot: the only name in the maps of that agent."""
    with suppress(OSError):
        left = found.open_map("slots") if found.same_abi else None
        if left is not None:
            with left:
                slots = {int.from_bytes(key, "little"): int.from_bytes(value[:8], "little")
                         for key, value in left.items()}  # fmt: skip
            return {slot: f"cgroup-{cgroup}" for slot, cgroup in slots.items() if cgroup}
    return {}
