# SPDX-License-Identifier: Apache-2.0
"""Unix sockets are judged by the process that serves them, whatever leads there."""

from __future__ import annotations

import errno
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ringfence.abi import Action, EventKind, Mechanism, Relation
from ringfence.bpf.capabilities import NodeCapabilities
from tests.kernel.probes import LABEL, Probes, running
from tests.kernel.rules import Rule
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.hooks import hook_mechanism

pytestmark = pytest.mark.root
K = EventKind
ACTS = Path(__file__).with_name("socket_acts.py")
PYTHON = "/usr/bin/python3"
SERVER = 0  # the operand
OF_HOST = Rule(K.UNIX_CONNECT, "deny", {SERVER: {Relation.HOST}})
WAYS = ("connect", "link", "descriptor", "directory", "root", "replaced")


@pytest.fixture(scope="module", params=["lsm", "calls"])
def probes(request: pytest.FixtureRequest) -> Iterator[Probes]:
    """Where LSM hooks decide, and where the connection is judged when it is made."""
    if request.param == "calls" and "connect_unix" not in NodeCapabilities.detect().cgroup:
        force.elsewhere("this kernel has no hook for unix sockets (6.7 has)")
    with running(lsm=request.param == "lsm") as made:
        yield made


@pytest.fixture
def hooked(probes: Probes) -> bool:
    """True where LSM hooks decide."""
    return any(link.target == "unix_stream_connect" for link in probes.kernel.attached)


@pytest.fixture
def cgroup(probes: Probes) -> Iterator[Cgroup]:
    """A container that must not connect to the host's sockets."""
    probes.enforce(OF_HOST)
    with new_cgroup(LABEL) as made:
        yield made
    probes.calm()


@contextmanager
def served(path: str, kind: int = socket.SOCK_STREAM) -> Iterator[str]:
    """A socket of this process, which is the host's."""
    with closing(socket.socket(socket.AF_UNIX, kind)) as server:
        server.bind("\0" + path[1:] if path.startswith("@") else path)
        if kind != socket.SOCK_DGRAM:
            server.listen(64)
        yield path


def reach(cgroup: Cgroup, *ways: str) -> tuple[int, dict[str, int]]:
    """Returns the status, and the errno of each way that was tried."""
    done = cgroup.run([PYTHON, str(ACTS), *ways], capture_output=True, text=True)
    return done.returncode, {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}


def refused(cgroup: Cgroup, way: str, *, hooked: bool) -> bool:
    """Returns True if the way was refused, or its process killed as it was taken."""
    status, got = reach(cgroup, way)
    return got == {way: errno.EPERM} if hooked else (status, got) == (-signal.SIGKILL, {})


@pytest.mark.parametrize("way", WAYS)
def test_a_socket_of_the_host_is_refused(
    probes: Probes, cgroup: Cgroup, tmp_path: Path, way: str, *, hooked: bool
) -> None:
    """By its path, a link, a descriptor, a relative name, or the host's root in /proc."""
    with served(f"{tmp_path}/s") as path:
        assert refused(cgroup, f"{way},{path}", hooked=hooked)
    event = probes.wait(cgroup, K.UNIX_CONNECT)[0]
    assert event.path == path.encode()
    expected = (Action.DENY, hook_mechanism()) if hooked else (Action.KILL, Mechanism.KILL)
    assert (event.action, event.mechanism) == expected


def test_an_abstract_socket_of_the_host_is_refused(cgroup: Cgroup, *, hooked: bool) -> None:
    """The test's container is in the host's network."""
    with served("@rf-adversary") as path:
        assert refused(cgroup, f"connect,{path}", hooked=hooked)


def test_packets_and_datagrams_of_the_host_are_refused(
    cgroup: Cgroup, tmp_path: Path, *, hooked: bool
) -> None:
    """Datagrams have no listener: the cgroup or the mount of their socket counts."""
    with served(f"{tmp_path}/p", socket.SOCK_SEQPACKET) as path:
        assert refused(cgroup, f"packets,{path}", hooked=hooked)
    with served(f"{tmp_path}/d", socket.SOCK_DGRAM) as path:
        assert refused(cgroup, f"datagram,{path}", hooked=hooked)
        if hooked:
            assert refused(cgroup, f"send,{path}", hooked=True)


def test_an_exception_names_the_server_s_name(
    probes: Probes, cgroup: Cgroup, tmp_path: Path, *, hooked: bool
) -> None:
    """A name that the container makes for another socket of the host does not count."""
    exempt = Rule(K.UNIX_CONNECT, text=f"{tmp_path}/log\0".encode(), clears=1)
    probes.enforce(exempt, OF_HOST)
    with served(f"{tmp_path}/log") as log, served(f"{tmp_path}/s") as other:
        assert reach(cgroup, f"connect,{log}") == (0, {f"connect,{log}": 0})
        assert refused(cgroup, f"connect,{other}", hooked=hooked)


@contextmanager
def server_in(cgroup: Cgroup, path: str) -> Iterator[None]:
    """A daemon of a container: its first process ended after listen(2)."""
    argv = [PYTHON, str(ACTS), f"serve,{path}"]
    with cgroup.popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        server.wait()
        yield
        for pid in cgroup.pids():
            if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(f"serve,{path}\0".encode()):
                subprocess.run(["kill", str(pid)], check=True)


def test_sockets_of_containers_pass(probes: Probes, cgroup: Cgroup, tmp_path: Path) -> None:
    """Of its own, and of another container in its pod; their servers have forked since listen(2)."""
    with new_cgroup(LABEL) as other:
        for owner in (cgroup, other):
            path = f"{tmp_path}/{owner.name.rpartition('-')[2]}"
            with server_in(owner, path):
                assert reach(cgroup, f"connect,{path}") == (0, {f"connect,{path}": 0})
    assert probes.events(cgroup, K.UNIX_CONNECT) == []


def test_the_host_is_not_concerned(probes: Probes, cgroup: Cgroup, tmp_path: Path) -> None:
    """It connects to its own sockets, and to a container's."""
    with served(f"{tmp_path}/s") as path, closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.connect(path)
    path = f"{tmp_path}/c"
    with server_in(cgroup, path), closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.connect(path)
