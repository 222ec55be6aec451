# SPDX-License-Identifier: Apache-2.0
"""A fake Kubernetes API server: the list and the watch of pods, and the behaviour of broken
servers.

It answers as the Kubernetes API Concepts say (pages with `continue`, resource versions,
resourceVersion 0 from a cache without pages, bookmarks, 410 Gone), for pods only.
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
from urllib.parse import parse_qs, urlsplit

from tests.support.tls import HttpServer

__all__ = ["FakeApiServer", "fake_apiserver", "pod"]

Item = dict[str, Any]


def pod(number: int, *, padding: int = 0, **metadata: Any) -> Item:
    """A pod as the API server writes it, with its usual other members."""
    about = {
        "name": f"web-{number}", "namespace": f"team-{number % 20}",
        "uid": f"00000000-0000-0000-0000-{number:012x}", "resourceVersion": "1",
        "labels": {"app": f"app-{number % 50}", "pod-template-hash": "5d9c", "tier": "backend",
                   "app.kubernetes.io/instance": f"release-{number % 50}"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": f"app-{number % 50}-5d9c", "controller": True}],
        "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": "x" * padding}}],
    }  # fmt: skip
    return {"kind": "Pod", "metadata": {**about, **metadata}, "spec": {"nodeName": "node-1"}}


class FakeApiServer:
    """Its pods, the requests it received, and its faults."""

    def __init__(self) -> None:
        self.pods: dict[str, Item] = {}
        self.version = 100
        self.events: list[tuple[int, bytes]] = []
        self.requests: list[tuple[str, dict[str, str], dict[str, str]]] = []  # path, query, headers
        self.oldest = 0  # an earlier watch gets 410
        self.list_status: Callable[[int], int] = lambda number: 200
        self.list_body: bytes | None = None  # instead of a list
        self.stall_list = False
        self.endless_list = False
        self.gone_at_page = 0
        self.drip = 0.0  # seconds between two bytes that never become a line
        self.lists = self.watches = 0
        self.watch_status = 200
        self.server: HttpServer | None = None
        self.changed = threading.Condition()
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self.server is not None
        return self.server.url()

    def add(self, *items: Item, event: str = "ADDED") -> None:
        """Add pods, and send an event to the watching clients."""
        for item in items:
            self.pods[item["metadata"]["uid"]] = item
            self.tell(event, item)

    def delete(self, uid: str) -> None:
        """Remove a pod."""
        self.tell("DELETED", self.pods.pop(uid))

    def tell(self, kind: str, item: Item) -> None:
        """Send one event of the watch."""
        with self.changed:
            self.version += 1
            meta = {**item.get("metadata", {}), "resourceVersion": str(self.version)}
            line = json.dumps({"type": kind, "object": {**item, "metadata": meta}}).encode() + b"\n"
            self.events.append((self.version, line))
            self.changed.notify_all()

    def raw(self, data: bytes) -> None:
        """Send any bytes to the watching clients."""
        with self.changed:
            self.version += 1
            self.events.append((self.version, data))
            self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeApiServer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.fake.requests.append((parts.path, query, dict(self.headers.items())))
        if query.get("watch"):
            self._watch(int(query.get("resourceVersion") or 0))
        else:
            cached = query.get("resourceVersion") == "0"
            limit = 1 << 30 if cached else int(query.get("limit") or 500)
            self._list(limit, int(query.get("continue") or 0))

    def _list(self, limit: int, start: int) -> None:
        fake = self.fake
        fake.lists += 1
        if fake.stall_list:
            fake.stopping.wait(60)
        status = fake.list_status(fake.lists)
        if fake.gone_at_page and start // limit == fake.gone_at_page:
            fake.gone_at_page, status = 0, 410
        items = list(fake.pods.values())
        page = items[start : start + limit]
        more = str(start + limit) if start + limit < len(items) else ""
        if fake.endless_list:
            more = str(start)
        body = fake.list_body
        if body is None:
            meta = {"resourceVersion": str(fake.version), "continue": more}
            body = json.dumps({"kind": "PodList", "metadata": meta, "items": page}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _watch(self, version: int) -> None:
        fake = self.fake
        fake.watches += 1
        if fake.watch_status != 200:
            self.send_error(fake.watch_status)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if version < fake.oldest:
            gone = {"kind": "Status", "code": 410, "reason": "Expired"}
            self._chunk(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            self._chunk(b"")
            return
        while fake.drip and not fake.stopping.wait(fake.drip):
            self._chunk(b" ")
        while not fake.stopping.is_set():
            with fake.changed:
                due = [line for at, line in fake.events if at > version]
                version = fake.version
                if not due:
                    fake.changed.wait(0.2)
            for line in due:
                if line == b"HANG UP":
                    self.close_connection = True
                    return
                self._chunk(line)

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


@contextlib.contextmanager
def fake_apiserver(certificate: Path | None = None, host: str = "127.0.0.1") -> Iterator[FakeApiServer]:
    """On a port of the loopback, for the time of a `with` block; with a certificate it speaks TLS."""
    fake = FakeApiServer()
    fake.server = server = HttpServer(type("Handler", (_Handler,), {"fake": fake}), host=host)
    server.certificate = certificate
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
        time.sleep(0)
