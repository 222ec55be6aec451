# SPDX-License-Identifier: Apache-2.0
"""Sending: outages, back-off, receivers that refuse, hang, are slow, or answer nonsense."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from ringfence.export.escape import escape
from ringfence.export.sinks.http import Http, HttpSettings
from ringfence.export.sinks.sender import BACKOFF_MOST, Record, Refused, Sender, Unavailable
from ringfence.export.sinks.spool import Spool
from ringfence.export.sinks.web import Webhook
from tests.support.agent import free_port
from tests.support.receivers import alert, http_receiver
from tests.support.waiting import wait_for


class ScaledReceiver:
    """Unavailable until a time of the test's clock; accepts everything afterwards."""

    name, batch_records, batch_bytes = "scaled", 10, 1 << 20

    def __init__(self, back_at: float) -> None:
        self.now, self.back_at = 0.0, back_at
        self.got: list[str] = []
        self.attempts: list[float] = []

    def send(self, records: Sequence[Record]) -> None:
        """Refuse the connection while away."""
        self.attempts.append(self.now)
        if self.now < self.back_at:
            raise Unavailable("connection", "nobody listens")
        self.got += [record["id"] for record in records]

    def close(self) -> None:
        """Nothing is held."""

    def pause(self, seconds: float) -> bool:
        """Time passes."""
        self.now += seconds
        return False


def filled(directory: Path, count: int) -> Spool:
    """A queue with this many alerts."""
    spool = Spool(directory, 1 << 20)
    for number in range(count):
        spool.append(json.dumps(alert(number)).encode())
    return spool


def test_nothing_is_lost_in_ten_minutes_without_a_receiver(tmp_path: Path) -> None:
    """Time is scaled: 600 s of refused connections, with increasing pauses, then everything in order."""
    receiver = ScaledReceiver(back_at=600.0)
    news: list[str] = []
    sender = Sender(receiver, filled(tmp_path, 35), lambda _, text: news.append(text), pause=receiver.pause)
    while sender.spool.records:
        sender.step(idle=0)
    assert receiver.got == [f"ab12cd-{number:x}" for number in range(35)]
    assert not any(sender.lost.values())
    pauses = [b - a for a, b in zip(receiver.attempts, receiver.attempts[1:], strict=False) if b > a]
    assert all(pause <= BACKOFF_MOST for pause in pauses)
    assert 10 <= len(pauses) <= 30  # 30 to 60 s apart at last, not one a second
    assert news == ["nobody listens", ""]  # reported once when it is lost, once when it is back


def test_pauses_differ_between_nodes(tmp_path: Path) -> None:
    """A fleet must not retry at the same time: pauses are spread over half of their length."""
    waited: list[float] = []

    def pause(seconds: float) -> bool:
        waited.append(seconds)
        return True

    for number, chance in enumerate((0.0, 0.5, 1.0)):
        spool = filled(tmp_path / str(number), 1)
        Sender(ScaledReceiver(9e9), spool, pause=pause, chance=lambda chance=chance: chance).step()  # type: ignore[misc]
    assert waited == [0.25, 0.375, 0.5]


class Picky:
    """Refuses alerts of one kind permanently."""

    name, batch_records, batch_bytes = "picky", 10, 1 << 20

    def __init__(self) -> None:
        self.got: list[str] = []

    def send(self, records: Sequence[Record]) -> None:
        """All or nothing."""
        if any(record["severity"] == "low" for record in records):
            raise Refused("I take no such thing")
        self.got += [record["id"] for record in records]

    def close(self) -> None:
        """Nothing is held."""


def test_a_refused_alert_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """It is found, counted, and skipped."""
    spool = Spool(tmp_path, 1 << 20)
    for number in range(10):
        spool.append(json.dumps(alert(number, severity="low" if number == 4 else "high")).encode())
    receiver = Picky()
    sender = Sender(receiver, spool)
    sender.step()
    assert receiver.got == [f"ab12cd-{number:x}" for number in range(10) if number != 4]
    assert (sender.sent, sender.lost["refused"], spool.records) == (9, 1, 0)


def test_a_real_outage_of_seconds_loses_nothing(tmp_path: Path) -> None:
    """Nothing listens, then a receiver does; meanwhile more alerts arrive, and the sender is restarted."""
    port = free_port()
    settings = HttpSettings(timeout=2.0)
    url = f"http://127.0.0.1:{port}/hook"

    def new_sender() -> Sender:
        return Sender(Webhook("webhook", Http(url, settings), dict), Spool(tmp_path, 1 << 20))

    sender = new_sender()
    sender.start()
    for number in range(100):
        sender.spool.append(json.dumps(alert(number)).encode())
    wait_for(lambda: sender.retries["connection"] >= 2, "two attempts")
    assert sender.up is False
    sender.close(0.5)
    sender.spool.close()
    sender = new_sender()  # the agent was restarted in the middle of it
    sender.start()
    with http_receiver(port) as receiver:
        for number in range(100, 130):
            sender.spool.append(json.dumps(alert(number)).encode())
        wait_for(lambda: len(receiver.alerts()) >= 130, "all of them")
        sender.close()
    assert receiver.alerts() == [f"ab12cd-{number:x}" for number in range(130)]
    assert not any(sender.lost.values())
    sender.spool.close()


def post(url: str, timeout: float = 20.0) -> None:
    """One request."""
    Http(url, HttpSettings(timeout)).post(b"{}")


@pytest.mark.parametrize("status", [500, 502, 429, 401, 404, 302])
def test_a_temporary_error_is_retried(status: int) -> None:
    """Errors of the server, of the credentials and of the address are not caused by the alert."""
    with http_receiver() as receiver:
        receiver.status = lambda number: status
        with pytest.raises(Unavailable) as caught:
            post(receiver.url)
        assert caught.value.reason == f"http_{status // 100}xx"
        assert receiver.requests == 1  # a redirect is not followed


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_permanent_refusal_is_final(status: int) -> None:
    """The same request would fail again."""
    with http_receiver() as receiver:
        receiver.status = lambda number: status
        with pytest.raises(Refused):
            post(receiver.url)


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("17", 17, 17),
        ("@17", 15, 17),
        ("@-60", 0, 0),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("Wed, 99 Foo 2026", 0, 0),
        ("1e9", 0, 0),
    ],
)
def test_retry_after_is_read(said: str, least: float, most: float) -> None:
    """Retry-After (RFC 9110, 10.2.3) in seconds, or as a date by the receiver's own clock; nonsense counts
    for nothing."""
    with http_receiver() as receiver:
        receiver.status = lambda number: 503
        receiver.retry_after = said
        if said[0] == "@":
            receiver.retry_after = formatdate(time.time() + int(said[1:]), usegmt=True)
        with pytest.raises(Unavailable) as caught:
            post(receiver.url)
        assert least <= caught.value.retry_after <= most
        assert not caught.value.blameless


def test_too_many_requests_blame_no_alert() -> None:
    """429."""
    with http_receiver() as receiver:
        receiver.status = lambda number: 429
        with pytest.raises(Unavailable) as caught:
            post(receiver.url)
        assert caught.value.blameless


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_a_hanging_receiver_times_out(how: str) -> None:
    """Silence, and slow single bytes, which a time-out per read would not end."""
    with http_receiver() as receiver:
        receiver.delay, receiver.drip = (30.0, 0.0) if how == "hang" else (0.0, 0.05)
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            post(receiver.url, timeout=0.3)
        assert caught.value.reason == "timeout"
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(("status", "error"), [(200, None), (204, None), (400, Refused), (503, Unavailable)])
@pytest.mark.parametrize("rest", ["Content-Length: 9", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("hangs", [True, False])
def test_the_status_is_the_answer(status: int, error: type[Exception] | None, rest: str, hangs: bool) -> None:
    """The status counts even if the body never arrives or ends early.

    A receiver that answered 200 has the alerts: sent again, they would arrive each time.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(f"HTTP/1.1 {status} X\r\n{rest}\r\n\r\n".encode())
                if hangs:
                    connection.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(error) if error else contextlib.nullcontext():
            post(f"http://127.0.0.1:{port}/", timeout=0.3)
        thread.join(5)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 99999999999999999999 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\xff\x1b[2J" * 1000,
        b"HTTP/1.1 200 OK\r\n" + b"X-Endless: " + b"a" * (1 << 20),
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: a\r\n" * 100_000,
    ],
    ids=["nothing", "nonsense", "words", "number", "ssh", "bytes", "endless header", "many headers"],
)
def test_an_answer_that_is_none_is_a_receiver_that_is_away(answer: bytes) -> None:
    """The alert is kept: it was neither accepted nor refused. The log's text of it is one printable line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(Unavailable) as caught:
            post(f"http://127.0.0.1:{port}/", timeout=5)
        thread.join(5)
        assert escape(str(caught.value)).isprintable()


def test_a_slow_receiver_is_waited_for() -> None:
    """It answers within its time."""
    with http_receiver() as receiver:
        receiver.delay = 0.2
        post(receiver.url)
        assert len(receiver.bodies) == 1


def test_headers_come_from_a_file_that_may_change(tmp_path: Path) -> None:
    """Tokens are rotated; a missing file is reported, and no alert is sent without credentials."""
    headers = tmp_path / "headers"
    headers.write_text("# ours\nAuthorization: Bearer one\n\nX-Scope-OrgID: 7\n")
    with http_receiver() as receiver:
        http = Http(receiver.url, HttpSettings(headers=headers))
        http.post(b"{}")
        headers.write_text("Authorization: Bearer two\n")
        http.post(b"{}")
        headers.unlink()
        with pytest.raises(Unavailable) as caught:
            http.post(b"{}")
    assert [got["Authorization"] for got in receiver.headers] == ["Bearer one", "Bearer two"]
    assert receiver.headers[0]["X-Scope-OrgID"] == "7"
    assert caught.value.reason == "headers"


@pytest.mark.parametrize("line", ["Bearer one", "Auth orization: x", "X: a\x00b", "\xef\xbb\xbfA: b"])
def test_an_invalid_header_line_is_reported_and_nothing_is_sent(tmp_path: Path, line: str) -> None:
    """Above all one whose name was forgotten: without its credentials a request would be refused elsewhere,
    which says less."""
    headers = tmp_path / "headers"
    headers.write_text(line + "\n", encoding="latin-1")
    with http_receiver() as receiver:
        with pytest.raises(Unavailable) as caught:
            Http(receiver.url, HttpSettings(headers=headers)).post(b"{}")
        assert receiver.requests == 0
    assert caught.value.reason == "headers"
    assert "Bearer" not in str(caught.value)


def test_an_error_does_not_contain_the_address() -> None:
    """The path of a webhook is often secret."""
    port = free_port()
    with pytest.raises(Unavailable) as caught:
        post(f"http://127.0.0.1:{port}/services/T0/SECRET?key=SECRET")
    assert "SECRET" not in str(caught.value)
    assert str(port) in str(caught.value)


def test_closing_does_not_wait_for_a_receiver_that_is_away(tmp_path: Path) -> None:
    """The agent must end in time; the queue stays."""
    url = f"http://127.0.0.1:{free_port()}/"
    sender = Sender(Webhook("webhook", Http(url, HttpSettings(timeout=1.0)), dict), filled(tmp_path, 3))
    sender.start()
    wait_for(lambda: sender.up is False, "the first attempt")
    began = time.monotonic()
    sender.close(1.0)
    assert time.monotonic() - began < 10
    sender.spool.close()
    assert Spool(tmp_path, 1 << 20).records == 3
    assert "send-webhook" not in [thread.name for thread in threading.enumerate()]


class Busy(Counter[str]):
    """A counter that changes during iteration, as if another thread counted a new kind."""

    def items(self) -> Any:
        for number, pair in enumerate(super().items()):
            self[f"new-{number}"] = 1
            yield pair


def test_a_scrape_is_safe_while_a_new_kind_of_loss_is_counted(tmp_path: Path) -> None:
    """It is answered, whatever is counted at that moment."""
    sender = Sender(ScaledReceiver(0), filled(tmp_path, 1))
    sender.spool.lost, sender.given_up = Busy(queue_full=2, corrupt=1), Busy(refused=3, undeliverable=0)
    assert sender.lost == Counter(queue_full=2, corrupt=1, refused=3)
