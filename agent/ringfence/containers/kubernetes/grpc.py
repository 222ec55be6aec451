# SPDX-License-Identifier: Apache-2.0
"""Unary gRPC calls over HTTP/2 (RFC 9113) on a Unix socket, one at a time, each with a deadline.

Hand-written because of the size: grpcio takes 25 MB of memory, and with its 19 MB of files doubles the image;
h2 takes 1.5 MB that the agent's budget does not have (docs/adr/0023-cri-client.md). One connection is kept;
if it is dead, a call is repeated once on a new one.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from ringfence.containers.kubernetes import hpack

__all__ = ["Channel", "GrpcError"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7  # kinds of frames
_WINDOW_UPDATE, _CONTINUATION = 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW = 1, 2, 4  # settings
_MESSAGE_MAX = 4 << 20
_PREFIX = 5  # bytes before a message
_FRAME_MAX = 1 << 14  # HTTP/2's default, as the setting is not sent
# More than a message that is too long takes: the server could not send its end, and the call would time out.
_WINDOW = _MESSAGE_MAX + _FRAME_MAX
_HEADERS_MAX = 1 << 14  # of one call, with its trailers
_FRAMES_MAX = 4096  # of one call
_STREAMS_MAX = 1 << 30


class GrpcError(Exception):
    """The call failed. `status` is gRPC's number (5: not found), or -1 if the connection failed."""

    def __init__(self, text: str, status: int = -1) -> None:
        super().__init__(text)
        self.status = status


class _Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


class Channel:
    """Calls on one socket. For use by one thread."""

    def __init__(self, path: Path, timeout: float = 1.0) -> None:
        self.path, self._timeout = path, timeout
        self._socket: socket.socket | None = None
        self._stream = 1
        self._buffer = b""

    def call(self, method: str, message: bytes) -> bytes:
        """Calls `/package.Service/Method` and returns its response. Raises GrpcError."""
        end = time.monotonic() + self._timeout
        fresh = self._socket is None
        try:
            return self._try(method, message, end)
        except GrpcError as error:
            if fresh or error.status != -1 or time.monotonic() >= end:
                raise
        return self._try(method, message, end)  # the kept connection was dead

    def close(self) -> None:
        """Closes the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _try(self, method: str, message: bytes, end: float) -> bytes:
        try:
            self._open(end)
            return self._exchange(method, message, end)
        except (OSError, hpack.HpackError) as error:
            self.close()
            text = "response timed out" if isinstance(error, TimeoutError) else str(error)
            raise GrpcError(f"{self.path}: {text}") from error
        except GrpcError as error:
            if error.status == -1:
                self.close()
            raise

    def _open(self, end: float) -> None:
        if self._socket is not None:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(_left(end))
            sock.connect(str(self.path))
            values = ((_TABLE_SIZE, 0), (_ENABLE_PUSH, 0), (_INITIAL_WINDOW, _WINDOW))
            settings = b"".join(struct.pack(">HI", key, value) for key, value in values)
            window = struct.pack(">I", _MESSAGE_MAX)
            sock.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, window))
        except OSError:
            sock.close()
            raise
        self._socket, self._stream, self._buffer = sock, 1, b""

    def _exchange(self, method: str, message: bytes, end: float) -> bytes:
        stream, self._stream = self._stream, self._stream + 2
        fields = (
            (":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"),
            ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "ringfence"),
        )  # fmt: skip
        body = b"\0" + struct.pack(">I", len(message)) + message
        self._send(
            _frame(_HEADERS, _END_HEADERS, stream, hpack.encode(fields))
            + _frame(_DATA, _END_STREAM, stream, body),
            end,
        )
        data, headers = self._collect(stream, end)
        if self._stream > _STREAMS_MAX:
            self.close()
        status = headers.get("grpc-status", "")
        if status != "0":
            text = unquote(headers.get("grpc-message", ""))[:300] or f"HTTP {headers.get(':status', '?')}"
            known = status.isascii() and status.isdigit() and len(status) < 4
            raise GrpcError(f"{self.path}: {text}", int(status) if known else -1)
        whole = len(data) >= _PREFIX and len(data) - _PREFIX == int.from_bytes(data[1:_PREFIX], "big")
        if not whole or data[0]:
            raise GrpcError(f"{self.path}: incomplete message in the response")
        return bytes(data[_PREFIX:])

    def _collect(self, stream: int, end: float) -> tuple[bytearray, dict[str, str]]:
        """Reads data and headers of a stream until it ends."""
        data, headers, block, last = bytearray(), dict[str, str](), bytearray(), False
        size_of_headers = 0
        for _ in range(_FRAMES_MAX):
            frame = self._read(end)
            if frame.kind in (_SETTINGS, _PING) and not frame.flags & _ACK:
                answer = frame.payload if frame.kind == _PING else b""
                self._send(_frame(frame.kind, _ACK, 0, answer), end)
            elif frame.kind == _DATA and frame.payload:
                # also for an abandoned stream, as the window belongs to the connection
                self._send(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", len(frame.payload))), end)
            if frame.kind == _GOAWAY or (frame.kind == _RST_STREAM and frame.stream == stream):
                raise GrpcError(f"{self.path}: the server aborted the call")
            if frame.stream != stream:
                continue
            if frame.kind == _DATA:
                data += _content(frame)
            elif frame.kind in (_HEADERS, _CONTINUATION):
                block += _content(frame) if frame.kind == _HEADERS else frame.payload
                size_of_headers += len(frame.payload)
                if frame.flags & _END_HEADERS:
                    headers.update(hpack.decode(bytes(block)))
                    block.clear()
            if len(data) > _PREFIX + _MESSAGE_MAX or size_of_headers > _HEADERS_MAX:
                raise GrpcError(f"{self.path}: the response is too long")
            last = last or (frame.kind in (_DATA, _HEADERS) and bool(frame.flags & _END_STREAM))
            if last and not block:
                return data, headers
        raise GrpcError(f"{self.path}: the response does not end")

    def _send(self, data: bytes, end: float) -> None:
        assert self._socket is not None
        self._socket.settimeout(_left(end))
        self._socket.sendall(data)

    def _read(self, end: float) -> _Frame:
        head = self._exactly(9, end)
        length = int.from_bytes(head[:3], "big")
        if length > _FRAME_MAX:
            raise GrpcError(f"{self.path}: a frame is too long")
        stream = int.from_bytes(head[5:9], "big") & 0x7FFFFFFF
        return _Frame(head[3], head[4], stream, self._exactly(length, end))

    def _exactly(self, count: int, end: float) -> bytes:
        assert self._socket is not None
        while len(self._buffer) < count:
            self._socket.settimeout(_left(end))
            more = self._socket.recv(65536)
            if not more:
                raise GrpcError(f"{self.path}: the server closed the connection")
            self._buffer += more
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("response timed out")
    return left


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _content(frame: _Frame) -> bytes:
    """Returns the payload without padding and priority."""
    payload = frame.payload
    with contextlib.suppress(IndexError):
        if frame.flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]]
    return payload[5:] if frame.kind == _HEADERS and frame.flags & _PRIORITY else payload
