# SPDX-License-Identifier: Apache-2.0
"""What becomes of bcc's process, told without bcc: a program that stands in for it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import ProbeError
from ringfence.probes import compiler
from ringfence.probes.compiler import Workshop
from ringfence.probes.read import read_file
from tests.unit.probes.documents import write

# Called as the interpreter would be: -I, the script, the descriptor of the socket.
DIES_WITH_ITS_REQUEST = """#!/usr/bin/python3
import os, select, signal, sys
select.select([int(sys.argv[3])], [], [])
os.kill(os.getpid(), signal.SIGKILL)
"""
WAITS_FOR_A_REQUEST = """#!/usr/bin/python3
import socket, sys
socket.socket(fileno=int(sys.argv[3])).recv(1)
"""


def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: str) -> str:
    """The one problem of a build by that program."""
    python = tmp_path / "python"
    python.write_text(stand_in)
    python.chmod(0o755)
    monkeypatch.setattr(compiler, "find_python", lambda: str(python))
    workshop = Workshop(tmp_path / "state", headers="installed")
    with pytest.raises(ProbeError) as caught:
        workshop.build(read_file(write(tmp_path)))
    (problem,) = caught.value.problems
    return problem.message


def test_a_child_that_dies_with_its_request_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel resets the connection: no more than that the child is gone, which its status says better."""
    message = refusal(tmp_path, monkeypatch, DIES_WITH_ITS_REQUEST)
    assert message == "bcc's process ended with SIGKILL"


def test_a_request_that_cannot_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child would wait for it for ever, and so would the agent for the child's end."""

    def refuse(*_: Any) -> int:
        raise OSError(90, "Message too long")

    monkeypatch.setattr(socket, "send_fds", refuse)
    message = refusal(tmp_path, monkeypatch, WAITS_FOR_A_REQUEST)
    assert message == "bcc's process met an error: [Errno 90] Message too long"
