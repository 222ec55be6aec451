# SPDX-License-Identifier: Apache-2.0
"""An HTTP server on the loopback that accepts alerts,
or behaves like a bad receiver; and a sample alert.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.support.tls import HttpServer

__all__ = ["Receiver", "alert", "http_receiver", "whole_alert"]

Record = dict[str, Any]


def alert(number: int = 1, **changes: Any) -> Record:
    """Returns a native alert with the fields that every alert has."""
    record: Record = {
        "time": "2026-11-24T02:03:04.123456Z", "event": "file.open", "kind": "alert",
        "id": f"ab12cd-{number:x}", "severity": "critical",
        "rule": {"id": "core-pattern", "title": "opens core_pattern for writing",
                 "policy": "kernel-interfaces", "file": "/etc/ringfence/policies/kernel.yaml", "line": 12,
                 "attack": ["T1611", "T1055.001"], "mode": "enforce"},
        "action": "deny", "outcome": "denied", "mechanism": "lsm",
        "container": {"id": "c" * 64, "cgroup": 4711, "runtime": "containerd", "handler": "wasm",
                      "name": "web", "image": "registry.example:5000/shop/web:1.2",
                      "image_digest": "registry.example:5000/shop/web@sha256:" + "d" * 64,
                      "namespace": "shop", "pod": "web-0", "pod_uid": "0f0f0f0f-1111-2222-3333-444444444444",
                      "owner": "StatefulSet/web", "labels": {"app": "web"}, "privileged": False},
        "process": {"pid": 4242, "tid": 4243, "ppid": 4000, "vpid": 7, "uid": 0, "gid": 0, "comm": "sh",
                    "facts": [], "exe": "/bin/busybox", "args": ["sh", "-c", "echo x"],
                    "ancestry": [{"pid": 4000, "comm": "init", "exe": "/sbin/init"}]},
        "details": {"path": "/proc/sys/kernel/core_pattern"}, "latency_us": 700,
        "allow": "add to rule core-pattern", "generation": 3, "node": "node-1", "notes": ["a note"],
        "version": 1, "tried": "open proc:/sys/kernel/core_pattern to write",
        "ended": "denied before it took effect", "runbook": "docs/runbooks/escape-denied.md",
        "next": ["kubectl -n shop describe pod web-0"],
    }  # fmt: skip
    return record | changes


def whole_alert() -> Record:
    """Returns an alert with every field that an alert can have."""
    found = alert(suppressed=4, reported="2026-11-24T02:04:04.000000Z", labels={"cluster": "prod-eu"})
    found["response"] = {"pid": 4242, "outcome": "failed", "error": "pidfd_open: ESRCH"}
    found["container"]["posture"] = {"score": 40, "reasons": ["CAP_SYS_ADMIN"]}
    return found


class Receiver:
    """The requests of a server. `behave(request number)`
    returns the status to answer, or misbehaves.
    """

    def __init__(self) -> None:
        self.bodies: list[Any] = []  # of requests that were answered with 2xx
        self.requests = 0
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.status: Callable[[int], int] = lambda number: 200
        self.answer = b"{}"
        self.retry_after = ""
        self.delay = 0.0
        self.drip = 0.0  # seconds between two bytes of an endless header
        self.url = ""

    def alerts(self) -> list[str]:
        """Returns the ids of the alerts of a webhook, in the order of arrival."""
        return [one["id"] for body in self.bodies for one in body["alerts"]]


def _handler(receiver: Receiver, done: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

        def do_POST(self) -> None:
            receiver.requests += 1
            number = receiver.requests
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.paths.append(self.path)
            receiver.headers.append(dict(self.headers.items()))
            done.wait(receiver.delay)
            while receiver.drip and not done.wait(receiver.drip):
                self.wfile.write(b"H")
            status = receiver.status(number)
            if 200 <= status < 300:
                receiver.bodies.append(body)
            self.send_response(status)
            if receiver.retry_after:
                self.send_header("Retry-After", receiver.retry_after)
            if status in (301, 302):
                self.send_header("Location", receiver.url)
            self.send_header("Content-Length", str(len(receiver.answer)))
            self.end_headers()
            self.wfile.write(receiver.answer)

    return Handler


@contextlib.contextmanager
def http_receiver(
    port: int = 0, *, certificate: Path | None = None, clients: Path | None = None
) -> Iterator[Receiver]:
    """A server on 127.0.0.1, on a port of its own
    unless one is given; with a certificate it uses TLS.
    """
    receiver, done = Receiver(), threading.Event()
    server = HttpServer(_handler(receiver, done), port=port)
    server.certificate, server.clients = certificate, clients
    receiver.url = server.url("/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        done.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
        time.sleep(0)
