# SPDX-License-Identifier: Apache-2.0
"""Receivers without HTTP: syslog (RFC 5424) by udp, tcp or a Unix socket, and a rotated file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ringfence import __version__
from ringfence.export.jsonl import dumps
from ringfence.export.sinks.http import HttpSettings
from ringfence.export.sinks.native import headline, part
from ringfence.export.sinks.sender import Record, Unavailable
from ringfence.files import forget_cache
from ringfence.httpclient import dial, is_unreachable, reason_of, secure
from ringfence.severity import number_of

__all__ = ["RotatedFile", "Syslog", "syslog_line"]

Render = Callable[[Record], Mapping[str, Any]]
_FACILITY = 13  # log audit, RFC 5424 table 1
#: the severities as RFC 5424 numbers: informational, notice, warning, error, critical
_SEVERITY = (6, 5, 4, 3, 2)
_DATAGRAM_MAX = 8192  # a receiver must take 480 bytes and should take 2048 (RFC 5426, 3.2); most take 8 KiB
_LOOK_UP_S = 60.0  # interval of name look-ups for datagram receivers
_PORTS = {"udp": 514, "tcp": 514, "tls": 6514}  # RFC 5426, RFC 6587, RFC 5425
_NOT_PRINTABLE = re.compile(r"[^\x21-\x7e]")


def syslog_line(record: Record, render: Render, size_max: int = 0, *, enterprise: int = 0) -> bytes:
    """Returns one message. If it is longer than `size_max`, it has its headline instead of the record.

    `enterprise` is the private enterprise number for structured data; 0: there is none.
    """
    priority = _FACILITY * 8 + _SEVERITY[number_of(record.get("severity")) - 1]
    rule, container = part(record, "rule"), part(record, "container")
    elements = {
        **part(record, "labels"),
        "id": record.get("id"),
        "rule": rule.get("id"),
        "outcome": record.get("outcome"),
        "mechanism": record.get("mechanism"),
        "attack": ",".join(rule.get("attack") or []),
        "namespace": container.get("namespace"),
        "pod": container.get("pod"),
        "container": container.get("id"),
    }
    head = (
        f"<{priority}>1 {record.get('time') or '-'} {_word(record.get('node'), 255)} ringfence {os.getpid()} "
        f"{_word(rule.get('id'), 32)} {_structured(elements, enterprise)} "
    ).encode()
    # ASCII only: no byte order mark is needed (RFC 5424, 6.4), and every receiver can read it
    message = json.dumps(render(record), separators=(",", ":"), default=str).encode()
    if size_max and len(head) + len(message) > size_max:
        message = headline(record).encode("ascii", "backslashreplace")[: max(0, size_max - len(head))]
    return head + message


def _word(value: Any, length: int) -> str:
    return _NOT_PRINTABLE.sub("_", str(value or ""))[:length] or "-"


def _structured(values: Mapping[str, Any], enterprise: int) -> str:
    """Returns STRUCTURED-DATA: `origin`, which IANA registered (RFC 5424, 7.2), and the alert's words.

    A name without `@` must be registered, and one with `@` needs an enterprise number, which Ringfence has
    not: the operator can give theirs.
    """
    origin = f'[origin software="ringfence" swVersion="{_quoted(__version__)}"]'
    if not enterprise:
        return origin
    pairs = []
    for name, value in values.items():
        if value:
            text = str(value).encode("ascii", "backslashreplace").decode()
            pairs.append(f'{name}="{_quoted(text)}"')
    return f"{origin}[ringfence@{enterprise} {' '.join(pairs)}]" if pairs else origin


def _quoted(text: str) -> str:
    return re.sub(r'(["\\\]])', r"\\\1", text)


class Syslog:
    """Octet counting on streams (RFC 6587, 3.4.1; RFC 5425 with TLS), else one message per datagram.

    Syslog has no answers. By tcp, a batch counts as sent when the remote kernel has acknowledged all of
    it; by udp, when it was sent: datagrams can get lost.
    """

    batch_records, batch_bytes = 64, 1 << 18

    def __init__(
        self, name: str, address: str, render: Render, settings: HttpSettings, enterprise: int = 0
    ) -> None:
        self.name, self._render, self._settings, self._enterprise = name, render, settings, enterprise
        parts = urlsplit(address)
        self._scheme, self._path = parts.scheme, parts.path
        self._target = (parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0))
        self._place = self._path or f"{self._target[0]}:{self._target[1]}"
        self._socket: socket.socket | None = None
        self._stream = False
        self._looked_up = 0.0  # on the monotonic clock

    def send(self, records: Sequence[Record]) -> None:
        """Sends all records. Raises Unavailable."""
        try:
            sock = self._connected()
            if self._stream:
                lines = [syslog_line(record, self._render, enterprise=self._enterprise) for record in records]
                sock.sendall(b"".join(b"%d %s" % (len(line), line) for line in lines))
                self._acknowledged(sock)
            else:
                for record in records:
                    line = syslog_line(record, self._render, _DATAGRAM_MAX, enterprise=self._enterprise)
                    sock.send(line)
        except OSError as error:
            self.close()
            reason = "timeout" if isinstance(error, TimeoutError) else "connection"
            text = f"syslog {self._place}: {reason_of(error)}"
            raise Unavailable(reason, text, blameless=is_unreachable(error)) from error

    def close(self) -> None:
        """Closes the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is not None and not self._stale(self._socket):
            return self._socket
        self.close()
        if self._scheme == "unix":
            self._socket, self._stream = self._unix()
        elif self._scheme in ("tcp", "tls"):
            self._socket, self._stream = self._dial(), True
        else:
            found = self._look_up()[0]
            self._socket, self._stream = socket.socket(found[0], found[1]), False
            self._socket.connect(found[4])
        self._socket.settimeout(self._settings.timeout)
        return self._socket

    def _stale(self, sock: socket.socket) -> bool:
        """Returns True if the connection is known to be dead or the receiver's address changed."""
        if self._stream:
            return _hung_up(sock)
        if self._scheme != "udp" or time.monotonic() - self._looked_up < _LOOK_UP_S:
            return False
        try:
            return sock.getpeername() not in [found[4] for found in self._look_up()]
        except OSError:  # no name server: the address may still be right
            return False

    def _look_up(self) -> list[Any]:
        self._looked_up = time.monotonic()
        return socket.getaddrinfo(*self._target, type=socket.SOCK_DGRAM)

    def _dial(self) -> socket.socket:
        began = time.monotonic()
        sock = dial(*self._target, self._settings.timeout)
        if self._scheme == "tcp":
            return sock
        tls = secure(sock, self._settings.context(), self._target[0])
        try:
            tls.settimeout(max(0.1, self._settings.timeout - (time.monotonic() - began)))
            tls.do_handshake()
        except OSError:
            tls.close()
            raise
        return tls

    def _unix(self) -> tuple[socket.socket, bool]:
        """Connects to /dev/log, which is a datagram socket on most systems and a stream on some."""
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(socket.AF_UNIX, kind)
            sock.settimeout(self._settings.timeout)
            try:
                sock.connect(self._path)
            except OSError as error:
                sock.close()
                if error.errno != errno.EPROTOTYPE or kind is socket.SOCK_STREAM:
                    raise
            else:
                return sock, kind is socket.SOCK_STREAM
        raise OSError(errno.EPROTOTYPE, os.strerror(errno.EPROTOTYPE))

    def _acknowledged(self, sock: socket.socket) -> None:
        """Waits until everything sent is acknowledged. Raises TimeoutError, or the connection's error."""
        if sock.family == socket.AF_UNIX:
            return
        end = time.monotonic() + self._settings.timeout
        while struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0]:
            if time.monotonic() > end:
                raise TimeoutError(errno.ETIMEDOUT, "not acknowledged")
            time.sleep(0.002)
        # A connection that was reset has nothing unacknowledged, either.
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))


def _hung_up(sock: socket.socket) -> bool:
    """Returns True if the peer closed the connection (it sends nothing otherwise)."""
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        while sock.recv(4096):  # TLS 1.3 sends tickets, which are discarded here
            pass
        return True
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        sock.settimeout(timeout)


class RotatedFile:
    """JSON lines in a file; at `size` bytes it becomes `.1`, that `.2`, and so on up to `keep`."""

    batch_records, batch_bytes = 256, 1 << 20

    def __init__(self, name: str, path: Path, render: Render, size: int, keep: int) -> None:
        self.name, self._path, self._render, self._size, self._keep = name, path, render, size, keep

    def send(self, records: Sequence[Record]) -> None:
        """Appends all records or none; a full disk is treated as an unreachable receiver."""
        lines = b"".join(
            dumps(self._render(record)).encode("utf-8", "backslashreplace") + b"\n" for record in records
        )
        try:
            if self._length() + len(lines) > self._size and self._length():
                self._rotate()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o640)
            try:
                before = os.fstat(fd).st_size
                if before and os.pread(fd, 1, before - 1) != b"\n":  # a partial line after a power cut
                    lines = b"\n" + lines
                if os.write(fd, lines) != len(lines):
                    os.ftruncate(fd, before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                forget_cache(fd)
                os.close(fd)
        except OSError as error:
            reason = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "file"
            raise Unavailable(reason, f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Does nothing: the file is open only during `send`."""

    def _length(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _rotate(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{n}") for n in range(1, self._keep + 1))]
        if not self._keep:
            self._path.unlink()
        for older, newer in zip(reversed(names), [*reversed(names)][1:], strict=False):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
