# SPDX-License-Identifier: Apache-2.0
"""Where finished records go: redacted, to the output and the local socket at once, and to
receivers as soon as the container's names are known.

A line is never held back: names that it lacked follow in a record of kind `identity`, which lists
the alerts. An alert for a receiver waits for the names, for a bounded time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client.core import Metric

from ringfence import log
from ringfence.config import Config
from ringfence.containers.model import Container, Enrichment
from ringfence.export import families
from ringfence.export.escape import escape
from ringfence.export.jsonl import LineWriter
from ringfence.export.records import VERSION, container_record
from ringfence.export.redact import Redactor
from ringfence.export.sinks.receivers import is_any_configured
from ringfence.export.stream import StreamServer
from ringfence.response.limiter import Limiter

if TYPE_CHECKING:
    from ringfence.export.sinks.outbox import Outbox

__all__ = ["Egress", "NoOutbox", "Outputs", "limiter_of", "open_outbox"]

_HELD_MAX = 4096  # alerts that wait; more leave as they are
Record = dict[str, Any]


class NoOutbox:
    """No receiver is configured."""

    senders = ()
    lost = 0

    def start(self) -> None:
        """Nothing to start."""

    def put(self, record: Mapping[str, Any]) -> bool:
        """Accept and drop the record."""
        return True

    def close(self) -> None:
        """Nothing to close."""

    def lost_by_reason(self) -> Iterator[tuple[str, str, int]]:
        """Nothing is lost."""
        return iter(())


@dataclass(frozen=True, slots=True)
class Egress:
    """The ways out of the agent, and the redactor before them: lines, the local socket, receivers
    of alerts.
    """

    redactor: Redactor
    writer: LineWriter
    stream: StreamServer
    outbox: Outbox | NoOutbox

    def show(self, record: Mapping[str, Any]) -> None:
        """Write a line, and publish it to the clients of the local socket."""
        self.writer.emit(record)
        self.stream.publish(record)

    def samples(self) -> Iterator[Metric]:
        """Lines, clients and receivers."""
        yield from families.output([self.writer], self.stream, self.redactor.redacted)
        yield from families.receivers(self.outbox.senders, self.outbox.lost_by_reason())
        yield from families.capacity("lines", self.writer.capacity)
        yield from families.capacity("stream", self.stream.capacity)


def _news(receiver: str, text: str) -> None:
    """A receiver of alerts became unreachable or reachable. Called in its thread."""
    logger = log.get_logger("alerts")
    if text:
        logger.error("alerts wait for a receiver", receiver=receiver, reason=escape(text))
    else:
        logger.info("alerts reach their receiver again", receiver=receiver)


def _unwritten(receiver: str, reason: str) -> None:
    """The disk takes no more alerts for a receiver, or takes them again. Called in the outbox's thread."""
    logger = log.get_logger("alerts")
    if reason:
        logger.error("alerts wait in memory: their queue cannot be written", receiver=receiver, reason=reason)
    else:
        logger.info("alerts are written to their queue again", receiver=receiver)


def _damaged(file: Path, offset: int, records: int) -> None:
    """Alerts of a receiver's queue are damaged. Called in any thread."""
    log.get_logger("alerts").error(
        "damaged alerts of a queue are lost; those after them are delivered",
        file=escape(str(file)),
        offset=offset,
        records=records,
    )


def open_outbox(config: Config) -> Outbox | NoOutbox:
    """The queues of the configured receivers. Their modules are imported only if there are some."""
    if not is_any_configured(config):
        return NoOutbox()
    from ringfence.export.sinks.outbox import outbox_of

    return outbox_of(config, _news, _damaged, _unwritten)


def limiter_of(config: Config) -> Limiter:
    """The configured rate limit per container and rule."""
    return Limiter(
        rate=config.alerts_rate / 60, burst=config.alerts_burst, same_ns=config.alerts_repeat * 10**9
    )


class _Held(NamedTuple):
    record: Record
    until: float


class Outputs:
    """Used by the loop only."""

    def __init__(
        self,
        config: Config,
        egress: Egress,
        find: Callable[[int], Container | None],
        *,
        digest: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`find` gives a container, as it is known by now, by its cgroup id; `digest` that of the
        policies in force.
        """
        self._digest = digest
        self._egress, self._find, self._clock = egress, find, clock
        self._wait = config.alerts_identity_wait / 1000
        self._labels = dict(config.alerts_labels)
        self._held: dict[int, list[_Held]] = {}
        self._count = 0

    @property
    def redactor(self) -> Redactor:
        """It is applied once to each record."""
        return self._egress.redactor

    @property
    def stream(self) -> StreamServer:
        """The local socket, for events that only its clients get."""
        return self._egress.stream

    @property
    def waiting(self) -> int:
        """Alerts that wait for names."""
        return self._count

    def emit(self, record: Mapping[str, Any], container: Container | None = None) -> None:
        """Send one record; `container` is the one that it is about."""
        if container is not None and not container.settled:
            # The record may be late (a repetition that was held back), and the container be known
            # by now.
            current = self._find(container.cgroup_id)
            if current is not None and current.settled:
                container, record = current, {**record, "container": container_record(current)}
        clean = self._egress.redactor.record(record)
        alert = clean.get("kind") == "alert"
        if alert and (digest := self._digest()):
            clean["policy_digest"] = digest
        if alert and self._labels:
            clean["labels"] = self._labels
        self._egress.show(clean)
        if not alert:
            return
        pending = container is not None and container.enrichment is Enrichment.PENDING
        if container is None or not pending or not self._wait or self._count >= _HELD_MAX:
            self._egress.outbox.put(clean)
            return
        held = _Held(clean, self._clock() + self._wait)
        self._held.setdefault(container.cgroup_id, []).append(held)
        self._count += 1

    def identified(self, container: Container) -> None:
        """More is known about a container. Its alerts are sent once no more names are expected."""
        if container.enrichment is Enrichment.PENDING or container.cgroup_id not in self._held:
            return
        held = self._held.pop(container.cgroup_id)
        self._count -= len(held)
        known = self._egress.redactor.record({"container": container_record(container)})["container"]
        if container.enrichment is Enrichment.DONE:
            first = held[0].record
            self._egress.show(
                {
                    "version": VERSION,
                    "time": first["time"],
                    "event": "container.identity",
                    "kind": "identity",
                    "alerts": [one.record.get("id") for one in held],
                    "container": known,
                    "node": first.get("node", ""),
                }
            )
        for one in held:
            self._egress.outbox.put({**one.record, "container": known})

    def tick(self) -> None:
        """Send the alerts that have waited long enough. Called by a timer."""
        now = self._clock()
        for cgroup, held in list(self._held.items()):
            over = [one for one in held if one.until <= now]
            if over:
                self._release(cgroup, over, [one for one in held if one.until > now])

    def flush(self) -> None:
        """Send all alerts that wait; at the end."""
        for cgroup, held in list(self._held.items()):
            self._release(cgroup, held, [])

    def _release(self, cgroup: int, over: list[_Held], rest: list[_Held]) -> None:
        if rest:
            self._held[cgroup] = rest
        else:
            del self._held[cgroup]
        self._count -= len(over)
        for one in over:
            self._egress.outbox.put(one.record)

    def line(self, record: Mapping[str, Any]) -> None:
        """Write a redacted record as a line, for no client and no receiver."""
        self._egress.writer.emit(record)

    def samples(self) -> Iterator[Metric]:
        """How many alerts wait for names."""
        yield from families.capacity("unnamed_alerts", (self._count, _HELD_MAX))
