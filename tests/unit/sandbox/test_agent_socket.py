# SPDX-License-Identifier: Apache-2.0
"""Which agent enrols a sandbox."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ringfence.sandbox.agent_socket import agent_listens, follow_commands
from ringfence_linux import enroll


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, None),
        ({"RINGFENCE_SOCKET": "/x/agent.sock"}, "/x/enroll.sock"),
        ({"RINGFENCE_SOCKET": "/x/agent.sock", enroll.VARIABLE: "/y/other.sock"}, "/y/other.sock"),
        ({"RINGFENCE_SOCKET": ""}, None),
    ],
)
def test_run_asks_the_agent_that_other_commands_ask(given: dict[str, str], asked: str | None) -> None:
    """The agent's two sockets are in one directory."""
    environment = dict(given)
    follow_commands(environment)
    assert environment.get(enroll.VARIABLE) == asked


def test_an_agent_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a socket that an agent left."""
    path = tmp_path / "enroll.sock"
    monkeypatch.setenv(enroll.VARIABLE, str(path))
    assert not agent_listens()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(path))
        server.listen()
        assert agent_listens()
    assert not agent_listens()
