# SPDX-License-Identifier: Apache-2.0
"""/metrics, /healthz and /readyz over HTTP, in threads of their own. Reads only; binds to the loopback by
default.

healthz: the loop still turns. readyz: programs are attached and policies are in the kernel.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry

from ringfence.config import Listen
from ringfence.errors import ConfigError, Error, NotPermittedError
from ringfence.export.exposition import CONTENT_TYPE, exposition

__all__ = ["HttpServer", "StartResponse", "WebServer"]

_CLIENT_TIMEOUT = 5.0  # seconds that one read or write of a client may take
_REQUEST_SECONDS = 15.0  # that a whole request may take: a byte every four seconds would never time out
_MAX_CLIENTS = 16
Check = Callable[[], str]  # "" when well, else what is wrong
StartResponse = Callable[..., Any]


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the text is the client's."""

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):  # a client that is gone or talks nonsense is no news
            self.close_connection = True


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, listen: Listen) -> None:
        if listen.host == "::" and not _has_ipv6():
            listen = Listen("0.0.0.0", listen.port)
        self.address_family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        self._clients = threading.BoundedSemaphore(_MAX_CLIENTS)
        self._deadlines: dict[Any, float] = {}
        super().__init__(listen, _Handler)

    def service_actions(self) -> None:
        """Cut requests that take too long. Called by serve_forever each second."""
        now = time.monotonic()
        for request, deadline in list(self._deadlines.items()):
            if deadline < now:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        # The base class asks the resolver for the machine's name, which can take seconds.
        # Addresses of connections that ended a moment ago must not keep a restarted agent out.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.address_family == socket.AF_INET6:  # `::` means both families, whatever the node's bindv6only
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socket.socket.bind(self.socket, self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._clients.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._clients.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        self._deadlines[request] = time.monotonic() + _REQUEST_SECONDS
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._deadlines.pop(request, None)
            self._clients.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a broken client must not fill the log."""


def _has_ipv6() -> bool:
    """False on kernels that were started with ipv6.disable=1: they know no such socket."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


class WebServer:
    """Answers by a WSGI application; listening from construction on, `start` begins to answer."""

    def __init__(self, listen: Listen, key: str = "http") -> None:
        """`key` is the section of the configuration that says where."""
        ServerHandler.http_version = "1.1"
        hint = f"another program may use it: choose with `--{key}-listen HOST:PORT`, or `off`"
        try:
            self._server = _Server(listen)
        except PermissionError as error:
            raise NotPermittedError(f"cannot listen on {listen}: {error.strerror}", hint=hint) from error
        except socket.gaierror as error:
            raise ConfigError(
                f"{key}.listen: {listen.host!r} is no address of this machine", hint=hint
            ) from error
        except OSError as error:
            raise Error(f"cannot listen on {listen}: {error.strerror}", hint=hint) from error
        self._server.set_app(self._answer)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.5}, name=key, daemon=True
        )

    @property
    def address(self) -> Listen:
        """Where it listens, with the port that the kernel chose for 0."""
        return Listen(self._server.server_name, self._server.server_port)

    def start(self) -> None:
        """Answer requests, in threads."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Requests under way end by themselves."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        raise NotImplementedError


class HttpServer(WebServer):
    """Metrics and health."""

    def __init__(self, listen: Listen, registry: CollectorRegistry, healthy: Check, ready: Check) -> None:
        super().__init__(listen)
        self._registry = registry
        self._checks = {"/healthz": healthy, "/readyz": ready}

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            return _text(start_response, "405 Method Not Allowed", "only GET\n")
        if path in self._checks:
            wrong = self._checks[path]()
            return _text(
                start_response, "503 Service Unavailable" if wrong else "200 OK", (wrong or "ok") + "\n"
            )
        if path == "/metrics":
            return _body(start_response, "200 OK", exposition(self._registry), CONTENT_TYPE)
        found = path == "/"
        return _text(start_response, "200 OK" if found else "404 Not Found", "/metrics /healthz /readyz\n")


def _text(start_response: StartResponse, status: str, body: str) -> Iterable[bytes]:
    return _body(start_response, status, body.encode(), "text/plain; charset=utf-8")


def _body(start_response: StartResponse, status: str, data: bytes, kind: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(data)))])
    return [data]
