# SPDX-License-Identifier: Apache-2.0
"""Seccomp profiles on real workloads: what they deny and hide, and which calls go to a listener."""

from __future__ import annotations

import json
import marshal
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ringfence_linux import syscalls
from ringfence_runtime.cli import install
from ringfence_runtime.launch import channel, notify
from ringfence_runtime.security import seccomp
from ringfence_runtime.spec.node import Node
from tests.runtime.conftest import Box
from tests.support import force
from tests.support.waiting import patience

pytestmark = pytest.mark.root
BOTH_INITS = True


def test_seccomp_denies_and_is_cached(box: Box) -> None:
    """An errno of the profile; the second start takes the compiled program from the cache."""
    box.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 121}],
    }
    box.shell("mkdir /tmp/x; grep Seccomp: /proc/self/status")
    for _ in range(2):
        got = box.run()
        assert "Remote I/O error" in got.stderr
        assert got.stdout.split() == ["Seccomp:", "2"]


def test_an_allow_list_profile(box: Box) -> None:
    """A workload starts under a profile that allows only the calls it names."""
    names = json.loads(Path(__file__).with_name("seccomp-names.json").read_text())
    box.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    }
    assert box.shell("echo through").output() == "through\n"


def test_seccomp_answers_enosys_for_calls_newer_than_the_profile() -> None:
    """The default EPERM applies to calls that the profile
    could have named, and does not hide missing calls.
    """
    code = """
import ctypes, sys
sys.path.insert(0, 'runtime')
from ringfence_linux import syscalls
from ringfence_runtime.cli import install
from ringfence_runtime.launch import channel, notify
from ringfence_runtime.security.seccomp import compile_profile
from ringfence_runtime.spec.node import Node
allowed = ['write', 'exit_group', 'rt_sigaction', 'brk', 'munmap', 'mmap', 'futex', 'close', 'getpid']
program = compile_profile(Node({'defaultAction': 'SCMP_ACT_ERRNO', 'defaultErrnoRet': 1,
    'syscalls': [{'names': [*allowed, 'openat2'], 'action': 'SCMP_ACT_ALLOW'}]}, 'seccomp'))
libc = ctypes.CDLL(None, use_errno=True)
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
syscalls.seccomp_filter(program, 0)
for number in (39, 110, 9999):
    print(libc.syscall(number) > 0 or ctypes.get_errno(), flush=True)
"""
    got = subprocess.run(
        ["/usr/bin/python3", "-ISc", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert got.stdout.split() == ["True", "1", "38"], got.stderr


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"defaultAction": "SCMP_ACT_NO"}, "linux.seccomp.defaultAction"),
        ({"syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]}, "linux.seccomp.syscalls[0].names"),
        ({"architectures": ["SCMP_ARCH_Z80"]}, "linux.seccomp.architectures[0]"),
        ({"flags": ["X"]}, "linux.seccomp.flags[0]"),
        ({"listenerMetadata": "x"}, "linux.seccomp.listenerMetadata"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.listenerPath"),
    ],
)
def test_a_bad_profile_names_its_place(box: Box, change: dict[str, Any], place: str) -> None:
    """Nothing was started."""
    box.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", **change}
    assert place in box.refused()


@pytest.fixture
def listener(box: Box, tmp_path: Path) -> Iterator[socket.socket]:
    """A server at listenerPath of a profile that sends it one call."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "agent"))
        server.listen(4)
        server.settimeout(patience(60))
        box.config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": str(tmp_path / "agent"),
            "listenerMetadata": "mine",
            "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_NOTIFY"}],
        }
        yield server


def received(server: socket.socket) -> dict[str, Any]:
    """Returns the message of one connection, which must have one descriptor."""
    peer, _ = server.accept()
    with peer:
        data, [listener], _, _ = socket.recv_fds(peer, 1 << 16, 4)
        os.close(listener)
        while more := peer.recv(1 << 16):
            data += more
    return dict(json.loads(data))


def test_a_seccomp_listener_reaches_its_agent(box: Box, listener: socket.socket) -> None:
    """SCMP_ACT_NOTIFY: the listener's descriptor and
    the state of the process arrive, also for exec.
    """
    box.start()
    message, pid = received(listener), box.state()["pid"]
    assert (message["metadata"], message["pid"], message["fds"]) == ("mine", pid, ["seccompFd"])
    assert (message["state"]["id"], message["state"]["status"]) == (box.name, "creating")
    file = box.directory / "pid"
    words = ("exec", "--detach", "--pid-file", str(file), box.name, "/bin/sleep", "600")
    assert box.runtime(*words, capture=False).returncode == 0
    message = received(listener)
    assert message["pid"] == int(file.read_text()) != pid
    assert (message["state"]["pid"], message["state"]["status"]) == (pid, "running")


def test_a_listener_without_a_rule_is_not_opened(box: Box, listener: socket.socket) -> None:
    """As with runc: there is no message, and the workload starts."""
    box.config["linux"]["seccomp"]["syscalls"] = []
    assert box.args("/bin/true").run().returncode == 0
    listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("flag", ["TSYNC", "WAIT_KILLABLE_RECV"])
def test_a_listener_works_with_other_flags(box: Box, listener: socket.socket, flag: str) -> None:
    """seccomp(2) refuses some of them together, unless they are requested in another way."""
    if not syscalls.seccomp_knows({"TSYNC": 1, "WAIT_KILLABLE_RECV": 32 | 8}[flag]):
        force.elsewhere(f"this kernel does not know {flag}")
    box.config["linux"]["seccomp"]["flags"] = [f"SECCOMP_FILTER_FLAG_{flag}"]
    box.start()
    assert received(listener)["pid"] == box.state()["pid"]


def test_a_long_state_arrives_completely(box: Box, listener: socket.socket) -> None:
    """Annotations of 300 kB do not fit into one message of a socket."""
    box.config["annotations"] = {f"org.example.{number}": "x" * 1000 for number in range(300)}
    with ThreadPoolExecutor(1) as agent:
        message = agent.submit(received, listener)
        box.start()
        assert message.result()["state"]["annotations"] == box.config["annotations"]


class Impatient(socket.socket):
    """A connection to an agent that closes its end after the first message."""

    agent: socket.socket

    def sendmsg(self, *arguments: Any) -> int:
        sent = super().sendmsg(*arguments)
        self.agent.close()
        return sent


def test_an_agent_may_close_after_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once all is sent, nothing more is: an empty send to a closed connection fails with EPIPE."""
    ours, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with Impatient(fileno=ours.detach()) as connection, open(os.devnull) as file:
        connection.agent = agent
        monkeypatch.setattr(notify, "connect", lambda *_, **__: channel.Channel(connection))
        notify._send("/agent", b"state", file.fileno())
    assert agent.fileno() == -1


@pytest.mark.parametrize("call", ["read", "write"])
def test_a_call_that_the_init_needs_cannot_go_to_the_agent(
    box: Box, listener: socket.socket, call: str
) -> None:
    """It would wait for ever: the agent gets the listener by that call. It is refused before the launch."""
    profile = box.config["linux"]["seccomp"]
    profile["syscalls"] = [{"names": ["mkdir", call], "action": "SCMP_ACT_NOTIFY"}]
    assert f"linux.seccomp.syscalls[0].action: {call} cannot be SCMP_ACT_NOTIFY" in box.refused()
    profile["defaultAction"] = "SCMP_ACT_NOTIFY"
    profile["syscalls"] = [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}]
    assert "linux.seccomp.defaultAction: read cannot be SCMP_ACT_NOTIFY" in box.refused()


@pytest.mark.parametrize("command", ["run", "start"])
def test_a_start_does_not_wait_for_an_agent_without_end(
    box: Box, listener: socket.socket, command: str
) -> None:
    """The agent takes the listener of a profile with the execve, and never answers it."""
    box.config["linux"]["seccomp"]["syscalls"] = [{"names": ["execve"], "action": "SCMP_ACT_NOTIFY"}]
    box.shell("touch /ran").write()
    with ThreadPoolExecutor(1) as agent:
        taken = agent.submit(socket_with_listener, listener)
        if command == "start":
            assert box.do("create", capture=False).returncode == 0
        got = box.do(command)
        peer, descriptor = taken.result()
        with peer:
            os.close(descriptor)
    assert got.returncode != 0
    assert "linux.seccomp: no execve within 10 s" in got.stderr
    assert not (box.rootfs / "ran").exists()
    if command == "start":
        box.wait("stopped")


def socket_with_listener(server: socket.socket) -> tuple[socket.socket, int]:
    """Returns the connection and the descriptor of a message, without an answer."""
    peer, _ = server.accept()
    _, [listener], _, _ = socket.recv_fds(peer, 1 << 16, 4)
    return peer, listener


def test_a_start_without_an_agent_does_not_run_the_workload(box: Box, listener: socket.socket) -> None:
    """The agent has gone between `create` and `start`."""
    box.shell("touch /ran").write()
    assert box.do("create", capture=False).returncode == 0
    listener.close()
    assert "linux.seccomp.listenerPath" in box.do("start").stderr
    box.wait("stopped")
    assert not (box.rootfs / "ran").exists()


def test_a_listener_path_without_a_listener_is_an_error(box: Box, listener: socket.socket) -> None:
    """With its place, and the workload has not run."""
    listener.close()
    assert "linux.seccomp.listenerPath" in box.shell("touch /ran").refused()
    assert not (box.rootfs / "ran").exists()


class Machine:
    """An interpreter of the classic BPF of the part
    before a filter; the filter begins after its end.
    """

    def __init__(self, code: bytes) -> None:
        self.code = list(struct.iter_unpack("HBBI", code))

    def run(self, arch: int, number: int) -> str:
        accumulator, at = 0, 0
        while at < len(self.code):
            code, true, false, value = self.code[at]
            at += 1
            if code == 0x20:
                accumulator = {0: number, 4: arch}[value]
            elif code == 0x05:
                at += value
            elif code == 0x06:
                return f"errno {value & 0xFFFF}"
            else:
                matched = {0x15: accumulator == value, 0x35: accumulator >= value, 0x25: accumulator > value}[
                    code
                ]
                at += true if matched else false
        return "filter"


def test_calls_newer_than_a_profile_are_known_by_architecture() -> None:
    """Each has its own numbers; x32 shares the architecture of x86_64 (linux/audit.h)."""
    x86_64, i386, x32, arm, bit = 0xC000003E, 0x40000003, 0x4000003E, 0x40000028, 0x40000000
    arm64 = 0xC00000B7
    machine = Machine(seccomp.unknown_calls({x86_64: 450, i386: 460, x32: bit | 440, arm64: 430}))
    expected = {
        (x86_64, 450): "filter", (x86_64, 451): "errno 38", (x86_64, 0): "filter",
        (x86_64, bit | 440): "filter", (x86_64, bit | 441): "errno 38",
        (i386, 451): "filter", (i386, 461): "errno 38", (arm, 999): "filter",
        (arm64, 430): "filter", (arm64, 431): "errno 38",
    }  # fmt: skip
    assert {key: machine.run(*key) for key in expected} == expected
    alone = Machine(seccomp.unknown_calls({x86_64: 450}))
    assert [alone.run(x86_64, number) for number in (451, bit | 999)] == ["errno 38", "filter"]


def test_the_cache_is_not_used_by_another_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A profile is compiled again by another libseccomp, or another build of the runtime."""
    monkeypatch.setattr(seccomp, "CACHE", str(tmp_path / "cache"))
    node = Node({"defaultAction": "SCMP_ACT_ALLOW"}, "linux.seccomp")
    for stamp in ("one", "two", "one"):
        monkeypatch.setattr(seccomp, "_compilers_stamp", lambda stamp=stamp: stamp)
        seccomp.prepare(node)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_stamp_names_the_library_and_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are found by their files; an installed runtime has a digest of its code instead."""
    code, library = seccomp._file_stamp(seccomp.__file__), seccomp._compilers_stamp().split()[3:]
    assert seccomp._compilers_stamp().split() == [*code.split(), *library]
    assert len(library) == 3
    monkeypatch.setattr(seccomp, "BUILD", "digest")
    assert seccomp._compilers_stamp().split() == ["digest", *library]


def test_an_installed_runtime_knows_its_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest that `install` writes changes with the code, so that no filter of another build is used."""
    builds = []
    for code in (b"one", b"two", b"one"):
        monkeypatch.setattr(install, "_modules", lambda code=code: {"ringfence_runtime": (True, code)})
        constants = marshal.loads(install.bundle("", fallback=True)[16:]).co_consts
        builds.append(next(pair[1] for pair in constants if isinstance(pair, tuple) and pair[0] == ""))
    assert len(builds[0]) == 32
    assert builds[0] == builds[2] != builds[1]
