# SPDX-License-Identifier: Apache-2.0
"""The agent's reports to systemd, on a socket as systemd's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.daemon.health.service_manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket, and what NOTIFY_SOCKET says of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        name = str(tmp_path / "notify") if request.param == "path" else f"@ringfence-test-{os.getpid()}"
        receiver.bind(name if name[0] == "/" else "\0" + name[1:])
        receiver.settimeout(5)
        yield receiver, name


def test_each_report_is_one_datagram(systemd: tuple[socket.socket, str]) -> None:
    """In the words of sd_notify(3), by a path and by an abstract name."""
    receiver, name = systemd
    manager = ServiceManager({"NOTIFY_SOCKET": name})
    manager.waiting("a predecessor")
    manager.ready()
    manager.alive()
    manager.stopping()
    assert [receiver.recv(4096).decode() for _ in range(4)] == [
        "STATUS=waiting for a predecessor",
        "READY=1\nSTATUS=ready",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=stopping",
    ]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/notify"}])
def test_an_agent_that_nobody_supervises_is_not_disturbed(environment: dict[str, str]) -> None:
    """No variable, an empty one, a socket that is gone."""
    ServiceManager(environment).ready()


def test_a_full_socket_does_not_stop_the_loop(systemd: tuple[socket.socket, str]) -> None:
    """A systemd that reads nothing: the report is dropped, without waiting."""
    receiver, name = systemd
    manager = ServiceManager({"NOTIFY_SOCKET": name})
    for _ in range(5000):
        manager.alive()
    received = 0
    receiver.setblocking(False)
    while received < 5000:
        try:
            receiver.recv(4096)
        except BlockingIOError:
            break
        received += 1
    assert 0 < received < 5000
