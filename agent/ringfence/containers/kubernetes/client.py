# SPDX-License-Identifier: Apache-2.0
"""A client of an API server: read a document, patch one, follow a stream of lines. All can be aborted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from ringfence import __version__
from ringfence.httpclient import Connection, target_of, tls_context

__all__ = ["ApiError", "Client"]

_BODY_MAX = 8 << 20
_REQUEST_S = 30.0
_TOKEN_MAX = 1 << 16
_REASONS = {409: "conflict", 410: "gone", 422: "conflict"}  # 422: a test of a JSON patch failed
ReadLine = Callable[[int], bytes]


class ApiError(Exception):
    """The server refused the request, or its response is invalid.

    `reason`: conflict, gone, refused, broken, too_large.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Client:
    """Queries one server, with a token and a CA bundle from files that may change at any time.

    Every method raises ApiError and httpclient.FAILURES; TimeoutError at the deadline.
    """

    def __init__(self, url: str, token: Path | None, ca: Path | None, *, timeout: float = _REQUEST_S) -> None:
        """`ca` None: the system's CA store. A missing CA file is an error, not a fallback to the system's."""
        self._target = target_of(url)
        self._base = self._target.path.rstrip("/")
        self._token, self._ca, self._timeout = token, ca, timeout
        self._connection: Connection | None = None

    def get(self, path: str, accept: str = "application/json", most: int = _BODY_MAX) -> bytes:
        """Returns a document of at most `most` bytes."""
        with self._request("GET", path, {"Accept": accept}, self._timeout) as response:
            return _whole(response, most)

    def patch(self, path: str, operations: list[Mapping[str, Any]]) -> bytes:
        """Changes a document by a JSON patch (RFC 6902); returns the new document."""
        headers = {"Accept": "application/json", "Content-Type": "application/json-patch+json"}
        body = json.dumps(operations).encode()
        with self._request("PATCH", path, headers, self._timeout, body) as response:
            return _whole(response, _BODY_MAX)

    @contextlib.contextmanager
    def stream(self, path: str, accept: str, seconds: float) -> Iterator[ReadLine]:
        """Yields a function that reads the next line, of at most so many bytes; empty at the end.

        Raises TimeoutError if the server has not ended the stream after `seconds`, even if it sent data.
        """
        with self._request("GET", path, {"Accept": accept}, seconds) as response:
            yield response.readline

    def cut(self) -> None:
        """Aborts the current request. From any thread."""
        if (connection := self._connection) is not None:
            connection.cut()

    @contextlib.contextmanager
    def _request(
        self, method: str, path: str, headers: Mapping[str, str], seconds: float, body: bytes | None = None
    ) -> Iterator[HTTPResponse]:
        context = tls_context(self._ca) if self._target.tls else None
        sent = {"User-Agent": f"ringfence/{__version__}", **headers, **self._authorization()}
        with Connection(self._target, seconds, context) as connection:
            self._connection = connection
            try:
                connection.request(method, self._base + path, body, sent)
                response = connection.getresponse()
                if response.status != 200:
                    reason = _REASONS.get(response.status, "refused")
                    raise ApiError(reason, f"the API server responded with status {response.status}")
                yield response
            finally:
                self._connection = None

    def _authorization(self) -> dict[str, str]:
        """Reads the token for each request: the kubelet replaces it about every hour."""
        if self._token is None:
            return {}
        try:
            with self._token.open(encoding="latin-1") as file:
                token = file.read(_TOKEN_MAX).strip()
        except FileNotFoundError:
            return {}
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ApiError("refused", f"{self._token} contains no valid token")
        return {"Authorization": f"Bearer {token}"}


def _whole(response: HTTPResponse, most: int) -> bytes:
    body = response.read(most + 1)
    if len(body) > most:
        raise ApiError("too_large", f"more than {most} bytes in one response")
    return body
