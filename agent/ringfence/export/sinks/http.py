# SPDX-License-Identifier: Apache-2.0
"""One POST to a receiver, and the meaning of its answer: accepted, refused permanently, or try again."""

from __future__ import annotations

import contextlib
import re
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

from ringfence import __version__
from ringfence.export.sinks.sender import Refused, Unavailable
from ringfence.httpclient import FAILURES, Connection, is_unreachable, reason_of, target_of, tls_context

__all__ = ["Answer", "Http", "HttpSettings"]

_ANSWER_MAX = 1 << 16
_REFUSED = (400, 413, 415, 422)  # permanent errors of the request
_TOO_MANY = 429
_HEADERS_MAX = 1 << 16
#: RFC 9110, 5.1 and 5.5: a token, and visible characters with blanks between them
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class HttpSettings(NamedTuple):
    """Settings of the requests to a receiver."""

    timeout: float = 10.0  # seconds for a whole request
    headers: Path | None = None  # a file of headers, one per line
    ca: Path | None = None  # None: the system's list
    certificate: Path | None = None  # the client's; None: no client certificate
    key: Path | None = None  # None: in the certificate's file

    def context(self) -> ssl.SSLContext:
        """Returns the context of one connection. Raises OSError."""
        return tls_context(self.ca, self.certificate, self.key)


class Answer(NamedTuple):
    """A receiver's answer to a request that it accepted."""

    status: int
    body: bytes


class Http:
    """Posts to one URL. No redirect is followed: alerts go only to the configured URL."""

    def __init__(self, url: str, settings: HttpSettings) -> None:
        self._target, self._settings = target_of(url), settings

    @property
    def place(self) -> str:
        """Host and port for logs; the path may be a secret."""
        return self._target.place

    def post(self, body: bytes, content_type: str = "application/json") -> Answer:
        """Sends and returns the answer of a receiver that accepted it. Raises Unavailable, Refused."""
        headers = {
            "Content-Type": content_type,
            "User-Agent": f"ringfence/{__version__}",
            "Connection": "close",
            **self._extra(),
        }
        try:
            context = self._settings.context() if self._target.tls else None
            with Connection(self._target, self._settings.timeout, context) as connection:
                connection.request("POST", self._target.path, body, headers)
                response = connection.getresponse()
                text = b""
                # The status arrived: trying again would send the accepted alerts twice.
                with contextlib.suppress(*FAILURES):
                    text = response.read(_ANSWER_MAX)
        except TimeoutError as error:
            raise Unavailable("timeout", f"{self.place}: {reason_of(error)}") from error
        except FAILURES as error:
            raise Unavailable(
                "connection", f"{self.place}: {reason_of(error)}", blameless=is_unreachable(error)
            ) from error
        said = response.headers
        return self._judge(response.status, text, _seconds(said.get("Retry-After"), said.get("Date")))

    def _judge(self, status: int, body: bytes, retry_after: float) -> Answer:
        if 200 <= status < 300:
            return Answer(status, body)
        text = f"{self.place} answers {status}"
        if status in _REFUSED:
            raise Refused(text)
        blameless = status == _TOO_MANY
        raise Unavailable(f"http_{status // 100}xx", text, retry_after=retry_after, blameless=blameless)

    def _extra(self) -> Mapping[str, str]:
        """Returns the file's headers, read for each request because tokens are rotated."""
        path = self._settings.headers
        if path is None:
            return {}
        try:
            with path.open(encoding="latin-1") as file:
                lines = file.read(_HEADERS_MAX).splitlines()
        except OSError as error:
            raise Unavailable("headers", f"{path}: {error.strerror}") from error
        # A line without a colon has an invalid name.
        pairs = (line.partition(":") for line in lines if line.strip() and not line.startswith("#"))
        found = {name.strip() if colon else "": value.strip() for name, colon, value in pairs}
        for name, value in found.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise Unavailable("headers", f"{path}: a line is not a header")
        return found


def _seconds(after: str | None, date: str | None) -> float:
    """Returns the seconds of Retry-After (RFC 9110, 10.2.3); 0: none. A date is relative to the answer's."""
    if not after:
        return 0.0
    if after.isascii() and after.isdigit():
        return float(after) if len(after) < 7 else 0.0
    now = _moment(date) or time.time()
    return max(0.0, (_moment(after) or now) - now)


def _moment(date: str | None) -> float:
    """Returns seconds since the epoch; 0 if it is not a date."""
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
