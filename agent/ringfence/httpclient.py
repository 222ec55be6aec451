# SPDX-License-Identifier: Apache-2.0
"""One HTTP request that ends at its deadline, whatever the other side does: hangs, drips, never finishes its
handshake.

http.client's own time-out is that of one read: a byte now and then holds a request for ever. So every step of
the socket below it has the time that is left. No redirects, no proxies, no cookies, no connection that is
kept. Imported only where there is somebody to ask: TLS takes a while to load.
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
    "dial",
    "is_unreachable",
    "reason_of",
    "secure",
    "target_of",
    "tls_context",
]

#: what a request may raise; a ValueError or an AttributeError would be a bug of ours
FAILURES = (OSError, http.client.HTTPException)
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
_CONNECT_S = 10.0  # of a request's time, to be connected with all addresses of a name
_SHARE_S = 1.0  # the least of it for one address: packets are lost, and sent again
_KEEPALIVE_IDLE_S, _KEEPALIVE_EVERY_S, _KEEPALIVE_TIMES = 30, 10, 3
_UNACKNOWLEDGED_MS = 30_000
_BUFFER = 1 << 14


class Target(NamedTuple):
    """Where a URL leads. `path` has no fragment, and begins with a slash."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def place(self) -> str:
        """For logs: a path or a query may be a secret."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def target_of(url: str) -> Target:
    """The parts of an http or https URL."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(tls, parts.hostname or "", parts.port or (443 if tls else 80), path)


def tls_context(ca: Path | None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Who is believed (`ca`; None: the system's list), and who we are (PEM; the key may be in the same file).

    Made anew for each connection: both files are replaced while the agent runs. Raises OSError.
    """
    subject = ca
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        if ca is not None:
            # Python 3.13 asks what RFC 5280 asks of public authorities; those of clusters and companies
            # often lack an Authority Key Identifier. Names, times and signatures are checked as ever.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if certificate is not None:
            subject = certificate
            context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise OSError(error.errno or errno.EINVAL, f"{subject}: {reason_of(error)}") from error
    return context


def reason_of(error: BaseException) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {error.verify_message}"[:200]
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:200]


def is_unreachable(error: BaseException) -> bool:
    """Whether no connection was made at all, so that what was to be sent has no part in it."""
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError, socket.gaierror)):
        return True
    return isinstance(error, OSError) and error.errno in _UNREACHABLE


def dial(
    host: str, port: int, seconds: float, opened: Callable[[socket.socket], object] = lambda sock: None
) -> socket.socket:
    """A TCP connection with the first address of a name that answers, within 10 s or less. Raises OSError.

    An address that says nothing has its share of the time, no more. `opened` is told of each socket before it
    connects.
    """
    end = time.monotonic() + min(_CONNECT_S, seconds)
    failure = OSError(errno.EADDRNOTAVAIL, "no address")
    found = list(_addresses(host, port))
    for number, (family, kind, protocol, _, address) in enumerate(found):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "not connected in time")
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that this kernel does not have
            failure = error
            continue
        opened(sock)
        try:
            sock.settimeout(min(left, max(left / (len(found) - number), _SHARE_S)))
            sock.connect(address)
            _watch_over(sock)
        except OSError as error:
            failure = error
            sock.close()
        else:
            return sock
    raise failure


def secure(sock: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    """TLS on a connection; the caller calls `do_handshake`, which has the socket's time-out as a whole."""
    return context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)


class Connection(http.client.HTTPConnection):
    """http.client's, with one deadline for all of it. `timeout` counts from construction, in seconds.

    For a `with` block, which frees the socket: http.client's own `close` leaves it to the answer.
    """

    def __init__(self, target: Target, timeout: float, context: ssl.SSLContext | None = None) -> None:
        """`context` is needed for TLS. Nothing is connected yet."""
        super().__init__(target.host, target.port)
        self.default_port = 443 if target.tls else 80  # else the port stands in the Host header
        self._target, self._context = target, context
        self._end = time.monotonic() + timeout
        self._under: socket.socket | None = None

    def connect(self) -> None:
        """Called by `request`. Raises OSError; TimeoutError where it takes too long."""
        sock = self._under = dial(self._target.host, self._target.port, self._left(), self._opened)
        if self._target.tls:
            assert self._context is not None
            sock = self._under = secure(sock, self._context, self._target.host)
            sock.settimeout(self._left())
            sock.do_handshake()
        self.sock = _Timed(sock, self._left)

    def cut(self) -> None:
        """End what is under way, from any thread: it fails with an OSError or HTTPException there."""
        if self._under is not None:
            with contextlib.suppress(OSError):
                # That of SSLSocket would take the session away under the thread that reads.
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
            raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
        return left


def _addresses(host: str, port: int) -> Iterator[tuple[Any, Any, int, str, Any]]:
    try:
        yield from socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label of more than 63 letters
        raise OSError(errno.EINVAL, f"{host[:80]} is no name of a host") from error


def _watch_over(sock: socket.socket) -> None:
    """A machine that vanished without a word is noticed within a minute."""
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
    """Reads from a socket, each time with what is left of the request's time."""

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
        """For the answer."""
        return io.BufferedReader(_Reader(self._sock, self._left), _BUFFER)

    def sendall(self, data: Any) -> None:
        """For the request."""
        view = memoryview(data).cast("B")
        while view:
            self._sock.settimeout(self._left())
            view = view[self._sock.send(view) :]

    def close(self) -> None:
        """Called when an answer is about to be read, too: the socket is the connection's to close."""
