# SPDX-License-Identifier: Apache-2.0
"""The outcome of bcc's process, tested without bcc: a script replaces it."""

from __future__ import annotations

import os
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ringfence.bpf import _bcc_child
from ringfence.errors import ProbeError
from ringfence.probes import compiler
from ringfence.probes.compiler import Workshop
from ringfence.probes.read import read_file
from tests.unit.probes.documents import write

# Called like the interpreter: -I, the script, the descriptor of the socket.
DIES_WITH_ITS_REQUEST = """#!/usr/bin/python3
import os, select, signal, sys
select.select([int(sys.argv[3])], [], [])
os.kill(os.getpid(), signal.SIGKILL)
"""
WAITS_FOR_A_REQUEST = """#!/usr/bin/python3
import socket, sys
socket.socket(fileno=int(sys.argv[3])).recv(1)
"""


def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> str:
    """Returns the one problem of a build with that program."""
    python = tmp_path / "python"
    python.write_text(script)
    python.chmod(0o755)
    monkeypatch.setattr(compiler, "find_python", lambda: str(python))
    workshop = Workshop(tmp_path / "state", headers="installed")
    with pytest.raises(ProbeError) as caught:
        workshop.build(read_file(write(tmp_path)))
    (problem,) = caught.value.problems
    return problem.message


def test_a_child_that_dies_with_its_request_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel resets the connection, which only
    means that the child ended; its status says more.
    """
    message = refusal(tmp_path, monkeypatch, DIES_WITH_ITS_REQUEST)
    assert message == "bcc's process ended with SIGKILL"


def test_a_request_that_cannot_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child would wait for it for ever, and so would the agent for the child's end."""

    def refuse(*_: Any) -> int:
        raise OSError(90, "Message too long")

    monkeypatch.setattr(socket, "send_fds", refuse)
    message = refusal(tmp_path, monkeypatch, WAITS_FOR_A_REQUEST)
    assert message == "bcc's process failed: [Errno 90] Message too long"


HANDS_OVER = """#!/usr/bin/python3
import json, os, socket, sys
connection = socket.socket(fileno=int(sys.argv[3]))
connection.recv(1 << 17)
fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(203)]
hooks = ["x"] * 200
answer = {"size": 8, "shape": [["m" * %d, "int", 0, 4, 0]], "hooks": hooks}
connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
socket.send_fds(connection, [json.dumps(answer).encode()], fds)
"""


def test_the_links_of_all_programs_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor that is not received is closed by
    the kernel: that program would be silently detached.
    """
    python = tmp_path / "python"
    python.write_text(HANDS_OVER % 1)
    python.chmod(0o755)
    monkeypatch.setattr(compiler, "find_python", lambda: str(python))
    attached = Workshop(tmp_path / "state", headers="installed").build(read_file(write(tmp_path)))
    assert len(attached.links) == len(attached.hooks) == 200
    attached.close()


def test_an_answer_that_does_not_fit_is_refused_and_leaves_nothing_attached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event of thousands of members: its programs must not stay attached without an owner."""
    before = len(os.listdir("/proc/self/fd"))
    message = refusal(tmp_path, monkeypatch, HANDS_OVER % (1 << 17))
    assert "too many programs" in message
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["linux/fs.h", "made/up/by/me.h"])
def test_a_missing_kernel_header_is_created(tmp_path: Path, name: str) -> None:
    """Empty: its types are in the dump of the BTF."""
    assert _bcc_child._mended(str(tmp_path), b"p.c:1:10: fatal error: '%s' file not found" % name.encode())
    assert (tmp_path / name).read_bytes() == b""


@pytest.mark.parametrize("name", ["{}/away/x.h", "../away/x.h", "linux/../../away/x.h", "..//away/x.h"])
def test_no_header_is_created_outside_of_the_tree(tmp_path: Path, name: str) -> None:
    """A mistyped path is a mistake to report, not a file to create on the host."""
    include = tmp_path / "include"
    (include / "linux").mkdir(parents=True)
    said = b"p.c:1:10: fatal error: '%s' file not found" % name.format(tmp_path).encode()
    assert not _bcc_child._mended(str(include), said)
    assert not (tmp_path / "away").exists()


def test_an_endless_source_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to something huge in place of the C file: refused, and not read into memory first."""
    monkeypatch.setattr(compiler, "find_python", lambda: "/nonexistent")
    path = write(tmp_path)
    source = path.with_suffix(".c")
    source.unlink()
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 256 << 20)
    source.symlink_to(tmp_path / "huge")
    tracemalloc.start()
    try:
        with pytest.raises(ProbeError, match="not a C source of at most 1 MiB"):
            Workshop(tmp_path / "state", headers="installed").build(read_file(path))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
