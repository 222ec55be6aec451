# SPDX-License-Identifier: Apache-2.0
"""Certificates of a private authority, made by openssl, and HTTP servers that use them."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support import force

__all__ = ["Authority", "HttpServer"]

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*words: object) -> None:
    argv = [force.need_program("openssl"), *map(str, words)]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)


class Authority:
    """Signs certificates. `path` is its own certificate, for clients that shall trust it."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory, self._name = directory, name
        self.path, self._key = directory / f"{name}.crt", directory / f"{name}.key"
        subject = ("-subj", f"/CN={name}", "-days", 2)
        _openssl("req", "-x509", *_KEY, "-keyout", self._key, "-out", self.path, *subject)

    def issue(
        self, names: Sequence[str] = ("IP:127.0.0.1",), *, days: int = 1, label: str = "server"
    ) -> Path:
        """One PEM file with a certificate for these names (DNS:..., IP:...) and its key. days -1: expired."""
        base = self._directory / f"{self._name}-{label}"
        key, request, made, extensions = (base.with_suffix(end) for end in (".key", ".csr", ".pem", ".ext"))
        extensions.write_text(f"subjectAltName={','.join(names)}\n")
        _openssl("req", *_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={label}")
        _openssl("x509", "-req", "-in", request, "-CA", self.path, "-CAkey", self._key, "-days", days,
                 "-out", made, "-extfile", extensions)  # fmt: skip
        made.write_text(made.read_text() + key.read_text())
        return made


class HttpServer(ThreadingHTTPServer):
    """On the loopback. With `certificate` (PEM, with its key) it speaks TLS; `clients` is who may ask.

    Both may be changed at any time: the next connection has it so.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: Any, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.certificate: Path | None = None
        self.clients: Path | None = None
        super().__init__((host, port), handler)

    def get_request(self) -> tuple[Any, Any]:
        """One connection; its handshake is made by the thread that reads it."""
        sock, address = super().get_request()
        if self.certificate is None:
            return sock, address
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        if self.clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.clients)
        return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up, or do not believe us, are what some tests are about."""

    def url(self, path: str = "") -> str:
        """Its address."""
        host = str(self.server_address[0])
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.certificate else 'http'}://{shown}:{self.server_port}{path}"
