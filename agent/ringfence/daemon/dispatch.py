# SPDX-License-Identifier: Apache-2.0
"""Records -> events -> who takes them, by table. This is the hot path: 300,000 records a second on one core.

A record of activity is decoded, counted, attributed and, for the three process events, put into the tree; it
becomes text only if a client of the local socket asks for its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ringfence import log
from ringfence.abi import EVENT_MAX, EventKind
from ringfence.containers.registry import Registry
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.desk import Desk
from ringfence.daemon.members import Members
from ringfence.export.stats import Stats
from ringfence.export.stream import StreamServer
from ringfence.wire import DecodeError, decode

__all__ = ["Dispatcher"]

_SLOT, _CONTAINER = 7, 9  # positions in every event; a look-up by name costs more
_MEMBER_KINDS = frozenset(kind for kind in EventKind if kind.name.startswith(("CONTAINER_", "CGROUP_")))
_TREE_KINDS = (EventKind.PROCESS_FORK, EventKind.PROCESS_EXEC, EventKind.PROCESS_EXIT)
_LOGGED_BUGS = 10


class Dispatcher:
    """`on_alerts` and `on_activity` take what a ring gave. Nothing in a record can end the loop."""

    def __init__(
        self,
        stats: Stats,
        registry: Registry,
        tree: ProcessTree,
        members: Members,
        desk: Desk,
        stream: StreamServer,
    ) -> None:
        self._stats, self._registry, self._tree = stats, registry, tree
        self._members, self._desk, self._stream = members, desk, stream
        self._log = log.get_logger("dispatch")
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

    def on_alerts(self, records: Sequence[bytes]) -> None:
        """A batch of the ring of alerts: verdicts, and the life of containers."""
        for record in records:
            try:
                event = decode(record)
                self._stats.received[event.event] += 1
                if event.event in _MEMBER_KINDS:
                    container = self._members.on_event(event)
                else:
                    container = self._registry.get(event.slot, event.container)
                    self._tree.on_event(event)
                if event.action:
                    self._desk.verdict(event, container)
                else:
                    self._desk.lifecycle(event, container)
            except DecodeError as error:
                self._stats.decode_errors[error.reason] += 1
            except Exception as error:
                self._bug(error)

    def _bug(self, error: Exception) -> None:
        self._stats.handler_errors += 1
        if self._stats.handler_errors <= _LOGGED_BUGS:
            self._log.error("a record met a bug of the agent", exc_info=error)
