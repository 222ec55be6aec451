# SPDX-License-Identifier: Apache-2.0
"""One request and its deadline: servers that hang at each step, and the check of certificates."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from ringfence.httpclient import FAILURES, Connection, Target, dial, target_of, tls_context
from tests.support.tls import Authority, HttpServer
from tests.support.waiting import patience, wait_for

Serve = Callable[[socket.socket, threading.Event], None]


def get(target: Target, timeout: float = 5.0, context: ssl.SSLContext | None = None) -> bytes:
    """Returns the body of an answer."""
    with Connection(target, timeout, context) as connection:
        connection.request("GET", target.path)
        return connection.getresponse().read()


@contextlib.contextmanager
def raw_server(serve: Serve) -> Iterator[Target]:
    """A server that runs `serve` for each connection, until the event is set."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while not done.is_set():
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        serve(connection, done)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield Target(False, "127.0.0.1", server.getsockname()[1], "/")
        done.set()
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def hang(connection: socket.socket, done: threading.Event) -> None:
    """Accept the connection and send nothing."""
    done.wait(60)


def drip(data: bytes) -> Serve:
    """Send this, and then a byte now and then."""

    def serve(connection: socket.socket, done: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(data)
        while not done.wait(0.03):
            connection.sendall(b"x")

    return serve


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize("serve", [hang, drip(b"HTTP/1.1 200 OK\r\nX-A: "), drip(HEAD)])
def test_the_whole_request_has_one_deadline(serve: Serve) -> None:
    """Silence, an endless header, an endless body."""
    with raw_server(serve) as target:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            get(target, timeout=0.4)
        assert 0.3 < time.monotonic() - began < patience(20)


@pytest.mark.parametrize("serve", [hang, drip(b"\x16\x03\x03\x40\x00\x02")])
def test_the_tls_handshake_counts_towards_the_deadline(serve: Serve) -> None:
    """A record of 16 kB, byte by byte: each read of it would have started a timeout of its own."""
    with raw_server(serve) as target:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            get(target._replace(tls=True), 0.4, tls_context(None))
        assert time.monotonic() - began < patience(20)


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port that neither accepts nor refuses connections:
    its queue is full, the kernel drops packets.
    """
    with contextlib.ExitStack() as held:
        server = held.enter_context(socket.create_server(("127.0.0.2", 0), backlog=0))
        address = server.getsockname()
        for _ in range(3):
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        yield address[1]


@pytest.mark.parametrize("holes", [1, 3])
def test_the_next_address_of_a_name_gets_a_share_of_the_time(
    monkeypatch: pytest.MonkeyPatch, holes: int
) -> None:
    """The first is of a machine that is down, or of a family that is dropped on the way.

    A client that spent all its time on the first would never reach the second.
    """
    with black_hole() as hole, raw_server(drip(HEAD)) as target:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", hole))] * holes
        found.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", (target.host, target.port)))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        began = time.monotonic()
        dial("two.example", 1, 4.0).close()
        assert time.monotonic() - began < 4
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found[:-1])
        with pytest.raises(TimeoutError):
            dial("one.example", 1, 0.3)


def test_a_server_that_does_not_read_times_out() -> None:
    """The request does not fit into the kernel's buffers."""
    with raw_server(hang) as target, Connection(target, 0.4) as connection:
        with pytest.raises(TimeoutError):
            connection.request("POST", "/", b"x" * (64 << 20))


@pytest.mark.parametrize("tls", [False, True])
def test_a_request_can_be_cut_from_another_thread(tls: bool) -> None:
    """It fails there at once, with an exception that callers expect."""
    with raw_server(hang) as target:
        connection = Connection(target._replace(tls=tls), 60, tls_context(None) if tls else None)
        caught: list[BaseException] = []

        def ask() -> None:
            try:
                with connection:
                    connection.request("GET", "/")
                    connection.getresponse()
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()

        def cut() -> bool:  # before it is connected there is nothing to cut
            connection.cut()
            return bool(caught)

        wait_for(cut, "the end of the request")
        thread.join(5)
    assert isinstance(caught[0], FAILURES)


def test_a_machine_that_vanished_is_detected() -> None:
    """The kernel sends keepalives after 30 s, and gives
    up on data that is not acknowledged within 30.
    """
    with raw_server(drip(HEAD)) as target, Connection(target, 5) as connection:
        connection.request("GET", "/")
        sock = connection._under
        assert sock is not None
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert [sock.getsockopt(socket.IPPROTO_TCP, one) for one in options] == [30, 10, 3, 30_000]


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "127.0.0.1", "no-such-host.invalid"])
def test_an_unreachable_host_is_an_oserror(host: str) -> None:
    """An invalid name, a port without a listener, an unknown name."""
    with pytest.raises(OSError):
        get(Target(False, host, 1, "/"))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://h", Target(False, "h", 80, "/")), ("https://h/a?b=c", Target(True, "h", 443, "/a?b=c")),
        ("https://[::1]:6443/x/", Target(True, "::1", 6443, "/x/")),
    ],
)  # fmt: skip
def test_urls_are_parsed(url: str, target: Target) -> None:
    """With the default ports."""
    assert target_of(url) == target


class Hello(BaseHTTPRequestHandler):
    """Answers every request."""

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        """Send back the Host header."""
        body = self.headers["Host"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The authority that the tests trust."""
    return Authority(tmp_path)


@contextlib.contextmanager
def server(certificate: Path, host: str = "127.0.0.1") -> Iterator[HttpServer]:
    """A server that shows this certificate."""
    made = HttpServer(Hello, host=host)
    made.certificate = certificate
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(5)


@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "IP:127.0.0.1"), ("::1", "IP:::1")])
def test_a_server_of_a_known_authority_is_trusted(authority: Authority, host: str, name: str) -> None:
    """By either family; the Host header is the URL's, with its brackets."""
    with server(authority.issue([name]), host) as made:
        target = target_of(made.url("/"))
        assert get(target, context=tls_context(authority.path)).decode() == target.place


def test_the_name_is_checked_not_only_the_signature(authority: Authority) -> None:
    """The certificate is valid, but for another name."""
    with server(authority.issue(["DNS:other.example", "IP:192.0.2.1"])) as made:
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            get(target_of(made.url()), context=tls_context(authority.path))


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    """It has expired."""
    with server(authority.issue(days=-1)) as made:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            get(target_of(made.url()), context=tls_context(authority.path))


def test_another_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    """Neither one of the same kind, nor with the system's list."""
    with server(Authority(tmp_path, "stranger").issue()) as made:
        for ca in (authority.path, None):
            with pytest.raises(ssl.SSLCertVerificationError):
                get(target_of(made.url()), context=tls_context(ca))


@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nnonsense\n"])
def test_an_unreadable_authority_is_an_error(tmp_path: Path, content: str | None) -> None:
    """A missing or broken file must not mean that the system's list is trusted."""
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OSError, match=r"ca\.crt"):
        tls_context(path)


def test_a_server_may_require_a_client_certificate(authority: Authority) -> None:
    """It answers with the certificate, and not without it."""
    with server(authority.issue()) as made:
        made.clients = authority.path
        context = tls_context(authority.path, authority.issue(["DNS:agent"], label="agent"))
        assert get(target_of(made.url()), context=context)
        with pytest.raises(FAILURES):
            get(target_of(made.url()), context=tls_context(authority.path))
