# SPDX-License-Identifier: Apache-2.0
"""Unary gRPC calls over HTTP/2 on a Unix socket, one at a time, each with a deadline.

HTTP/2 is h2's, which is imported with the first connection: most nodes without Kubernetes have no such
socket. One connection is kept; if it is dead, a call is repeated once on a new one.
"""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from h2.connection import H2Connection

__all__ = ["Channel", "GrpcError"]

_MESSAGE_MAX = 4 << 20
_PREFIX = 5  # bytes before a message
_FRAME_MAX = 1 << 14  # HTTP/2's default, as the setting is not sent
# More than a message that is too long takes: the server could not send its end, and the call would time out.
_WINDOW = _MESSAGE_MAX + _FRAME_MAX
_HEADERS_MAX = 1 << 14  # of one block, unpacked


class GrpcError(Exception):
    """The call failed. `status` is gRPC's number (5: not found), or -1 if the connection failed."""

    def __init__(self, text: str, status: int = -1) -> None:
        super().__init__(text)
        self.status = status


class Channel:
    """Calls on one socket. For use by one thread."""

    def __init__(self, path: Path, timeout: float = 1.0) -> None:
        self.path, self._timeout = path, timeout
        self._socket: socket.socket | None = None
        self._http: H2Connection

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
        from h2.exceptions import H2Error

        try:
            return self._exchange(self._open(end), method, message, end)
        except (OSError, H2Error) as error:
            self.close()
            text = "response timed out" if isinstance(error, TimeoutError) else str(error)
            raise GrpcError(f"{self.path}: {text or type(error).__name__}") from error
        except GrpcError as error:
            if error.status == -1:
                self.close()
            raise

    def _open(self, end: float) -> socket.socket:
        if self._socket is not None:
            return self._socket
        self._http = _new_connection()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(_left(end))
            sock.connect(str(self.path))
        except OSError:
            sock.close()
            raise
        self._socket = sock
        return sock

    def _exchange(self, sock: socket.socket, method: str, message: bytes, end: float) -> bytes:
        stream = self._http.get_next_available_stream_id()
        fields = (
            (":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"),
            ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "ringfence"),
        )  # fmt: skip
        self._http.send_headers(stream, fields)
        self._http.send_data(stream, b"\0" + struct.pack(">I", len(message)) + message, end_stream=True)
        data, headers = self._collect(sock, stream, end)
        status = headers.get("grpc-status", "")
        if status != "0":
            text = unquote(headers.get("grpc-message", ""))[:300] or f"HTTP {headers.get(':status', '?')}"
            known = status.isascii() and status.isdigit() and len(status) < 4
            raise GrpcError(f"{self.path}: {text}", int(status) if known else -1)
        whole = len(data) >= _PREFIX and len(data) - _PREFIX == int.from_bytes(data[1:_PREFIX], "big")
        if not whole or data[0]:
            raise GrpcError(f"{self.path}: incomplete message in the response")
        return bytes(data[_PREFIX:])

    def _collect(self, sock: socket.socket, stream: int, end: float) -> tuple[bytearray, dict[str, str]]:
        """Reads data and headers of a stream until it ends."""
        from h2.events import (
            ConnectionTerminated,
            DataReceived,
            ResponseReceived,
            StreamEnded,
            StreamReset,
            TrailersReceived,
        )

        data, headers = bytearray(), dict[str, str]()
        while True:
            for event in self._events(sock, end):
                if isinstance(event, ConnectionTerminated | StreamReset):
                    raise GrpcError(f"{self.path}: the server aborted the call")
                if isinstance(event, DataReceived):
                    data += event.data or b""
                    self._http.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                    if len(data) > _PREFIX + _MESSAGE_MAX:
                        raise GrpcError(f"{self.path}: the response is too long")
                if isinstance(event, ResponseReceived | TrailersReceived):
                    for name, value in event.headers or ():
                        headers[name.decode("latin-1")] = value.decode("latin-1")
                if isinstance(event, StreamEnded):
                    self._send(sock, end)
                    return data, headers

    def _events(self, sock: socket.socket, end: float) -> list[Any]:
        """Sends what is due, and returns what the next bytes of the server mean."""
        self._send(sock, end)
        sock.settimeout(_left(end))
        more = sock.recv(65536)
        if not more:
            raise GrpcError(f"{self.path}: the server closed the connection")
        return self._http.receive_data(more)

    def _send(self, sock: socket.socket, end: float) -> None:
        if due := self._http.data_to_send():
            sock.settimeout(_left(end))
            sock.sendall(due)


def _new_connection() -> H2Connection:
    """Returns a connection with windows for the largest message, without push and compressed headers."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.settings import SettingCodes, Settings

    http = H2Connection(H2Configuration(client_side=True))
    http.local_settings = Settings(
        client=True,
        initial_values={
            SettingCodes.HEADER_TABLE_SIZE: 0,
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: _HEADERS_MAX,
        },
    )
    http.decoder.max_header_list_size = _HEADERS_MAX
    http.initiate_connection()
    http.increment_flow_control_window(_MESSAGE_MAX)
    return http


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("response timed out")
    return left
