# SPDX-License-Identifier: Apache-2.0
"""/metrics, /healthz, /readyz: right answers, and clients that misbehave."""

from __future__ import annotations

import contextlib
import errno
import gzip
import socket
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Gauge

from ringfence import faults
from ringfence.config import Listen
from ringfence.errors import ConfigError, Error
from ringfence.export.http_endpoints import HealthServer, HttpServer
from ringfence.export.http_server import PER_PEER, TOTAL, Server
from tests.support.descriptors import no_descriptors
from tests.support.waiting import patience, wait_for

State = dict[str, str]


@pytest.fixture
def state() -> State:
    """The checks' answers: empty means healthy."""
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


def get(server: Server, path: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://{server.address}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_are_served(server: HttpServer) -> None:
    """In the text format."""
    status, body = get(server, "/metrics")
    assert status == 200
    assert "fake 7.0" in body


def test_an_answer_ends_without_the_clients_close(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that reads to the end does not wait until the server gives it up."""
    monkeypatch.setattr("ringfence.export.http_server._DRAIN_S", 3600.0)
    with socket.create_connection((server.address.host, server.address.port), timeout=60) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_checks_say_what_is_wrong(server: HttpServer, state: State) -> None:
    """200 ok, or 503 and the reason."""
    assert get(server, "/healthz") == (200, "ok\n")
    state["ready"] = "no policies in the kernel"
    assert get(server, "/readyz") == (503, "no policies in the kernel\n")
    assert get(server, "/healthz") == (200, "ok\n")


def connect(server: HttpServer) -> socket.socket:
    """A client that sends arbitrary bytes."""
    return socket.create_connection((server.address.host, server.address.port), timeout=60)


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/nothing", 404), ("/metrics/../etc/passwd", 404)])
def test_there_is_nothing_else(server: HttpServer, path: str, status: int) -> None:
    """Unknown paths are not found."""
    assert get(server, path)[0] == status


def test_only_reading_is_allowed(server: HttpServer) -> None:
    """POST is refused."""
    with pytest.raises(urllib.error.HTTPError, match="405") as refused:
        urllib.request.urlopen(f"http://{server.address}/metrics", data=b"x", timeout=60)
    assert refused.value.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET http://x/healthz HTTP/1.1\r\nHost: x\r\n", 200),  # RFC 9112, 3.2.2
        (b"GET HTTP://x:80/nothing?a=b HTTP/1.1\r\nHost: x\r\n", 404),
        (b"\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n", 200),  # 2.2
        (b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\n", 400),  # 3.2
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nhost: y\r\n", 400),
        (b"GET /healthz HTTP/1.0\r\n", 200),
        (b"GET healthz HTTP/1.1\r\nHost: x\r\n", 400),
        (b"GET ftp://x/healthz HTTP/1.1\r\nHost: x\r\n", 400),
    ],
)
def test_requests_are_read_as_the_rfc_says(server: HttpServer, request_: bytes, status: int) -> None:
    """RFC 9112: the forms of a target, empty lines before a request, exactly one Host."""
    with connect(server) as client:
        client.sendall(request_ + b"\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    "nonsense", [b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"A" * 70000, b"GET / HTTP/9.9\r\n\r\n"]
)
def test_nonsense_does_not_end_the_server(server: HttpServer, nonsense: bytes) -> None:
    """The next client is served."""
    with socket.create_connection((server.address.host, server.address.port), timeout=60) as client:
        client.sendall(nonsense)
    assert get(server, "/healthz")[0] == 200


@pytest.fixture
def slow_scrapes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[threading.Event]]:
    """Scrapes that last until the test ends them; one event each."""
    begun: list[threading.Event] = []

    def scrape(registry: CollectorRegistry, *, openmetrics: bool) -> bytes:
        begun.append(threading.Event())
        begun[-1].wait(60)
        return b"fake 7.0\n" * 1000

    monkeypatch.setattr("ringfence.export.http_endpoints.exposition", scrape)
    yield begun
    for event in begun:
        event.set()


def hold(
    server: HttpServer, stack: contextlib.ExitStack, count: int, data: bytes = b"", source: str = ""
) -> None:
    """So many connections that say this and then nothing, from an address of the loopback."""
    for _ in range(count):
        where = (source, 0) if source else None
        address = (server.address.host, server.address.port)
        client = stack.enter_context(socket.create_connection(address, 60, where))
        with contextlib.suppress(OSError):
            client.sendall(data)


@pytest.mark.parametrize("data", [b"", b"GET /heal", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_no_client_can_block_the_kubelet(
    server: HttpServer, data: bytes, slow_scrapes: list[threading.Event]
) -> None:
    """Hundreds of open connections, from one address and from many: health still answers immediately."""
    with contextlib.ExitStack() as stack:
        for number in range(20):
            hold(server, stack, 15, data, f"127.0.0.{10 + number}")
        for _ in range(5):
            began = time.monotonic()
            assert get(server, "/healthz") == (200, "ok\n")
            assert time.monotonic() - began < patience(20)
        hold(server, stack, 100, data)
        assert get(server, "/healthz") == (200, "ok\n")
    assert len(server._connections) <= TOTAL


def test_an_address_loses_its_own_connections_first(server: HttpServer) -> None:
    """A greedy address cannot displace the connections of others."""
    with contextlib.ExitStack() as stack:
        modest = stack.enter_context(connect(server))
        hold(server, stack, 300, b"GET", "127.0.0.9")
        modest.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert modest.recv(4096).startswith(b"HTTP/1.1 200 OK")


def test_silent_and_slow_clients_time_out(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, and a byte now and then."""
    monkeypatch.setattr("ringfence.export.http_server._READ_S", 0.3)
    with connect(server) as silent, connect(server) as slow:
        slow.setblocking(False)

        def ended() -> bool:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                slow.send(b"G")
            try:
                return slow.recv(1) == b""
            except BlockingIOError:
                return False
            except ConnectionError:
                return True

        wait_for(ended, "the slow one to be left")
        assert silent.recv(1) == b""
    assert get(server, "/healthz")[0] == 200


def test_scrapes_at_once_are_made_once(server: HttpServer, slow_scrapes: list[threading.Event]) -> None:
    """Many clients ask while one answer is being made: they all get that one; a second later, another."""
    with ThreadPoolExecutor(PER_PEER) as pool:
        answers = [pool.submit(get, server, "/metrics") for _ in range(PER_PEER - 1)]
        wait_for(lambda: slow_scrapes, "the first scrape")
        assert get(server, "/healthz")[0] == 200, "health does not wait for a scrape"
        slow_scrapes[0].set()
        assert {answer.result()[0] for answer in answers} == {200}
    assert len(slow_scrapes) == 1
    server._page._made_at += 30  # as this process may be held up for more than a second here
    get(server, "/metrics")
    assert len(slow_scrapes) == 1
    server._page._made_at -= 32
    pool = ThreadPoolExecutor(1)
    later = pool.submit(get, server, "/metrics")
    wait_for(lambda: len(slow_scrapes) == 2, "another scrape")
    slow_scrapes[1].set()
    assert later.result()[0] == 200


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("asked", "takes"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.000", False), ("", False)],
)
def test_metrics_are_compressed_for_clients_that_accept_it(compress: bool, asked: str, takes: bool) -> None:
    """Where the configuration says so, too."""
    registry = CollectorRegistry()
    Gauge("fake", "A metric.", registry=registry).set(7)
    made = HttpServer(Listen("127.0.0.1", 0), registry, str, str, compress=compress)
    made.start()
    try:
        request = urllib.request.Request(f"http://{made.address}/metrics", headers={"Accept-Encoding": asked})
        with urllib.request.urlopen(request, timeout=60) as answer:
            body, encoding = answer.read(), answer.headers.get("Content-Encoding", "")
            assert answer.headers["Vary"] == "Accept, Accept-Encoding"
        assert encoding == ("gzip" if compress and takes else "")
        assert b"fake 7.0" in (gzip.decompress(body) if encoding else body)
    finally:
        made.close()


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (PROMETHEUS, True),  # what Prometheus 2.42 sends
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5", False),
        ("application/openmetrics-text;q=0.1,text/plain", False),
        ("application/openmetrics-text;q=0", False),
        ("text/html,*/*", False),
        ("", False),
    ],
)
def test_openmetrics_is_for_scrapers_that_prefer_it(accept: str, openmetrics: bool) -> None:
    """By their Accept header; a browser and curl get plain text."""
    registry = CollectorRegistry()
    Gauge("fake", "A metric.", registry=registry).set(7)
    made = HttpServer(Listen("127.0.0.1", 0), registry, str, str)
    made.start()
    try:
        request = urllib.request.Request(f"http://{made.address}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=60) as answer:
            body, kind = answer.read().decode(), answer.headers["Content-Type"]
        assert kind.startswith("application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain")
        assert body.endswith("# EOF\n") == openmetrics
        assert "fake 7.0\n" in body
    finally:
        made.close()


def test_a_big_answer_arrives_whole_at_a_slow_reader(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than the kernel accepts at once; HEAD has its length and no body."""
    big = b"x" * (8 << 20)
    monkeypatch.setattr("ringfence.export.http_endpoints.exposition", lambda registry, openmetrics: big)
    with connect(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        data = bytearray()
        while block := client.recv(65536):
            data += block
    assert data.endswith(big)
    with connect(server) as client:
        client.sendall(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head = client.recv(4096)
    assert b"Content-Length: %d\r\n" % len(big) in head
    assert head.endswith(b"\r\n\r\n")


def test_clients_that_do_not_read_share_one_answer(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy for each connection would take the memory of the node, and the allocator keeps it."""
    big = b"x" * (8 << 20)
    monkeypatch.setattr("ringfence.export.http_endpoints.exposition", lambda registry, openmetrics: big)
    with contextlib.ExitStack() as stack:
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        hold(server, stack, 8, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: sum(bool(one.outbox) for one in list(server._connections)) == 8, "eight answers")
        assert tracemalloc.get_traced_memory()[1] < len(big)


def test_a_bug_in_a_scrape_is_an_answer_and_counted(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500, and the next request is served."""

    def broken(registry: CollectorRegistry) -> bytes:
        raise KeyError("a bug")

    before = faults.handler_errors["http"]
    with monkeypatch.context() as patch:
        patch.setattr("ringfence.export.http_endpoints.exposition", broken)
        assert get(server, "/metrics")[0] == 500
    assert faults.handler_errors["http"] == before + 1
    assert get(server, "/metrics")[0] == 200


def test_without_descriptors_it_waits_for_some(server: HttpServer) -> None:
    """EMFILE: no busy loop, no end of the thread; afterwards it answers."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(2)]
        with no_descriptors():
            busy = time.process_time()
            for client in clients:
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            clients[0].settimeout(1)
            with contextlib.suppress(OSError):  # no answer can come while there is no descriptor
                clients[0].recv(4096)
            assert time.process_time() - busy < 1
    assert get(server, "/healthz")[0] == 200


def test_health_has_a_port_of_its_own(state: State) -> None:
    """The checks, and no metrics."""
    made = HealthServer(Listen("127.0.0.1", 0), lambda: state["healthy"], lambda: state["ready"])
    made.start()
    try:
        assert get(made, "/healthz") == (200, "ok\n")
        state["ready"] = "not yet"
        assert get(made, "/readyz") == (503, "not yet\n")
        assert get(made, "/metrics")[0] == 404
    finally:
        made.close()


def test_a_port_in_use_is_a_clear_error(server: HttpServer) -> None:
    """With the address and a remedy."""
    with pytest.raises(Error, match=f"cannot listen on {server.address}") as caught:
        HttpServer(server.address, CollectorRegistry(), str, str)
    assert "--http-listen" in caught.value.hint


def test_an_address_of_another_machine_is_a_clear_error() -> None:
    """192.0.2.1 is documentation's."""
    with pytest.raises(Error, match=r"cannot listen on 192\.0\.2\.1:80"):
        HttpServer(Listen("192.0.2.1", 80), CollectorRegistry(), str, str)


def test_an_unresolvable_name_is_a_clear_error() -> None:
    """The resolver's error is a configuration error."""
    with pytest.raises(ConfigError, match="not an address"):
        HttpServer(Listen("no such host", 80), CollectorRegistry(), str, str)


def test_all_addresses_are_those_of_both_families(state: State) -> None:
    """`[::]`: the pod's address may be of either kind."""
    made = HttpServer(Listen("::", 0), CollectorRegistry(), lambda: "", lambda: "")
    made.start()
    try:
        for host in ("127.0.0.1", "[::1]"):
            with urllib.request.urlopen(f"http://{host}:{made.address.port}/healthz", timeout=60) as answer:
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
