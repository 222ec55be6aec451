# SPDX-License-Identifier: Apache-2.0
"""The local socket: answers, subscriptions, and clients that are slow, silent or hostile."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ringfence import faults
from ringfence.abi import EventKind
from ringfence.cli.client import request, subscribe
from ringfence.errors import AgentUnreachableError, Error
from ringfence.export.stream import StreamServer
from tests.support.descriptors import no_descriptors
from tests.support.waiting import patience, wait_for


def answer(op: str, request: Mapping[str, Any]) -> Any:
    """What the fake agent says."""
    if op == "echo":
        return request.get("value")
    if op == "bug":
        raise RuntimeError("dictionary changed size during iteration")
    raise Error(f"no such request: {op}", hint="try echo")


def alert(
    rule: str = "r1", severity: str = "high", name: str = "web", when: float | None = None
) -> dict[str, Any]:
    """An alert as the agent publishes it."""
    moment = time.gmtime(when if when is not None else time.time())
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", moment),
        "event": "file.open",
        "kind": "alert",
        "severity": severity,
        "rule": {"id": rule},
        "container": {"id": "ab12cd34" + "0" * 56, "name": name},
    }


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StreamServer]:
    """A server that answers."""
    made = StreamServer(tmp_path / "run" / "agent.sock")
    made.start(answer)
    yield made
    made.close()


def connect(server: StreamServer) -> socket.socket:
    """A raw client."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(10)
    client.connect(str(server.path))
    return client


def test_only_root_may_connect(server: StreamServer) -> None:
    """Mode 0600."""
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


def test_without_descriptors_it_waits_for_some(server: StreamServer) -> None:
    """EMFILE: no busy loop; afterwards it answers who waited."""
    with connect(server) as first, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as second:
        first.sendall(b'{"op": "echo"}\n')
        assert b"true" in first.recv(4096)
        second.settimeout(2)
        with no_descriptors():
            busy = time.process_time()
            second.connect(str(server.path))
            second.sendall(b'{"op": "echo"}\n')
            with pytest.raises(TimeoutError):
                second.recv(4096)
            assert time.process_time() - busy < 1
        second.settimeout(10)
        assert b"true" in second.recv(4096)


def test_a_request_is_answered(server: StreamServer) -> None:
    """Values come back as they went; an Error comes back as an error with its hint."""
    assert request(server.path, "echo", value={"a": [1, "\u00e9"]}) == {"a": [1, "\u00e9"]}
    with pytest.raises(Error, match="no such request: nonsense") as caught:
        request(server.path, "nonsense")
    assert caught.value.hint == "try echo"


def test_a_bug_in_an_answer_is_reported_and_the_server_continues(server: StreamServer) -> None:
    """The thread that serves everybody must not end."""
    before = faults.handler_errors["stream"]
    with pytest.raises(Error, match="internal error: RuntimeError"):
        request(server.path, "bug")
    assert request(server.path, "echo", value=1) == 1
    assert faults.handler_errors["stream"] == before + 1  # ringfence_handler_errors_total


def test_the_thread_of_the_server_comes_back(server: StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in what it does for all: clients are hung up on, and the next one is served."""
    with connect(server) as client:
        client.sendall(b'{"op":"events","follow":true}\n')
        assert client.recv(100) == b'{"ok":true}\n'
        monkeypatch.setattr("ringfence.export.subscription.Subscription.wants", None)
        server.publish({"kind": "alert"})
        assert client.recv(100) == b""
    monkeypatch.undo()
    wait_for(lambda: request(server.path, "echo", value=2) == 2, "the server")


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"[]\n", b"null\n", b"\xff\xfe\n", b'{"op": 7}\n', b"[" * 60000 + b"\n",
     b'{"op":"events","severity":"urgent"}\n', b'{"op":"events","containers":"x"}\n',
     b'{"op":"events","events":["no.such"]}\n', b'{"op":"events","since":"yesterday"}\n'],
)  # fmt: skip
def test_nonsense_is_answered_with_an_error(server: StreamServer, line: bytes) -> None:
    """And the connection can be used again."""
    with connect(server) as client:
        client.sendall(line + b'{"op":"echo","value":2}\n')
        lines = client.makefile("rb")
        assert json.loads(lines.readline())["ok"] is False
        assert json.loads(lines.readline()) == {"ok": True, "result": 2}


def test_an_endless_line_is_cut_off(server: StreamServer) -> None:
    """A request has a bound; who exceeds it is disconnected."""
    with connect(server) as client:
        with pytest.raises(OSError):
            client.sendall(b"x" * (64 << 20))
    assert request(server.path, "echo", value=3) == 3


def test_history_is_filtered_and_ends(server: StreamServer) -> None:
    """Without follow: what happened lately, then the end."""
    for rule, severity, name in (("r1", "low", "web"), ("r2", "high", "web"), ("r3", "critical", "db")):
        server.publish(alert(rule, severity, name))
    server.publish(
        {"event": "container.start", "kind": "lifecycle", "time": "x", "container": {"name": "web"}}
    )
    wait_for(lambda: len(server._history) == 4, "the history")

    def rules(**filters: Any) -> list[str]:
        return [r.get("rule", {}).get("id", r["event"]) for r in subscribe(server.path, **filters)]

    assert rules() == ["r1", "r2", "r3", "container.start"]
    assert rules(severity="high") == ["r2", "r3"]
    assert rules(containers=["web"]) == ["r1", "r2", "container.start"]
    assert rules(containers=["ab12"]) == ["r1", "r2", "r3"]
    assert rules(containers=["ab1"]) == []
    assert rules(rules=["r3"]) == ["r3"]
    assert rules(events=["container.start"]) == ["container.start"]
    assert rules(alerts=True) == ["r1", "r2", "r3"]


def test_a_follower_learns_that_the_agent_ended(server: StreamServer) -> None:
    """After its last records; a client that waits for alerts must not mistake its end for silence."""
    server.publish(alert("r1"))
    wait_for(lambda: len(server._history) == 1, "the history")
    records = subscribe(server.path, follow=True)
    assert next(records)["rule"]["id"] == "r1"
    server.close()
    with pytest.raises(AgentUnreachableError, match="ended the connection"):
        next(records)


def test_an_agent_that_is_killed_as_it_writes_is_no_mistake_of_the_reader(tmp_path: Path) -> None:
    """Half a line comes last. It is an error with an exit code of its own, no traceback."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        records = subscribe(tmp_path / "s")

        def be_killed() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b'{"ok":true}\n{"event":"file.open"}\n{"event":"fi')

        agent = threading.Thread(target=be_killed)
        agent.start()
        assert next(records) == {"event": "file.open"}
        with pytest.raises(AgentUnreachableError, match="middle of a record"):
            next(records)
        agent.join()


def test_since_leaves_out_what_is_older(server: StreamServer) -> None:
    """Times are compared as times."""
    server.publish(alert("old", when=time.time() - 3600))
    server.publish(alert("new"))
    wait_for(lambda: len(server._history) == 2, "the history")
    assert [r["rule"]["id"] for r in subscribe(server.path, since=time.time() - 60)] == ["new"]


def test_a_follower_gets_what_happens(server: StreamServer) -> None:
    """A record that is published after the subscription arrives."""
    with connect(server) as client:
        client.sendall(b'{"op":"events","follow":true,"rules":["r9"]}\n')
        lines = client.makefile("rb")
        assert json.loads(lines.readline()) == {"ok": True}
        wait_for(lambda: server.clients == 1, "the subscription")
        server.publish(alert("r8"))
        server.publish(alert("r9"))
        assert json.loads(lines.readline())["rule"]["id"] == "r9"


def test_activity_is_wanted_only_while_somebody_asks(server: StreamServer) -> None:
    """The loop looks at `wanted`: one kind while a client names it, none afterwards."""
    with connect(server) as client, client.makefile("rb") as lines:
        client.sendall(b'{"op":"events","follow":true,"events":["process.exec"]}\n')
        wait_for(lambda: server.wanted[EventKind.PROCESS_EXEC], "the wish")
        assert sum(server.wanted) == 1
        server.offer(lambda event, _: dict(event), {"event": "process.exec", "n": 1}, None)
        lines.readline()
        assert json.loads(lines.readline())["n"] == 1
    wait_for(lambda: not any(server.wanted), "the wish to end")


def test_events_of_a_custom_probe_go_to_clients_that_name_it(server: StreamServer) -> None:
    """Or who asks for everything; none of the agent's own are offered for that."""
    assert not server.wants_probe("probe.io")
    with connect(server) as client, client.makefile("rb"):
        client.sendall(b'{"op":"events","follow":true,"events":["probe.io"]}\n')
        wait_for(lambda: server.wants_probe("probe.io"), "the wish")
        assert not server.wants_probe("probe.dns")
        assert not any(server.wanted)
    wait_for(lambda: not server.wants_probe("probe.io"), "the wish to end")
    with connect(server) as client, client.makefile("rb"):
        client.sendall(b'{"op":"events","follow":true,"activity":true}\n')
        wait_for(lambda: server.wants_probe("probe.dns"), "the wish")
    with connect(server) as client, client.makefile("rb") as lines:
        client.sendall(b'{"op":"events","events":["probe.IO"]}\n')
        assert "is not an event" in json.loads(lines.readline())["error"]


def test_a_subscriber_that_does_not_read_loses_records_and_gets_the_count(server: StreamServer) -> None:
    """It harms nobody: others are served, and it learns how many it missed when it reads again."""
    with connect(server) as sleeper:
        sleeper.sendall(b'{"op":"events","follow":true}\n')
        lines = sleeper.makefile("rb")
        lines.readline()
        big = alert() | {"details": {"path": "x" * 4000}}
        total = 0
        while not server.missed:
            server.publish(big)
            total += 1
            if total % 100 == 0:
                assert request(server.path, "echo", value=total) == total
            assert total < 100_000
        wait_for(lambda: not server._queue, "the queue to be handed out")
        sleeper.settimeout(patience(60))
        received = missed = 0
        while received + missed < total:
            record = json.loads(lines.readline())
            if record["event"] == "dropped":
                missed += record["count"]
            else:
                received += 1
            if received + server.missed >= total and missed == 0:
                server.publish(big)
                total += 1
        assert received + missed == total


def test_an_idle_connection_is_closed(server: StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that connects and sends nothing does not occupy a place forever."""
    monkeypatch.setattr("ringfence.export.stream._REQUEST_SECONDS", 0.0)
    with connect(server) as client:
        time_limit = time.monotonic() + 8
        client.settimeout(8)
        assert client.recv(1) == b""
        assert time.monotonic() < time_limit


def test_too_many_clients_are_turned_away(server: StreamServer) -> None:
    """A bound on connections, and room again when they go."""
    held = [connect(server) for _ in range(32)]
    wait_for(lambda: server.clients == 32, "32 clients")
    with connect(server) as one_more:
        assert b"too many clients" in one_more.recv(200)
    for client in held:
        client.close()
    wait_for(lambda: server.clients == 0, "room")
    assert request(server.path, "echo", value=4) == 4


def test_a_socket_left_by_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    """The path exists and nobody listens."""
    path = tmp_path / "agent.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    server = StreamServer(path)
    server.start(answer)
    assert request(path, "echo", value=5) == 5
    server.close()
    assert not os.path.exists(path)


def test_a_record_that_comes_as_the_server_wakes_up_does_not_send_it_to_sleep(
    server: StreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put just before the wake-up is read, and just after: the next one wakes the server all the same."""
    real, between = os.eventfd_read, [1]

    def read(fd: int) -> int:
        if between:
            between.pop()
            server.publish(alert("between"))
        return real(fd)

    monkeypatch.setattr(os, "eventfd_read", read)
    server.publish(alert("first"))
    wait_for(lambda: len(server.recent("alert", 9)) == 2, "both records")
    server.publish(alert("later"))
    wait_for(lambda: len(server.recent("alert", 9)) == 3, "the record after them")
    assert server.capacity[0] == 0


def test_a_deleted_socket_comes_back(server: StreamServer) -> None:
    """Its loss is noticed; a connected client stays, new ones are served, and only root may connect."""
    assert server.as_left()
    with connect(server) as before:
        for remove in (server.path.unlink, partial(shutil.rmtree, server.path.parent)):
            remove()
            assert not server.as_left()
            server.renew()
            wait_for(server.as_left, "the socket")
            assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
            assert request(server.path, "echo", value=1) == 1
        before.sendall(b'{"op":"echo","value":2}\n')
        assert json.loads(before.recv(100)) == {"ok": True, "result": 2}


def test_a_socket_of_another_process_is_replaced(server: StreamServer) -> None:
    """At the agent's path, clients must not talk to somebody else."""
    server.path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(server.path))
        assert not server.as_left()
        server.renew()
        wait_for(server.as_left, "the socket")
    assert request(server.path, "echo", value=3) == 3


def test_a_socket_that_cannot_be_created_is_tried_again(server: StreamServer) -> None:
    """The thread goes on without it."""
    parent = server.path.parent
    shutil.rmtree(parent)
    parent.write_text("no directory")
    server.renew()
    assert not server.as_left()
    parent.unlink()
    server.renew()
    wait_for(server.as_left, "the socket")
    assert request(server.path, "echo", value=4) == 4
