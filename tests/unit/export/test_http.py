# SPDX-License-Identifier: Apache-2.0
"""/metrics, /healthz, /readyz: right answers, and clients that misbehave."""

from __future__ import annotations

import errno
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from ringfence.config import Listen
from ringfence.errors import ConfigError, Error
from ringfence.export.http import HttpServer

State = dict[str, str]


@pytest.fixture
def state() -> State:
    """What the checks answer: empty is well."""
    return {"healthy": "", "ready": ""}


@pytest.fixture
def server(state: State) -> Iterator[HttpServer]:
    """A server with one metric, on a port that the kernel chooses."""
    registry = CollectorRegistry()
    Gauge("fake", "A metric.", registry=registry).set(7)
    made = HttpServer(Listen("127.0.0.1", 0), registry, lambda: state["healthy"], lambda: state["ready"])
    made.start()
    yield made
    made.close()


def get(server: HttpServer, path: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://{server.address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_are_served(server: HttpServer) -> None:
    """In the text format."""
    status, body = get(server, "/metrics")
    assert status == 200
    assert "fake 7.0" in body


def test_checks_say_what_is_wrong(server: HttpServer, state: State) -> None:
    """200 ok, or 503 and the reason."""
    assert get(server, "/healthz") == (200, "ok\n")
    state["ready"] = "no policies in the kernel"
    assert get(server, "/readyz") == (503, "no policies in the kernel\n")
    assert get(server, "/healthz") == (200, "ok\n")


def connect(server: HttpServer) -> socket.socket:
    """A client that says what it likes."""
    return socket.create_connection((server.address.host, server.address.port), timeout=5)


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/nothing", 404), ("/metrics/../etc/passwd", 404)])
def test_there_is_nothing_else(server: HttpServer, path: str, status: int) -> None:
    """Unknown paths are not found."""
    assert get(server, path)[0] == status


def test_only_reading_is_allowed(server: HttpServer) -> None:
    """POST is refused."""
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(f"http://{server.address}/metrics", data=b"x", timeout=5)


@pytest.mark.parametrize(
    "nonsense", [b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"A" * 70000, b"GET / HTTP/9.9\r\n\r\n"]
)
def test_nonsense_does_not_end_the_server(server: HttpServer, nonsense: bytes) -> None:
    """The next client is served."""
    with socket.create_connection((server.address.host, server.address.port), timeout=5) as client:
        client.sendall(nonsense)
    assert get(server, "/healthz")[0] == 200


def test_silent_clients_do_not_keep_others_out(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many silent connections as there are places, cut off after their time: then others are served."""
    monkeypatch.setattr("ringfence.export.http._Handler.timeout", 0.3)
    held = [
        socket.create_connection((server.address.host, server.address.port), timeout=5) for _ in range(16)
    ]
    for client in held:
        assert client.recv(1) == b""
        client.close()
    assert get(server, "/healthz")[0] == 200


def test_a_port_in_use_is_a_clear_error(server: HttpServer) -> None:
    """Which address, and what to do."""
    with pytest.raises(Error, match=f"cannot listen on {server.address}") as caught:
        HttpServer(server.address, CollectorRegistry(), str, str)
    assert "--http-listen" in caught.value.hint


def test_an_address_of_another_machine_is_a_clear_error() -> None:
    """192.0.2.1 is documentation's."""
    with pytest.raises(Error, match=r"cannot listen on 192\.0\.2\.1:80"):
        HttpServer(Listen("192.0.2.1", 80), CollectorRegistry(), str, str)


def test_a_name_that_is_no_address_is_a_clear_error() -> None:
    """The resolver's error is a configuration error."""
    with pytest.raises(ConfigError, match="no address"):
        HttpServer(Listen("no such host", 80), CollectorRegistry(), str, str)


def test_all_addresses_are_those_of_both_families(state: State) -> None:
    """`[::]`: the pod's address may be of either kind."""
    made = HttpServer(Listen("::", 0), CollectorRegistry(), lambda: "", lambda: "")
    made.start()
    try:
        for host in ("127.0.0.1", "[::1]"):
            with urllib.request.urlopen(f"http://{host}:{made.address.port}/healthz", timeout=5) as answer:
                assert answer.read() == b"ok\n"
    finally:
        made.close()


def test_all_addresses_on_a_kernel_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """ipv6.disable=1: such a socket cannot be made; IPv4 is served."""
    real = socket.socket.__init__

    def refuse(self: socket.socket, family: int = -1, *rest: int, **more: int) -> None:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        real(self, family, *rest, **more)

    monkeypatch.setattr(socket.socket, "__init__", refuse)
    made = HttpServer(Listen("::", 0), CollectorRegistry(), lambda: "", lambda: "")
    made.start()
    try:
        assert made.address.host == "0.0.0.0"
        assert get(made, "/healthz") == (200, "ok\n")
    finally:
        made.close()
