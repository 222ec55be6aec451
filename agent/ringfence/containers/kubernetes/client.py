# SPDX-License-Identifier: Apache-2.0
"""Two ways to ask an API server: a document with an end, and a stream of lines. Both can be cut."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ringfence import __version__

__all__ = ["ApiError", "Client"]

_BODY_MAX = 8 << 20
_REQUEST_S = 30.0
_TOKEN_MAX = 1 << 16
ReadLine = Callable[[int], bytes]


class ApiError(Exception):
    """The server said no, or something that cannot be. `reason`: gone, refused, broken, too_large."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Client:
    """Asks one server, with the token of a file that may change at any time."""

    def __init__(self, url: str, token: Path | None, ca: Path | None, *, timeout: float = _REQUEST_S) -> None:
        parts = urlsplit(url)
        self._host, self._tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._token, self._ca, self._timeout = token, ca, timeout
        self._connection: http.client.HTTPConnection | None = None
        self._late = threading.Event()

    def get(self, path: str, accept: str) -> bytes:
        """A document. Raises ApiError, OSError, HTTPException; TimeoutError after the request's time."""
        self._late.clear()
        timer = threading.Timer(self._timeout, self._too_late)
        timer.daemon = True
        timer.start()
        try:
            with self._request(path, accept, self._timeout) as response:
                body = response.read(_BODY_MAX + 1)
            if len(body) > _BODY_MAX:
                raise ApiError("too_large", f"more than {_BODY_MAX} bytes in one answer")
            return body
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            if self._late.is_set():
                raise TimeoutError("no answer in time") from error
            raise
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def stream(self, path: str, accept: str, stall: float) -> Iterator[ReadLine]:
        """A function that reads the next line, of at most so many bytes; empty at the end.

        TimeoutError when nothing came for `stall` seconds.
        """
        with self._request(path, accept, stall) as response:
            yield response.readline

    def cut(self) -> None:
        """End the request that is under way. From any thread."""
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _too_late(self) -> None:
        self._late.set()
        self.cut()

    @contextlib.contextmanager
    def _request(self, path: str, accept: str, timeout: float) -> Iterator[http.client.HTTPResponse]:
        self._connection = connection = self._new_connection(timeout)
        try:
            connection.connect()
            assert connection.sock is not None
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
            headers = {"Accept": accept, "User-Agent": f"ringfence/{__version__}", **self._authorization()}
            connection.request("GET", self._base + path, headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                reason = "gone" if response.status == 410 else "refused"
                raise ApiError(reason, f"the API server answers {response.status}")
            yield response
        finally:
            self._connection = None
            connection.close()

    def _new_connection(self, timeout: float) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        cafile = str(self._ca) if self._ca is not None and self._ca.exists() else None
        context = ssl.create_default_context(cafile=cafile)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=context)

    def _authorization(self) -> dict[str, str]:
        """Read for each request: the kubelet replaces the token every hour or so."""
        if self._token is None:
            return {}
        try:
            with self._token.open(encoding="ascii") as file:
                return {"Authorization": f"Bearer {file.read(_TOKEN_MAX).strip()}"}
        except FileNotFoundError:
            return {}
