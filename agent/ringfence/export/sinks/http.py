# SPDX-License-Identifier: Apache-2.0
"""One HTTP POST with an end: a receiver that hangs or drips is left after its time, whatever it does.

No redirects (an alert goes where the configuration says), no proxies, no cookies.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ringfence import __version__
from ringfence.export.sinks.sender import Away, Refused

__all__ = ["Answer", "Http", "HttpSettings"]

_ANSWER_MAX = 1 << 16
_REFUSED = (400, 413, 415, 422)  # what is wrong with the request will be wrong with it tomorrow
_HEADERS_MAX = 1 << 16


class HttpSettings(NamedTuple):
    """How receivers are asked."""

    timeout: float = 10.0  # seconds for a whole request
    headers: Path | None = None  # a file of headers, one a line
    ca: Path | None = None


class Answer(NamedTuple):
    """What a receiver said to a request that it took."""

    status: int
    body: bytes


class Http:
    """Posts to one URL."""

    def __init__(self, url: str, settings: HttpSettings) -> None:
        parts = urlsplit(url)
        self._host, self._tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._settings = settings

    @property
    def place(self) -> str:
        """Host and port for logs; a path may be a secret."""
        return f"{self._host}:{self._port}"

    def post(self, body: bytes, content_type: str = "application/json") -> Answer:
        """Send; the answer of a receiver that took it. Raises Away, Refused."""
        headers = {
            "Content-Type": content_type,
            "User-Agent": f"ringfence/{__version__}",
            "Connection": "close",
            **self._extra(),
        }
        connection = self._connection()
        late = threading.Event()
        timer = threading.Timer(self._settings.timeout, _cut, (connection, late))
        timer.daemon = True
        timer.start()
        try:
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            text = response.read(_ANSWER_MAX)
            retry_after = _seconds(response.headers.get("Retry-After"))
            return self._judge(response.status, text, retry_after)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # AttributeError: the connection was cut between two steps of http.client
            if late.is_set() or isinstance(error, TimeoutError):
                raise Away("timeout", f"{self.place}: no answer in time") from error
            raise Away("connection", f"{self.place}: {_words(error)}") from error
        finally:
            timer.cancel()
            connection.close()

    def _judge(self, status: int, body: bytes, retry_after: float) -> Answer:
        if 200 <= status < 300:
            return Answer(status, body)
        text = f"{self.place} answers {status}"
        if status in _REFUSED:
            raise Refused(text)
        raise Away(f"http_{status // 100}xx", text, retry_after=retry_after)

    def _connection(self) -> http.client.HTTPConnection:
        timeout = self._settings.timeout
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            context = ssl.create_default_context(cafile=str(self._settings.ca) if self._settings.ca else None)
        except (OSError, ssl.SSLError) as error:
            raise Away("connection", f"{self._settings.ca}: {_words(error)}") from error
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=context)

    def _extra(self) -> Mapping[str, str]:
        """The file's headers, read for each request: tokens are rotated."""
        path = self._settings.headers
        if path is None:
            return {}
        try:
            with path.open(encoding="latin-1") as file:
                lines = file.read(_HEADERS_MAX).splitlines()
        except OSError as error:
            raise Away("headers", f"{path}: {error.strerror}") from error
        pairs = (line.partition(":") for line in lines if line.strip() and not line.startswith("#"))
        return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _cut(connection: http.client.HTTPConnection, late: threading.Event) -> None:
    late.set()
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 7 else 0.0


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
