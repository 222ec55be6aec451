# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server that no client can block: one thread does I/O, others compute slow answers.

It supports GET and HEAD, one request per connection, heads of at most 8 KiB. A silent or slow client
occupies a descriptor until its deadline, but no thread. With too many connections, the address with
the most loses its oldest first. So /healthz is answered whatever other clients do.
"""

from __future__ import annotations

import contextlib
import queue
import re
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ringfence.config import Listen
from ringfence.errors import ConfigError, Error, NotPermittedError
from ringfence.faults import ACCEPT_PAUSE, ErrorCounter, SupervisedThread, cannot_accept

__all__ = ["Request", "Response", "Server", "text"]

TOTAL, PER_PEER = 64, 16  # connections
_HEAD = 8192
_READ_S, _ANSWER_S, _WRITE_S, _DRAIN_S = 5.0, 30.0, 15.0, 1.0  # seconds that each part of a request may take
_WORKERS = 2
_TURN_S = 0.5


class Request(NamedTuple):
    """The used parts of a request. `path` is as sent, without the query."""

    method: str
    path: str
    host: str = ""
    gzip: bool = False  # the client accepts it
    openmetrics: bool = False  # the client prefers it to the text format


class Response(NamedTuple):
    """The answer; the headers for length and connection are added."""

    status: str
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def text(status: str, body: str) -> Response:
    """Returns a response with plain text."""
    return Response(status, "text/plain; charset=utf-8", body.encode())


class _Connection:
    """One client. `deadline` is on the monotonic clock."""

    __slots__ = ("deadline", "inbox", "method", "outbox", "peer", "reading", "sock")

    def __init__(self, sock: socket.socket, peer: str, now: float) -> None:
        self.sock, self.peer = sock, peer
        self.deadline = now + _READ_S
        self.inbox = bytearray()
        self.outbox: list[memoryview] = []  # the head, and the body, which other connections share
        self.method = ""
        self.reading = True  # its request is not complete yet


class Server:
    """Listens from construction on, and answers after `start`.

    `quick` is called by the thread that serves all connections: it answers immediately, or returns
    None; then `slow` is called in another thread.
    """

    def __init__(
        self,
        listen: Listen,
        key: str,
        quick: Callable[[Request], Response | None],
        slow: Callable[[Request], Response] | None = None,
    ) -> None:
        """`key` is the configuration section of the address. Without `slow`, `quick` answers everything.

        Raises Error if it cannot listen.
        """
        self._quick, self._slow = quick, slow
        self._listener = _listen(listen, key)
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._connections: dict[_Connection, None] = {}  # the oldest first
        self._work: queue.SimpleQueue[tuple[_Connection, Request] | None] = queue.SimpleQueue()
        self._done: deque[tuple[_Connection, Response]] = deque()
        self._stopping = threading.Event()
        self._accept_at = 0.0  # earliest time of the next accept; 0: now
        self._guard = ErrorCounter(key)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, self._answered)
        self._threads = [SupervisedThread(key, self._run, on_failure=self._drop_all)]
        workers = range(_WORKERS) if slow is not None else ()
        self._threads += [SupervisedThread(f"{key}-{n}", self._compute) for n in workers]

    @property
    def address(self) -> Listen:
        """The address, with the port that the kernel chose if 0 was configured."""
        host, port = self._listener.getsockname()[:2]
        return Listen(str(host), int(port))

    def start(self) -> None:
        """Starts answering requests, in threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stops listening; aborts open connections."""
        self._stopping.set()
        self._nudge()
        for thread in self._threads:
            thread.stop()
            self._work.put(None)
        self._threads[0].join(2.0)
        self._drop_all()
        self._selector.close()
        for sock in (self._listener, self._wake, self._woken):
            sock.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select(_TURN_S if not self._accept_at else ACCEPT_PAUSE):
                key.data()
            now = time.monotonic()
            for late in [connection for connection in self._connections if connection.deadline < now]:
                self._drop(late)
            if self._accept_at and self._accept_at <= now:
                self._accept_at = 0.0
                self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        for _ in range(TOTAL):
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if cannot_accept(error):
                    self._selector.unregister(self._listener)
                    self._accept_at = time.monotonic() + ACCEPT_PAUSE
                    return
                continue  # the client disconnected before it was accepted
            sock.setblocking(False)
            made = _Connection(sock, str(address[0]).removeprefix("::ffff:"), time.monotonic())
            if self._limit_connections(made.peer):
                self._connections[made] = None
                self._selector.register(sock, selectors.EVENT_READ, lambda made=made: self._read(made))
            else:
                sock.close()

    def _limit_connections(self, peer: str) -> bool:
        """Closes a connection if there are too many; returns False if the new one must be closed."""
        counts = Counter(connection.peer for connection in self._connections)
        if counts[peer] >= PER_PEER:
            return self._evict(peer)
        if len(self._connections) >= TOTAL:
            return any(self._evict(other) for other, _ in counts.most_common())
        return True

    def _evict(self, peer: str) -> bool:
        """Closes the address's oldest connection, preferably one with an incomplete request."""
        theirs = [connection for connection in self._connections if connection.peer == peer]
        victim = next(
            (connection for connection in theirs if connection.reading), theirs[0] if theirs else None
        )
        if victim is not None:
            self._drop(victim)
        return victim is not None

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
        elif connection.reading:  # else: unexpected data, discarded until the client disconnects
            connection.inbox = (connection.inbox + data).lstrip(b"\r\n")  # RFC 9112, 2.2: empty lines before
            if (end := _end_of_head(connection.inbox)) >= 0:
                self._handle(connection, _parse(bytes(connection.inbox[:end])))
            elif len(connection.inbox) > _HEAD:
                self._send(connection, text("431 Request Header Fields Too Large", "too much\n"))

    def _handle(self, connection: _Connection, request: Request | None) -> None:
        if request is None:
            self._send(connection, text("400 Bad Request", "not a request\n"))
        elif request.method not in ("GET", "HEAD"):
            refusal = text("405 Method Not Allowed", "only GET\n")
            self._send(connection, refusal._replace(headers=(("Allow", "GET, HEAD"),)))
        else:
            connection.method = request.method
            response = self._quick(request)
            if response is not None or self._slow is None:
                self._send(connection, response or text("404 Not Found", "not here\n"))
                return
            connection.reading, connection.deadline = False, time.monotonic() + _ANSWER_S
            self._selector.unregister(connection.sock)
            self._work.put((connection, request))

    def _compute(self) -> None:
        while not self._stopping.is_set():
            found = self._work.get()
            if found is None or self._slow is None:
                return
            connection, request = found
            if connection not in self._connections:
                continue
            try:
                response = self._slow(request)
            except Exception as error:
                self._guard.failed(error)
                response = text("500 Internal Server Error", "a bug of the agent\n")
            self._done.append((connection, response))
            self._nudge()

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def _answered(self) -> None:
        with contextlib.suppress(OSError):
            self._woken.recv(4096)
        while self._done:
            connection, response = self._done.popleft()
            if connection in self._connections:
                self._send(connection, response)

    def _send(self, connection: _Connection, response: Response) -> None:
        connection.reading, connection.deadline = False, time.monotonic() + _WRITE_S
        lines = [f"HTTP/1.1 {response.status}", f"Content-Type: {response.kind}",
                 f"Content-Length: {len(response.body)}", "Connection: close",
                 *(f"{name}: {value}" for name, value in response.headers), "", ""]  # fmt: skip
        body = b"" if connection.method == "HEAD" else response.body
        connection.outbox = [
            memoryview(part) for part in ("\r\n".join(lines).encode("latin-1"), body) if part
        ]
        self._write(connection)

    def _write(self, connection: _Connection) -> None:
        try:
            connection.outbox = _after(connection.outbox, connection.sock.sendmsg(connection.outbox))
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
            return
        if connection.outbox:
            self._want(connection, selectors.EVENT_WRITE, lambda: self._write(connection))
            return
        # If data is unread at close, the kernel resets the connection and discards the answer.
        connection.deadline = time.monotonic() + _DRAIN_S
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_WR)
        self._want(connection, selectors.EVENT_READ, lambda: self._read(connection))

    def _want(self, connection: _Connection, event: int, call: Callable[[], None]) -> None:
        try:
            self._selector.modify(connection.sock, event, call)
        except KeyError:  # it was closed while its answer was computed
            self._selector.register(connection.sock, event, call)

    def _drop(self, connection: _Connection) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()
        self._connections.pop(connection, None)

    def _drop_all(self) -> None:
        for connection in list(self._connections):
            self._drop(connection)


def _after(parts: list[memoryview], sent: int) -> list[memoryview]:
    """Returns what remains of the parts after so many bytes."""
    while parts and sent >= len(parts[0]):
        sent -= len(parts[0])
        parts = parts[1:]
    return [parts[0][sent:], *parts[1:]] if parts else []


def _end_of_head(data: bytearray) -> int:
    """Returns the offset of the empty line; -1: not received yet."""
    found = [at for at in (data.find(b"\r\n\r\n"), data.find(b"\n\n")) if at >= 0]
    return min(found, default=-1)


def _parse(head: bytes) -> Request | None:
    """Parses the head of a request (the needed parts of RFC 9112)."""
    first, *lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    named = [
        (name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
    ]
    hosts = [value for name, value in named if name == "host"]
    if len(hosts) > 1 or (not hosts and words[2] != "HTTP/1.0"):
        return None
    headers = dict(named)
    path, host = words[1].partition("?")[0], headers.get("host", "")
    if absolute := re.fullmatch(r"(?i:http)://([^/]+)(/.*)?", path):
        host, path = absolute[1], absolute[2] or "/"
    if not path.startswith("/"):
        return None
    encodings = {name: weight for name, weight, _ in _weighted(headers.get("accept-encoding", ""))}
    takes_gzip = encodings.get("gzip", 0.0) > 0
    return Request(words[0], path, host, takes_gzip, _prefers_openmetrics(headers.get("accept", "")))


def _weighted(header: str) -> Iterator[tuple[str, float, list[str]]]:
    """Yields the choices of an Accept header: name, weight (0: refused), other parameters."""
    for one in header.replace(" ", "").lower().split(","):
        name, *parameters = one.split(";")
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        value = float(weight) if re.fullmatch(r"[01](\.[0-9]{0,3})?", weight) else 0.0
        yield name, value, parameters


def _prefers_openmetrics(accept: str) -> bool:
    """Returns True if the client asks for OpenMetrics 1.0, and at least as much as for plain text."""
    weights = {"openmetrics": 0.0, "text": 0.0}
    for kind, value, parameters in _weighted(accept):
        version = next((part[8:] for part in parameters if part.startswith("version=")), "")
        if kind == "application/openmetrics-text" and version in ("", "1.0.0", "1.0"):
            weights["openmetrics"] = max(weights["openmetrics"], value)
        elif kind in ("text/plain", "text/*"):
            weights["text"] = max(weights["text"], value)
    return weights["openmetrics"] > 0 and weights["openmetrics"] >= weights["text"]


def _listen(listen: Listen, key: str) -> socket.socket:
    """Returns a listening socket. Raises Error with the cause."""
    if listen.host == "::" and not _has_ipv6():
        listen = Listen("0.0.0.0", listen.port)
    hint = f"another program may use it: choose with `--{key}-listen HOST:PORT`, or `off`"
    sock: socket.socket | None = None
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET)
        # Recently closed connections (TIME_WAIT) must not prevent a restarted agent from listening.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:  # `::` means both families, regardless of the node's bindv6only
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((listen.host, listen.port))
        sock.listen(TOTAL)
        sock.setblocking(False)
    except OSError as error:
        if sock is not None:
            sock.close()
        if isinstance(error, PermissionError):
            raise NotPermittedError(f"cannot listen on {listen}: {error.strerror}", hint=hint) from error
        if isinstance(error, socket.gaierror):
            text = f"{key}.listen: {listen.host!r} is not an address of this machine"
            raise ConfigError(text, hint=hint) from error
        raise Error(f"cannot listen on {listen}: {error.strerror}", hint=hint) from error
    return sock


def _has_ipv6() -> bool:
    """Returns False on kernels started with ipv6.disable=1: they have no such sockets."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True
