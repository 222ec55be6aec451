# SPDX-License-Identifier: Apache-2.0
"""Kernel objects as the probes see them: files, devices, sysctls, addresses and unix sockets."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from ringfence import abi
from ringfence.abi import NO_CALL, Action, Counter, EventKind, Fact, Mechanism
from tests.kernel.lsm import FLAGS, MAGIC, NAME, TYPE
from tests.kernel.probes import LABEL, Probes, need_32_bit_calls, results, run, running
from tests.kernel.rules import Rule, name_hash
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup

pytestmark = pytest.mark.root
K = EventKind
PROC = 0x9FA0
AF_INET, AF_INET6 = 2, 10
SOL_IP, IPT_SO_SET_REPLACE = 0, 64  # linux/netfilter_ipv4/ip_tables.h
OWN, OTHER = 0, 1
WRITE = os.O_WRONLY


def either_state(program: str) -> set[int]:
    """Returns the operands of an unmodified program of the
    image, and of a modified one, as in a guest's overlay.
    """
    as_in_image = name_hash(program.encode())
    return {as_in_image, as_in_image ^ abi.EXE_CHANGED}


def named(probes: Probes, cgroup: Cgroup, path: bytes) -> list[Any]:
    """Returns the opens of files whose path ends so."""
    return [event for event in probes.events(cgroup, K.FILE_OPEN) if event.path.endswith(path)]


def test_an_open_is_reported_with_the_file_behind_it(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """Identity, flags, mount namespace, path inside its
    filesystem; a symlink's target, not the symlink.
    """
    real = tmp_path / "real-file"
    real.write_text("x")
    (tmp_path / "link").symlink_to(real)
    probes.observe(K.FILE_OPEN)
    run(cgroup, act, f"open:{tmp_path}/link:{os.O_RDWR | os.O_APPEND}", "open:/nowhere/at/all:0")
    probes.wait(cgroup, K.CONTAINER_STOP)
    (event,) = named(probes, cgroup, b"/real-file")
    is_ = real.stat()
    assert (event.inode, event.mode) == (is_.st_ino, is_.st_mode)
    assert event.open_flags & (os.O_ACCMODE | os.O_APPEND) == os.O_RDWR | os.O_APPEND
    assert event.path_len == len(event.path)
    assert event.mnt_ns not in (0, os.stat("/proc/self/ns/mnt").st_ino)
    assert not named(probes, cgroup, b"at/all")


def test_a_file_of_proc_is_known_under_any_name(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """Under another mount of procfs it is killed, too;
    other files pass, also one with the same name.
    """
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/ostype").write_text("namesake")
    target, neighbour = "/proc/sys/kernel/ostype", "/proc/sys/kernel/osrelease"
    probes.enforce(Rule(K.FILE_OPEN, "kill", {MAGIC: {PROC}}, text=b"/sys/kernel/ostype\0"))
    passes = run(cgroup, act, f"open:{neighbour}:0", f"open:{tmp_path}/kernel/ostype:0")
    assert passes.returncode == 0
    assert results(passes)["open"] > 0
    other = tmp_path / "proc2"
    other.mkdir()
    script = f"mount -t proc proc {other} && exec {act} open:{other}/sys/kernel/ostype:0 forks:1"
    for argv in ([act, f"open:{target}:0", "forks:1"], ["/bin/sh", "-c", script]):
        done = cgroup.run(argv, capture_output=True)
        assert done.returncode == -signal.SIGKILL
        assert b"forks" not in done.stdout
    reported = probes.wait(cgroup, K.FILE_OPEN, 2)
    assert {event.path for event in reported} == {b"/sys/kernel/ostype"}
    assert {event.fs_magic for event in reported} == {PROC}
    assert {(event.action, event.mechanism, event.rule) for event in reported} == {
        (Action.KILL, Mechanism.KILL, 0)
    }


def test_a_name_is_known_in_any_directory(probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path) -> None:
    """By the hash of the last component."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/release_agent").write_text("")
    (tmp_path / "release_agents").write_text("")
    probes.enforce(Rule(K.FILE_OPEN, "alert", {NAME: {name_hash(b"release_agent")}}))
    run(cgroup, act, f"open:{tmp_path}/release_agents:0", f"open:{tmp_path}/a/release_agent:0")
    probes.wait(cgroup, K.CONTAINER_STOP)
    (event,) = probes.events(cgroup, K.FILE_OPEN)
    assert event.path.endswith(b"/a/release_agent")


def test_reading_is_not_writing(probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path) -> None:
    """The access mode decides where a rule names it."""
    target = tmp_path / "watched"
    target.write_text("")
    hashed = {name_hash(b"watched")}
    probes.enforce(Rule(K.FILE_OPEN, "kill", {FLAGS: {1, 2}, NAME: hashed}, {FLAGS: os.O_ACCMODE}))
    assert run(cgroup, act, f"open:{target}:0").returncode == 0
    assert run(cgroup, act, f"open:{target}:{WRITE}").returncode == -signal.SIGKILL


def test_a_foreign_mount_is_reported(probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path) -> None:
    """Through /proc/PID/root of a host process: a regular file of another mount namespace."""
    (tmp_path / "host-file").write_text("")
    kinds = {stat.S_IFREG | OTHER << 16}
    probes.enforce(Rule(K.FILE_OPEN, "kill", {TYPE: kinds}))
    assert run(cgroup, act, f"open:{tmp_path}/host-file:0").returncode == 0
    done = run(cgroup, act, f"open:/proc/{os.getpid()}/root{tmp_path}/host-file:0", "forks:1")
    assert done.returncode == -signal.SIGKILL
    (event,) = probes.wait(cgroup, K.FILE_OPEN)
    assert event.mnt_ns == os.stat("/proc/self/ns/mnt").st_ino


def test_a_program_can_be_excepted(probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path) -> None:
    """By the hash of its path as the container sees it."""
    target = tmp_path / "token"
    target.write_text("")
    probes.enforce(
        Rule(K.FILE_OPEN, clears=1, operands={abi.DIM_EXE: either_state(act)}),
        Rule(K.FILE_OPEN, "kill", {NAME: {name_hash(b"token")}}),
    )
    assert run(cgroup, act, f"open:{target}:0").returncode == 0
    assert cgroup.run(["cat", str(target)], capture_output=True).returncode == -signal.SIGKILL


def test_a_path_that_is_too_deep_is_marked(probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path) -> None:
    """The head of the path is unknown then, and the record says so."""
    deep = tmp_path
    for _ in range(260):
        deep /= "d"
    deep.mkdir(parents=True)
    (deep / "end").write_text("")
    probes.enforce(Rule(K.FILE_OPEN, "alert", {NAME: {name_hash(b"end")}}))
    run(cgroup, act, f"open:{deep}/end:0")
    (event,) = probes.wait(cgroup, K.FILE_OPEN)
    assert event.flags & abi.FLAG_TRUNCATED
    assert event.path.startswith(b"?d/d/")


def test_opens_are_counted(probes: Probes, act: str) -> None:
    """Without a rule and without a record, one each."""
    counts = []
    for opens in (100, 250):
        with new_cgroup(LABEL) as cgroup:
            run(cgroup, act, *["open:/dev/null:0"] * opens)
            counts.append(probes.counters(cgroup)[Counter.OPEN])
    assert counts[1] - counts[0] == 150


def test_32_bit_opens_are_seen(probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path) -> None:
    """An open by int 0x80 is decided like any other."""
    need_32_bit_calls()
    (tmp_path / "watched").write_text("")
    probes.enforce(Rule(K.FILE_OPEN, "kill", {NAME: {name_hash(b"watched")}}))
    done = run(cgroup, act, f"open32:{tmp_path}/watched", "forks:1")
    assert done.returncode == -signal.SIGKILL
    assert not results(done)
    (event,) = probes.wait(cgroup, K.FILE_OPEN)
    assert event.flags & abi.FLAG_COMPAT
    assert Fact.FOREIGN_ABI in Fact(event.facts)


@pytest.mark.parametrize("action", ["deny", "kill"])
def test_a_device_is_denied_before_the_effect(probes: Probes, cgroup: Cgroup, act: str, action: str) -> None:
    """EPERM for deny, and for kill (the agent kills the process afterwards); other devices pass."""
    zero, null = 1 << 20 | 5, 1 << 20 | 3
    probes.enforce(Rule(K.DEVICE_ACCESS, action, {2: {zero}}))
    done = run(cgroup, act, "open:/dev/zero:0", "forks:1")
    assert done.returncode == 0
    assert results(done) == {"open": -errno.EPERM, "forks": 1}
    assert results(run(cgroup, act, "open:/dev/null:0"))["open"] > 0
    (event,) = probes.wait(cgroup, K.DEVICE_ACCESS)
    assert (event.type, event.access, event.major, event.minor) == (2, 2, 1, 5)
    assert (Action(event.action).label, event.mechanism) == (action, Mechanism.CGROUP)
    assert null not in {e.major << 20 | e.minor for e in probes.events(cgroup, K.DEVICE_ACCESS)}
    with open("/dev/zero", "rb") as host:
        assert host.read(1) == b"\0"


def test_a_node_of_another_name_is_the_same_device(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """mknod of it is denied, whatever its name."""
    probes.enforce(Rule(K.DEVICE_ACCESS, "deny", {0: {2}, 3: {1}, 1: {1}}))
    assert results(run(cgroup, act, f"mknod:{tmp_path}/harmless:c:1:5"))["mknod"] == -errno.EPERM
    assert results(run(cgroup, act, f"mknod:{tmp_path}/fifo:p:0:0"))["mknod"] == 0


def test_a_sysctl_write_is_denied(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """By the kernel's name for it; reading passes. (The written value is the current one.)"""
    probes.enforce(Rule(K.SYSCTL_ACCESS, "deny", {0: {1}}, text=b"kernel/domainname\0"))
    path = "/proc/sys/kernel/domainname"
    before = Path(path).read_text()
    assert results(run(cgroup, act, f"rewrite:{path}")) == {"rewrite": -errno.EPERM}
    assert Path(path).read_text() == before
    (event,) = probes.wait(cgroup, K.SYSCTL_ACCESS)
    assert (event.name, event.write) == (b"kernel/domainname", 1)
    assert (event.action, event.mechanism) == (Action.DENY, Mechanism.CGROUP)
    assert cgroup.run(["cat", path], capture_output=True).returncode == 0


def test_a_sysctl_is_denied_where_tasks_have_no_storage(act: str) -> None:
    """As before 6.2: its name is in a buffer that tasks share."""
    with running(task_storage=False) as probes, new_cgroup(LABEL) as cgroup:
        probes.enforce(Rule(K.SYSCTL_ACCESS, "deny", {0: {1}}, text=b"kernel/domainname\0"))
        written = [f"rewrite:/proc/sys/kernel/{name}" for name in ("domainname", "hostname")]
        denied, passed = (results(run(cgroup, act, words))["rewrite"] for words in written)
        assert denied == -errno.EPERM
        assert passed > 0
        (event,) = probes.wait(cgroup, K.SYSCTL_ACCESS)
        assert (event.name, event.action) == (b"kernel/domainname", Action.DENY)


def test_an_address_is_denied_and_the_next_one_is_not(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """By the longest prefix; an IPv4-mapped IPv6 address counts as IPv4."""
    metadata = socket.inet_aton("127.254.169.254")
    probes.enforce(
        Rule(K.NET_CONNECT, "deny", address=(4, metadata, 32)),
        Rule(K.NET_CONNECT, "deny", address=(6, socket.inet_pton(socket.AF_INET6, "::1"), 128)),
    )
    denied = ("connect:127.254.169.254:80", "connect6:,,ffff,127.254.169.254:80", "connect6:,,1:80")
    for command in denied:
        name = command.partition(":")[0]
        assert results(run(cgroup, act, command)) == {name: -errno.EPERM}
    assert results(run(cgroup, act, "connect:127.254.169.253:1"))["connect"] != -errno.EPERM
    first, second, third = probes.wait(cgroup, K.NET_CONNECT, 3)
    assert (first.family, first.port, first.address) == (AF_INET, 80, metadata)
    assert (second.family, second.address) == (AF_INET, metadata)
    assert (third.family, third.address) == (AF_INET6, socket.inet_pton(socket.AF_INET6, "::1"))
    assert {event.mechanism for event in (first, second, third)} == {Mechanism.CGROUP}


def test_bind_and_sendmsg_are_decided_too(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """By port."""
    probes.enforce(Rule(K.NET_BIND, "deny", {0: {4444}}), Rule(K.NET_SENDMSG, "deny", {0: {5353}}))
    done = run(cgroup, act, "bind:127.0.0.1:4444", "send:127.0.0.1:5353")
    assert results(done) == {"bind": -errno.EPERM, "send": -errno.EPERM}
    assert results(run(cgroup, act, "bind:127.0.0.1:0", "send:127.0.0.1:5354")) == {"bind": 0, "send": 1}
    (bind,), (send,) = probes.wait(cgroup, K.NET_BIND), probes.wait(cgroup, K.NET_SENDMSG)
    assert (bind.port, send.port) == (4444, 5353)


def test_a_unix_socket_is_denied_by_its_name(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """A path exactly, an abstract name by its beginning."""
    if ("cgroup_connect_unix", "connect_unix") not in {(a.program, a.target) for a in probes.kernel.attached}:
        force.elsewhere("this kernel has no hook for unix sockets (6.7 has)")
    probes.enforce(
        Rule(K.UNIX_CONNECT, "deny", text=b"/run/rf-probes.sock\0"),
        Rule(K.UNIX_CONNECT, "deny", text=b"\0rf-shim/"),
    )
    done = run(cgroup, act, "unix:/run/rf-probes.sock")
    assert results(done) == {"unix": -errno.EPERM}
    assert results(run(cgroup, act, "unix:@rf-shim/abc")) == {"unix": -errno.EPERM}
    assert results(run(cgroup, act, "unix:/run/rf-probes.sock2")) == {"unix": -errno.ENOENT}
    assert results(run(cgroup, act, "unix:@rf-sham/abc")) == {"unix": -errno.ECONNREFUSED}
    first, second = probes.wait(cgroup, K.UNIX_CONNECT, 2)
    assert first.path == b"/run/rf-probes.sock"
    assert second.path == b"\0rf-shim/abc"


def test_an_option_of_a_socket_is_denied(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """By level and number. Another one passes, also with a value longer than the kernel copies."""
    probes.enforce(Rule(K.SETSOCKOPT, "deny", {0: {SOL_IP}, 1: {IPT_SO_SET_REPLACE}}))
    for length in (8, 8192):
        denied = run(cgroup, act, f"setsockopt:{SOL_IP}:{IPT_SO_SET_REPLACE}:{length}")
        assert results(denied) == {"setsockopt": -errno.EPERM}
        done = run(cgroup, act, f"setsockopt:{socket.SOL_SOCKET}:{socket.SO_REUSEADDR}:{length}")
        assert results(done) == {"setsockopt": 0}
    (event, _) = probes.wait(cgroup, K.SETSOCKOPT, 2)
    assert event.operands == (SOL_IP, IPT_SO_SET_REPLACE, SOL_IP << 32 | IPT_SO_SET_REPLACE, 0)
    assert (event.action, event.mechanism, event.nr) == (Action.DENY, Mechanism.CGROUP, NO_CALL)


def test_a_request_for_a_module_ends_the_task(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """By the name that modprobe would get; a built-in socket family requests none."""
    if "module_request" not in {attached.target for attached in probes.kernel.attached}:
        force.elsewhere("this kernel has no modules")
    probes.enforce(Rule(K.MODULE_REQUEST, "kill", text=b"net-pf-11\0"))
    assert run(cgroup, act, "socket:12:5:0").returncode == 0
    assert run(cgroup, act, "socket:11:5:0").returncode == -signal.SIGKILL
    (event,) = probes.wait(cgroup, K.MODULE_REQUEST)
    assert (event.text, event.action, event.mechanism) == (b"net-pf-11", Action.KILL, Mechanism.KILL)


def test_unarmed_tasks_pass_every_hook(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Rules on everything, and a task in the cgroup that is not armed: no event, no denial."""
    kinds = (K.FILE_OPEN, K.DEVICE_ACCESS, K.SYSCTL_ACCESS, K.NET_CONNECT, K.NET_BIND)
    probes.enforce(*(Rule(kind, "kill" if kind is K.FILE_OPEN else "deny") for kind in kinds))
    commands = ("open:/dev/zero:0", "rewrite:/proc/sys/kernel/domainname", "bind:127.0.0.1:0")
    done = cgroup.run([act, *commands], armed=False, capture_output=True)
    assert done.returncode == 0
    values = results(done).values()
    assert len(values) == len(commands)
    assert min(values) >= 0
    assert not probes.events(cgroup, *kinds)
