# SPDX-License-Identifier: Apache-2.0
"""One POST to a receiver, and what its answer means: taken, refused for ever, or to be tried again."""

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
from ringfence.export.sinks.sender import Away, Refused
from ringfence.httpclient import FAILURES, Connection, is_unreachable, reason_of, target_of, tls_context

__all__ = ["Answer", "Http", "HttpSettings"]

_ANSWER_MAX = 1 << 16
_REFUSED = (400, 413, 415, 422)  # what is wrong with the request will be wrong with it tomorrow
_TOO_MANY = 429
_HEADERS_MAX = 1 << 16
#: RFC 9110, 5.1 and 5.5: a token, and visible characters with blanks between them
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class HttpSettings(NamedTuple):
    """How receivers are asked."""

    timeout: float = 10.0  # seconds for a whole request
    headers: Path | None = None  # a file of headers, one a line
    ca: Path | None = None  # None: the system's list
    certificate: Path | None = None  # our own; None: without
    key: Path | None = None  # None: in the certificate's file

    def context(self) -> ssl.SSLContext:
        """For one connection. Raises OSError."""
        return tls_context(self.ca, self.certificate, self.key)


class Answer(NamedTuple):
    """What a receiver said to a request that it took."""

    status: int
    body: bytes


class Http:
    """Posts to one URL. No redirect is followed: an alert goes where the configuration says."""

    def __init__(self, url: str, settings: HttpSettings) -> None:
        self._target, self._settings = target_of(url), settings

    @property
    def place(self) -> str:
        """Host and port for logs; a path may be a secret."""
        return self._target.place

    def post(self, body: bytes, content_type: str = "application/json") -> Answer:
        """Send; the answer of a receiver that took it. Raises Away, Refused."""
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
                # The status was said: who took the alerts would get them again, were the rest insisted on.
                with contextlib.suppress(*FAILURES):
                    text = response.read(_ANSWER_MAX)
        except TimeoutError as error:
            raise Away("timeout", f"{self.place}: {reason_of(error)}") from error
        except FAILURES as error:
            raise Away(
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
        raise Away(f"http_{status // 100}xx", text, retry_after=retry_after, blameless=blameless)

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
        # A line without a colon has a name that is none.
        pairs = (line.partition(":") for line in lines if line.strip() and not line.startswith("#"))
        found = {name.strip() if colon else "": value.strip() for name, colon, value in pairs}
        for name, value in found.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise Away("headers", f"{path}: a line that is no header")
        return found


def _seconds(after: str | None, date: str | None) -> float:
    """Retry-After (RFC 9110, 10.2.3): seconds, or a date, which counts from the answer's own; 0: not said."""
    if not after:
        return 0.0
    if after.isascii() and after.isdigit():
        return float(after) if len(after) < 7 else 0.0
    now = _moment(date) or time.time()
    return max(0.0, (_moment(after) or now) - now)


def _moment(date: str | None) -> float:
    """Seconds since the epoch; 0 where that is no date."""
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
