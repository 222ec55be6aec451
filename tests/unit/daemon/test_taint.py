# SPDX-License-Identifier: Apache-2.0
"""The start-up taint, at a fake API server that keeps one node and knows what JSON patch says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ringfence.config import Config, load
from ringfence.daemon.queries import taint
from ringfence.daemon.queries.taint import TaintRemover
from ringfence.daemon.tracking.pod_sources import PodSources
from ringfence.errors import ConfigError

KEY = "ringfence.dev/agent-not-ready"
OTHER = {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}


class FakeServer(ThreadingHTTPServer):
    """One node. `trouble` are answers to give before it behaves; `races` are changes by others
    meanwhile.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taints: list[dict[str, Any]] = [{"key": KEY, "effect": "NoSchedule"}, OTHER]
        self.version = 7
        self.trouble: list[bytes | int] = []
        self.races = 0
        self.seen: list[tuple[str, str, str]] = []

    def patch(self, operations: list[dict[str, Any]]) -> int:
        """The status of RFC 6902, for what is asked here."""
        if self.races:
            self.races -= 1
            self.version += 1
        for one in operations:
            if one["op"] == "test" and one["value"] != str(self.version):
                return 422
            if one["op"] == "replace":
                assert one["path"] == "/spec/taints"
                self.taints = one["value"]
        return 200


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        server = self.server
        server.seen.append((self.command, self.path, self.headers.get("Authorization", "")))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        trouble = server.trouble.pop(0) if server.trouble else None
        if isinstance(trouble, int):
            return self._send(trouble, b"{}")
        if trouble is not None:
            return self._send(200, trouble)
        status = server.patch(json.loads(body)) if self.command == "PATCH" else 200
        node = {"metadata": {"resourceVersion": str(server.version)}, "spec": {"taints": server.taints}}
        return self._send(status, json.dumps(node).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PATCH = _answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """It listens; pauses are short."""
    monkeypatch.setattr(taint, "_FIRST", 0.01)
    fake = FakeServer()
    threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield fake
    fake.shutdown()
    fake.server_close()


def config(server: FakeServer, tmp_path: Path) -> Config:
    """Of an agent that talks to it."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    return load(
        environment={
            "RINGFENCE_KUBERNETES_API": f"http://127.0.0.1:{server.server_port}",
            "RINGFENCE_KUBERNETES_NODE": "node-1",
            "RINGFENCE_KUBERNETES_TAINT": KEY,
            "RINGFENCE_KUBERNETES_TOKEN": str(token),
        }
    )


def remove(server: FakeServer, tmp_path: Path) -> None:
    """To its end."""
    remover = TaintRemover(config(server, tmp_path))
    remover.start()
    try:
        assert remover.done.wait(10)
    finally:
        remover.close()


def test_only_its_own_taint_goes(server: FakeServer, tmp_path: Path) -> None:
    """With the pod's token, at its own node."""
    remove(server, tmp_path)
    assert server.taints == [OTHER]
    assert server.seen == [(method, "/api/v1/nodes/node-1", "Bearer secret") for method in ("GET", "PATCH")]


def test_a_node_without_it_is_left_alone(server: FakeServer, tmp_path: Path) -> None:
    """Read, and not written."""
    server.taints = [OTHER]
    remove(server, tmp_path)
    assert [method for method, _, _ in server.seen] == ["GET"]


def test_another_was_faster(server: FakeServer, tmp_path: Path) -> None:
    """A change by another client between reading and writing is not overwritten: read again."""
    server.races = 2
    remove(server, tmp_path)
    assert server.taints == [OTHER]
    assert [method for method, _, _ in server.seen] == ["GET", "PATCH"] * 3


def test_a_taint_without_an_api_server_is_a_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at the start, not tried for ever."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="no API server is known"):
        PodSources(load(environment={"RINGFENCE_KUBERNETES_TAINT": KEY}))


@pytest.mark.parametrize(
    "trouble",
    [
        500,
        403,
        b"",
        b"[]",
        b"{}",
        b'{"spec": 3}',
        b'{"spec": {"taints": [1]}}',
        b"[" * 200_000,
        b'{"metadata":{"resourceVersion":7},"spec":{}}',
    ],
)
def test_a_server_that_lies_or_fails_is_asked_again(
    server: FakeServer, tmp_path: Path, trouble: bytes | int
) -> None:
    """Nothing that it says ends the thread."""
    server.trouble = [trouble]
    remove(server, tmp_path)
    assert server.taints == [OTHER]
