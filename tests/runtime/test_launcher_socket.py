# SPDX-License-Identifier: Apache-2.0
"""The warm launcher on a socket of a service manager: it serves on it, and leaves it to its owner."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from ringfence_runtime.errors import Error
from ringfence_runtime.launcher.server import inherited
from tests.runtime.conftest import ROOT, Box, Runtime
from tests.support import force
from tests.support.waiting import wait_for


@pytest.mark.root
def test_the_first_command_starts_it(box: Box, tmp_path: Path) -> None:
    """As the units of the Debian package do: a socket that waits, and a launcher for the first caller."""
    force.need_root()
    force.need_program("gcc")
    activate = force.need_program("systemd-socket-activate")
    path, executable = tmp_path / "launcher.sock", tmp_path / "ringfence-runtime"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    install = ["-m", "ringfence_runtime", "install", "--launcher", str(path), str(executable)]
    subprocess.run(["/usr/bin/python3", *install], check=True, env=environment)
    process = subprocess.Popen(
        [activate, "--seqpacket", f"--listen={path}", executable, "launcher"],
        env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(path.exists, "the service manager listens")
        box.runtime = Runtime(executable, box.runtime.root)
        assert (
            box.shell("cut -d ' ' -f 4 /proc/self/stat >/dev/null; echo ${LISTEN_FDS-none}").output()
            == "none\n"
        )
        assert Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[-2:-1] == [b"launcher"]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1, "its spawner alone: the container was its child, and has ended"
    finally:
        process.terminate()
        process.wait(60)
    assert path.is_socket()


def _pass(monkeypatch: pytest.MonkeyPatch, number: int, count: str = "1", pid: int = 0) -> None:
    monkeypatch.setattr("ringfence_runtime.launcher.server._FIRST_PASSED", number)
    monkeypatch.setenv("LISTEN_PID", str(pid or os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)


def test_only_a_listening_socket_of_the_right_kind_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each other descriptor is an error, and not a launcher that nobody can reach."""
    stream, deaf = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with stream, deaf:
        stream.bind("\0ringfence-test-stream-" + str(os.getpid()))
        stream.listen()
        for number in (stream.fileno(), deaf.fileno()):
            _pass(monkeypatch, os.dup(number))
            with pytest.raises(Error, match="no listening SOCK_SEQPACKET socket"):
                inherited()
    with open(os.devnull) as file:
        _pass(monkeypatch, os.dup(file.fileno()))
        with pytest.raises(Error, match="is no socket"):
            inherited()
    _pass(monkeypatch, 3, count="2")
    with pytest.raises(Error, match="one socket is needed, not 2"):
        inherited()


def test_variables_of_another_process_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no child inherits them."""
    _pass(monkeypatch, 3, pid=1)
    assert inherited() is None
    assert not [name for name in os.environ if name.startswith("LISTEN_")]
