# SPDX-License-Identifier: Apache-2.0
"""HTTP requests that end at their deadline, even if the server hangs, drips or stalls its handshake.

The timeout of http.client is that of one read, so a byte now and then keeps a request alive forever. Here
every socket operation has only the remaining time. No redirects, proxies, cookies or kept connections.
Imported only if a server is configured: TLS takes a while to load.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

__all__ = [
    "FAILURES",
    "Connection",
    "Target",
    "UnixConnection",
    "dial",
    "is_unreachable",
    "reason_of",
    "secure",
    "target_of",
    "tls_context",
]

#: exceptions of a failed request; a ValueError or an AttributeError would be a bug
FAILURES = (OSError, http.client.HTTPException)
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
_CONNECT_S = 10.0  # maximum part of a request's time for connecting, over all addresses of a name
_SHARE_S = 1.0  # minimum part of it for one address, as lost packets are retransmitted
_KEEPALIVE_IDLE_S, _KEEPALIVE_EVERY_S, _KEEPALIVE_TIMES = 30, 10, 3
_UNACKNOWLEDGED_MS = 30_000
_BUFFER = 1 << 14


class Target(NamedTuple):
    """The parts of a URL. `path` has no fragment, and starts with a slash."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def place(self) -> str:
        """Host and port, for logs: path and query may be secret."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def target_of(url: str) -> Target:
    """Parses an http or https URL."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(tls, parts.hostname or "", parts.port or (443 if tls else 80), path)


def tls_context(ca: Path | None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Returns a TLS context with a CA bundle (`ca`; None: the system's) and a client certificate.

    `certificate` is a PEM file, which may include the key. The context is created for each connection,
    because the files may be replaced while the agent runs. Raises OSError.
    """
    subject = ca
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        if ca is not None:
            # Python 3.13 requires what RFC 5280 requires of public CAs; those of clusters and companies
            # often lack an Authority Key Identifier. Names, dates and signatures are still checked.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if certificate is not None:
            subject = certificate
            context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise OSError(error.errno or errno.EINVAL, f"{subject}: {reason_of(error)}") from error
    return context


def reason_of(error: BaseException) -> str:
    """Returns the reason of a failure in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"[:200]
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:200]


def is_unreachable(error: BaseException) -> bool:
    """Returns True if no connection was established, so the failure is independent of the data."""
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError, socket.gaierror)):
        return True
    return isinstance(error, OSError) and error.errno in _UNREACHABLE


def dial(
    host: str, port: int, seconds: float, opened: Callable[[socket.socket], object] = lambda sock: None
) -> socket.socket:
    """Returns a TCP connection to the first address of a name that accepts one within 10 s or less.

    An unresponsive address only uses its share of the time. `opened` is called with each socket before it
    connects. Raises OSError.
    """
    end = time.monotonic() + min(_CONNECT_S, seconds)
    failure = OSError(errno.EADDRNOTAVAIL, "no address")
    found = list(_addresses(host, port))
    for number, (family, kind, protocol, _, address) in enumerate(found):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "connect timed out")
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # this kernel lacks the address family
            failure = error
            continue
        opened(sock)
        try:
            sock.settimeout(min(left, max(left / (len(found) - number), _SHARE_S)))
            sock.connect(address)
            _set_keepalive(sock)
        except OSError as error:
            failure = error
            sock.close()
        else:
            return sock
    raise failure


def secure(sock: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    """Wraps a connection in TLS. The caller calls `do_handshake`, to which the socket's timeout applies."""
    return context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)


class Connection(http.client.HTTPConnection):
    """An HTTPConnection with one deadline, `timeout` seconds after construction.

    For use in a `with` block, which closes the socket: `close` of http.client leaves it to the response.
    """

    def __init__(self, target: Target, timeout: float, context: ssl.SSLContext | None = None) -> None:
        """`context` is needed for TLS. Nothing is connected yet."""
        super().__init__(target.host, target.port)
        self.default_port = 443 if target.tls else 80  # otherwise the Host header includes the port
        self._target, self._context = target, context
        self._end = time.monotonic() + timeout
        self._under: socket.socket | None = None

    def connect(self) -> None:
        """Connects; called by `request`. Raises OSError, TimeoutError at the deadline."""
        sock = self._under = dial(self._target.host, self._target.port, self._left(), self._opened)
        if self._target.tls:
            assert self._context is not None
            sock = self._under = secure(sock, self._context, self._target.host)
            sock.settimeout(self._left())
            sock.do_handshake()
        self.sock = _Timed(sock, self._left)

    def cut(self) -> None:
        """Aborts a request from any thread: it fails with an OSError or HTTPException in its own thread."""
        if self._under is not None:
            with contextlib.suppress(OSError):
                # SSLSocket.shutdown would drop the session while another thread reads.
                socket.socket.shutdown(self._under, socket.SHUT_RDWR)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._under is not None:
            self._under.close()

    def _opened(self, sock: socket.socket) -> None:
        self._under = sock

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "response timed out")
        return left


class UnixConnection(Connection):
    """A Connection to the server behind a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__(Target(tls=False, host="localhost", port=80, path="/"), timeout)
        self._path = path

    def connect(self) -> None:
        """Connects; called by `request`. Raises OSError, TimeoutError at the deadline."""
        sock = self._under = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._left())
        sock.connect(str(self._path))
        self.sock = _Timed(sock, self._left)


def _addresses(host: str, port: int) -> Iterator[tuple[Any, Any, int, str, Any]]:
    try:
        yield from socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label of more than 63 letters
        raise OSError(errno.EINVAL, f"{host[:80]} is not a valid host name") from error


def _set_keepalive(sock: socket.socket) -> None:
    """Enables keepalive, so that a vanished peer is detected within a minute."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S),
        (socket.TCP_KEEPINTVL, _KEEPALIVE_EVERY_S),
        (socket.TCP_KEEPCNT, _KEEPALIVE_TIMES),
        (socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS),
        (socket.TCP_NODELAY, 1),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


class _Reader(io.RawIOBase):
    """Reads from a socket, each time with the request's remaining time."""

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self._sock, self._left = sock, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._left())
        return self._sock.recv_into(buffer)


class _Timed:
    """The part of a socket that http.client uses."""

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self._sock, self._left = sock, left

    def makefile(self, mode: str) -> io.BufferedReader:
        """For the response."""
        return io.BufferedReader(_Reader(self._sock, self._left), _BUFFER)

    def sendall(self, data: Any) -> None:
        """For the request."""
        view = memoryview(data).cast("B")
        while view:
            self._sock.settimeout(self._left())
            view = view[self._sock.send(view) :]

    def close(self) -> None:
        """Does nothing: http.client calls it before it reads a response; `Connection` closes the socket."""
