# SPDX-License-Identifier: Apache-2.0
"""The local socket: JSON lines for `ringfence status`, `events`, `top`, `tree` and `policy list`.

One thread serves all clients with non-blocking sockets. A request is one line,
`{"op": "status", ...}`; the answer is one line, `{"ok": true, "result": ...}` or
`{"ok": false, "error": ...}`. `{"op": "events"}` is answered by `{"ok": true}` and then one line per
record. A client that reads too slowly loses records, and gets a line
`{"event": "dropped", "count": N}`; other clients are not affected. The socket has mode 0600.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ringfence.abi import EVENT_MAX
from ringfence.errors import Error
from ringfence.export.jsonl import line_of
from ringfence.export.subscription import ALL_PROBES, Subscription
from ringfence.faults import ACCEPT_PAUSE, ErrorCounter, SupervisedThread, cannot_accept
from ringfence.files import SocketFile

if TYPE_CHECKING:
    from ringfence.containers.model import Container

__all__ = ["StreamServer"]

_MAX_CLIENTS = 32
_MAX_REQUEST = 1 << 16
_MAX_BEHIND = 1 << 20  # maximum unread bytes of a client
_QUEUE = 1 << 14
_REQUEST_SECONDS = 10.0
_HISTORY = 1000
Record = Mapping[str, Any]
Answer = Callable[[str, Mapping[str, Any]], Any]
Render = Callable[[Any, "Container | None"], Record]
Refuses = Callable[[socket.socket], bool]


class _Offered(NamedTuple):
    """An event that is not a record yet."""

    render: Render
    event: Any
    container: Container | None


class _Client:
    """One connection: its subscription and its unread data."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.request = bytearray()
        self.out = bytearray()
        self.subscription: Subscription | None = None
        self.missed = 0
        self.closing = False
        self.deadline = time.monotonic() + _REQUEST_SECONDS

    def send(self, line: bytes, *, may_drop: bool) -> bool:
        """Queues one line. Returns False if the client is too far behind."""
        if may_drop and len(self.out) + len(line) > _MAX_BEHIND:
            self.missed += 1
            return False
        if self.missed and may_drop:
            self.out += b'{"event":"dropped","count":%d}\n' % self.missed
            self.missed = 0
        self.out += line
        return True


class StreamServer:
    """Serves from `start` on. `publish` and `offer` are called by the loop's thread and never block.

    `wanted[event number]` is true for events that a client follows; the loop offers no others.
    """

    def __init__(self, path: Path) -> None:
        """Listens from here on; clients wait for `start`."""
        self.path = path
        self.wanted = bytearray(EVENT_MAX)
        self._probes: frozenset[str] = frozenset()
        self.lost = 0  # records dropped for all clients, because the queue was full
        self.missed = 0  # records dropped for one client, because it read too slowly
        self._guard = ErrorCounter("stream")
        self._answer: Answer  # given to `start`
        self._refuses: Refuses
        self._queue: deque[_Offered | Record] = deque(maxlen=_QUEUE)
        self._history: deque[Record] = deque(maxlen=_HISTORY)
        self._clients: dict[int, _Client] = {}
        self._awake = False
        self._stopping = False
        self._accept_at = 0.0  # monotonic time when the listener is polled again; 0: it is polled now
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listener = _listen(path)
        self._file = SocketFile(path)
        self._lost_file = False
        self._selector.register(self._wake_fd, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = SupervisedThread("stream", self._run, on_failure=self._hang_up)

    @property
    def capacity(self) -> tuple[int, int]:
        """Records that wait for the server's thread, and the maximum."""
        return len(self._queue), _QUEUE

    @property
    def clients(self) -> int:
        """The number of open connections."""
        return len(self._clients)

    def start(self, answer: Answer, refuses: Refuses = lambda connection: False) -> None:
        """Starts serving.

        `answer(op, request)` makes the result of a request, in the server's thread; an Error is sent to the
        client. `refuses(connection)` rejects a peer.
        """
        self._answer, self._refuses = answer, refuses
        self._thread.start()

    def close(self) -> None:
        """Stops serving and removes the socket."""
        self._stopping = True
        self._thread.stop()
        self._wake()
        self._thread.join(2.0)
        for client in list(self._clients.values()):
            client.connection.close()
        self._listener.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def as_left(self) -> bool:
        """Returns True if new clients reach the socket by its path. Callable from any thread."""
        return self._file.is_there()

    def renew(self) -> None:
        """Creates the socket's file again. Clients that are connected stay so. Callable from any thread."""
        self._lost_file = True
        self._wake()

    def _listen_again(self) -> None:
        self._lost_file = False
        if self.as_left():
            return
        try:
            fresh = _listen(self.path)
        except (Error, OSError):  # the watchdog asks again
            return
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._listener)
        self._listener.close()
        self._listener, self._file = fresh, SocketFile(self.path)
        self._accept_at = 0.0
        self._selector.register(fresh, selectors.EVENT_READ)

    def _hang_up(self) -> None:
        """Closes all clients: the pending data of one may have caused the failure."""
        for client in list(self._clients.values()):
            self._drop(client)

    def recent(self, kind: str, most: int) -> list[Record]:
        """Returns the last records of a kind, the newest first. Callable from any thread."""
        for _ in range(8):
            try:
                found = [record for record in self._history if record.get("kind") == kind]
                return found[: -most - 1 : -1]
            except RuntimeError:  # one was added meanwhile
                continue
        return []

    def publish(self, record: Record) -> None:
        """Queues a finished record for all matching subscribers and for the history."""
        self._put(record)

    def offer(self, render: Render, event: Any, container: Container | None) -> None:
        """Queues an event that a client follows; `render` makes its record, in the server's thread."""
        self._put(_Offered(render, event, container))

    def wants_probe(self, label: str) -> bool:
        """Returns True if a client follows the events of that custom probe."""
        return bool(self._probes) and (label in self._probes or ALL_PROBES in self._probes)

    def _put(self, item: _Offered | Record) -> None:
        if len(self._queue) == _QUEUE:
            self.lost += 1
            return
        self._queue.append(item)
        # The server clears `_awake` before it drains, so a later item wakes it again.
        if not self._awake:
            self._awake = True
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        while not self._stopping:
            for key, mask in self._selector.select(self._timeout()):
                if key.fd == self._wake_fd:
                    # In this order: otherwise a wake-up in between would be lost.
                    os.eventfd_read(self._wake_fd)
                    self._awake = False
                elif key.fileobj is self._listener:
                    self._accept()
                elif client := self._clients.get(key.fd):
                    self._serve(client, mask)
            self._distribute()
            self._expire()
            if self._lost_file:
                self._listen_again()
            if self._accept_at and self._accept_at <= time.monotonic():
                self._accept_at = 0.0
                self._selector.register(self._listener, selectors.EVENT_READ)

    def _timeout(self) -> float | None:
        if self._accept_at:
            return ACCEPT_PAUSE
        return 5.0 if self._clients else None

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if cannot_accept(error):
                self._selector.unregister(self._listener)
                self._accept_at = time.monotonic() + ACCEPT_PAUSE
            return
        with contextlib.suppress(OSError):
            connection.setblocking(False)
            if self._refuses(connection):
                connection.close()
                return
            if len(self._clients) >= _MAX_CLIENTS:
                connection.send(b'{"ok":false,"error":"too many clients"}\n')
                connection.close()
                return
            self._clients[connection.fileno()] = _Client(connection)
            self._selector.register(connection, selectors.EVENT_READ)

    def _serve(self, client: _Client, mask: int) -> None:
        try:
            if mask & selectors.EVENT_READ:
                data = client.connection.recv(_MAX_REQUEST)
                if not data:
                    return self._drop(client)
                if client.subscription is None:
                    self._take(client, data)
            self._flush(client)
        except BlockingIOError:
            return None
        except OSError:
            self._drop(client)
        return None

    def _take(self, client: _Client, data: bytes) -> None:
        client.request += data
        while client.subscription is None and not client.closing and b"\n" in client.request:
            line, _, rest = client.request.partition(b"\n")
            client.request = bytearray(rest)
            client.deadline = time.monotonic() + _REQUEST_SECONDS
            self._handle(client, bytes(line))
        if len(client.request) > _MAX_REQUEST or len(client.out) > 16 * _MAX_BEHIND:
            client.closing = True

    def _handle(self, client: _Client, line: bytes) -> None:
        try:
            request = json.loads(line)
            if not isinstance(request, dict) or not isinstance(request.get("op"), str):
                raise Error('a request is {"op": "..."}')
            if request["op"] == "events":
                self._subscribe(client, request)
                return
            reply: dict[str, Any] = {"ok": True, "result": self._answer(request["op"], request)}
        except (ValueError, RecursionError):
            reply = {"ok": False, "error": "not a line of JSON"}
        except Error as error:
            reply = {"ok": False, "error": error.message, "hint": error.hint}
        except Exception as error:  # a bug must not end the thread that serves all clients
            self._guard.failed(error)
            reply = {"ok": False, "error": f"internal error: {type(error).__name__}: {error}"}
        client.send(line_of(reply), may_drop=False)

    def _subscribe(self, client: _Client, request: Mapping[str, Any]) -> None:
        subscription = Subscription.from_request(request)
        client.send(b'{"ok":true}\n', may_drop=False)
        for record in list(self._history):
            if subscription.wants(record) and subscription.recent(record):
                client.send(line_of(record), may_drop=False)
        if request.get("follow") is True:
            client.subscription = subscription
            self._want()
        else:
            client.closing = True

    def _want(self) -> None:
        wanted = bytearray(EVENT_MAX)
        for client in self._clients.values():
            for kind in client.subscription.kinds if client.subscription else ():
                wanted[kind] = 1
        self.wanted[:] = wanted
        subscriptions = [client.subscription for client in self._clients.values() if client.subscription]
        self._probes = frozenset().union(*(subscription.probes for subscription in subscriptions))

    def _distribute(self) -> None:
        subscribers = [client for client in self._clients.values() if client.subscription]
        for _ in range(len(self._queue)):
            item = self._queue.popleft()
            if not isinstance(item, _Offered):
                record = item
                self._history.append(record)
            else:
                try:
                    record = item.render(item.event, item.container)
                except Exception as error:  # a bug loses only one record
                    self._guard.failed(error)
                    continue
            line = b""
            for client in subscribers:
                if client.subscription and client.subscription.wants(record):
                    line = line or line_of(record)
                    if not client.send(line, may_drop=True):
                        self.missed += 1
        for client in subscribers:
            self._flush_safely(client)

    def _flush_safely(self, client: _Client) -> None:
        try:
            self._flush(client)
        except OSError:
            self._drop(client)

    def _flush(self, client: _Client) -> None:
        while client.out:
            try:
                del client.out[: client.connection.send(client.out[: 1 << 18])]
            except BlockingIOError:
                break
        if client.closing and not client.out:
            return self._drop(client)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.out else 0)
        self._selector.modify(client.connection, events)
        return None

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.connection.fileno(), None) is None:
            return
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.connection)
        client.connection.close()
        self._want()

    def _expire(self) -> None:
        now = time.monotonic()
        for client in list(self._clients.values()):
            if client.subscription is None and client.deadline < now:
                self._drop(client)


def _listen(path: Path) -> socket.socket:
    """Returns a listening socket at `path`, never accessible to others, even between bind and chmod."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.setblocking(False)
    mask = os.umask(0o177)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # left by an agent that was killed: this agent holds the lock
        listener.bind(str(path))
        listener.listen(2 * _MAX_CLIENTS)  # with a full backlog, a waiting client gets EAGAIN
    except OSError as error:
        listener.close()
        raise Error(
            f"cannot listen on {path}: {error.strerror or error}", hint="choose with `--socket PATH`"
        ) from error
    finally:
        os.umask(mask)
    return listener
