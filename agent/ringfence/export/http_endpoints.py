# SPDX-License-Identifier: Apache-2.0
"""/metrics, /healthz and /readyz. Read-only; binds to the loopback by default.

healthz: the event loop is running. readyz: programs are attached and policies are in the kernel. The
checks may have a separate port (`health.listen`), so that the metrics port can be closed to all
clients except Prometheus.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from ringfence.config import Listen
from ringfence.export.exposition import CONTENT_TYPE, OPENMETRICS_TYPE, exposition
from ringfence.export.http_server import Request, Response, Server, text

__all__ = ["HealthServer", "HttpServer"]

_FRESH_S = 1.0  # maximum age of the exposition that answers a scrape
_GZIP_LEVEL = 1  # a tenth of the size already; more costs more than it saves
_VARY = (("Vary", "Accept, Accept-Encoding"),)
Check = Callable[[], str]  # returns "" if healthy, else the problem


class HealthServer(Server):
    """Serves the two checks only."""

    def __init__(
        self,
        listen: Listen,
        healthy: Check,
        ready: Check,
        key: str = "health",
        slow: Callable[[Request], Response] | None = None,
    ) -> None:
        super().__init__(listen, key, self._answer, slow)
        self._checks = {"/healthz": healthy, "/readyz": ready}

    def _answer(self, request: Request) -> Response | None:
        check = self._checks.get(request.path)
        if check is None:
            return self._other(request.path)
        wrong = check()
        return text("503 Service Unavailable" if wrong else "200 OK", (wrong or "ok") + "\n")

    def _other(self, path: str) -> Response | None:
        return text("200 OK" if path == "/" else "404 Not Found", "/healthz /readyz\n")


class HttpServer(HealthServer):
    """Serves the metrics and the checks."""

    def __init__(
        self,
        listen: Listen,
        registry: CollectorRegistry,
        healthy: Check,
        ready: Check,
        *,
        compress: bool = False,
    ) -> None:
        """`compress`: with gzip, for clients that accept it."""
        super().__init__(listen, healthy, ready, "http", self._metrics)
        self._page, self._compress = _Scrape(registry, openmetrics=False), compress
        self._openmetrics = _Scrape(registry, openmetrics=True)

    def _other(self, path: str) -> Response | None:
        if path == "/metrics":
            return None
        return text("200 OK" if path == "/" else "404 Not Found", "/metrics /healthz /readyz\n")

    def _metrics(self, request: Request) -> Response:
        page = self._openmetrics if request.openmetrics else self._page
        if self._compress and request.gzip:
            encoded = (*_VARY, ("Content-Encoding", "gzip"))
            return Response("200 OK", page.content_type, page.compressed(), encoded)
        return Response("200 OK", page.content_type, page.plain(), _VARY)


class _Scrape:
    """The exposition, created at most once a second; concurrent scrapes wait for the same one."""

    def __init__(self, registry: CollectorRegistry, *, openmetrics: bool) -> None:
        self._registry, self._is_openmetrics = registry, openmetrics
        self.content_type = OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE
        self._lock = threading.Lock()
        self._made_at = float("-inf")
        self._plain = self._gzip = b""

    def plain(self) -> bytes:
        """As text."""
        with self._lock:
            return self._fresh()

    def compressed(self) -> bytes:
        """Returns the exposition, compressed."""
        with self._lock:
            plain = self._fresh()
            self._gzip = self._gzip or gzip.compress(plain, _GZIP_LEVEL, mtime=0)
            return self._gzip

    def _fresh(self) -> bytes:
        if time.monotonic() - self._made_at >= _FRESH_S:
            self._plain = exposition(self._registry, openmetrics=self._is_openmetrics)
            self._gzip = b""
            self._made_at = time.monotonic()
        return self._plain
