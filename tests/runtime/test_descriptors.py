# SPDX-License-Identifier: Apache-2.0
"""Objects passed between a runtime, its caller and
the workload: pid files, descriptors, terminals.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.support.waiting import patience

pytestmark = pytest.mark.root


def test_pid_file(box: Box, tmp_path: Path) -> None:
    """The init's pid on the host."""
    box.write()
    file = tmp_path / "pid"
    assert box.do("create", "--pid-file", str(file), capture=False).returncode == 0
    assert int(file.read_text()) == box.state()["pid"]


def received_pid(server: socket.socket) -> tuple[str, int]:
    """Returns (kind, pid) of a descriptor that was sent to the socket."""
    server.settimeout(patience(60))
    peer, _ = server.accept()
    with peer:
        data, [pidfd], _, _ = socket.recv_fds(peer, 100, 4)
    try:
        info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    finally:
        os.close(pidfd)
    return data.decode(), int(next(line for line in info.splitlines() if line.startswith("Pid:")).split()[1])


def test_pidfd_socket(box: Box, tmp_path: Path) -> None:
    """create, run and exec send a descriptor of their process, as runc does."""
    path = tmp_path / "pidfd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(4)
        option = ("--pidfd-socket", str(path))
        box.write()
        assert box.do("create", *option, capture=False).returncode == 0
        assert received_pid(server) == ("standard", box.state()["pid"])
        assert box.do("delete", "--force").returncode == 0
        assert box.do("run", "--detach", *option, capture=False).returncode == 0
        assert received_pid(server) == ("standard", box.state()["pid"])
        file = tmp_path / "pid"
        words = ("exec", "--detach", *option, "--pid-file", str(file), box.name, "/bin/sleep", "600")
        assert box.runtime(*words, capture=False).returncode == 0
        assert received_pid(server) == ("setns", int(file.read_text()))


def test_a_pidfd_socket_without_a_listener_is_an_error(box: Box, tmp_path: Path) -> None:
    """Nothing is left."""
    box.write()
    got = box.do("run", "--pidfd-socket", str(tmp_path / "none"))
    assert got.returncode == 1
    assert "cannot send the pidfd" in got.stderr
    assert not (box.runtime.root / box.name).exists()
    assert not box.cgroups()


@pytest.mark.parametrize("own", [True, False])
def test_listen_fds(box: Box, own: bool) -> None:
    """Socket activation: descriptors from 3 on, their number, and the workload's pid."""
    box.shell("echo $LISTEN_FDS $LISTEN_PID $$; ls /proc/self/fd").write()
    words = f"exec '{box.runtime.executable}' --root '{box.runtime.root}' run {box.name} 3</etc/passwd 4<&3"
    pid = "$$" if own else "1"
    got = subprocess.run(
        ["/bin/bash", "-c", f"export LISTEN_FDS=2 LISTEN_PID={pid}; {words}"],
        cwd=box.directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    first, *fds = got.stdout.splitlines()
    assert first == ("2 1 1" if own else "1"), got.stderr
    assert ("3" in fds and "4" in fds) == own


def test_run_keep_leaves_a_stopped_container(box: Box) -> None:
    """Until delete."""
    box.args("/bin/true").write()
    assert box.do("run", "--keep").returncode == 0
    assert box.state()["status"] == "stopped"
    assert box.do("delete").returncode == 0
    assert not (box.runtime.root / box.name).exists()
    assert not box.cgroups()


def test_preserve_fds(box: Box) -> None:
    """Exactly the requested descriptors reach the workload."""
    box.shell("cat <&3; ls /proc/self/fd").write()
    (box.directory / "input").write_text("hello\n")
    command = f"exec '{box.runtime.executable}' --root '{box.runtime.root}' run --preserve-fds 1 {box.name}"
    got = subprocess.run(
        ["/bin/bash", "-c", f"{command} 3<input 9</etc/passwd"],
        cwd=box.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = got.stdout.split()
    assert lines[0] == "hello"
    assert "9" not in lines


def test_a_terminal_of_its_own(box: Box, tmp_path: Path) -> None:
    """--console-socket gets the master; the workload
    has it as its controlling terminal and /dev/console.
    """
    path = tmp_path / "console"
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen(1)
    box.config["process"]["terminal"] = True
    box.shell("tty; test -c /dev/console && echo console; exec sleep 3600").write()
    assert box.do("run", "--detach", "--console-socket", str(path), capture=False).returncode == 0
    peer, _ = server.accept()
    _, [master], _, _ = socket.recv_fds(peer, 100, 1)
    try:
        seen = b""
        while b"console" not in seen:
            seen += os.read(master, 1000)
        assert b"/dev/pts/0" in seen
    finally:
        os.close(master)
        peer.close()
        server.close()


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize("command", ["run", "exec"])
def test_a_standard_descriptor_that_is_closed_is_dev_null_inside(box: Box, closed: str, command: str) -> None:
    """Otherwise the runtime's first open would get
    its number: for example a directory of the host.
    """
    script = "for n in 0 1 2; do stat -L -c %t:%T /proc/self/fd/$n; done > /seen"
    if command == "exec":
        box.start()
        words = f"exec {box.name} /bin/sh -c '{script}'"
    else:
        box.shell(script).write()
        words = f"run {box.name}"
    base = f"exec '{box.runtime.executable}' --root '{box.runtime.root}'"
    subprocess.run(
        ["/bin/bash", "-c", f"{base} {words} {closed}"], cwd=box.directory, check=True, timeout=patience(60),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seen = (box.rootfs / "seen").read_text().split()
    assert [seen[0], seen[2]] == ["1:3", "1:3"]
