# SPDX-License-Identifier: Apache-2.0
"""Variants of calls at LSM hooks: other bits, other orders, other ABIs, other ways to the same effect.

Each kills a defect of tools/mutants that the tests of the ordinary cases let pass. Each refusal has
its control: the same act without the rule.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import FLAG_COMPAT, Action, EventKind, Relation
from tests.kernel.lsm import FLAGS, NAME, REFUSED, Outcome, evading, mounted
from tests.kernel.probes import Probes, need_32_bit_calls, results, values
from tests.kernel.rules import Rule, name_hash
from tests.support.cgroups import Cgroup
from tests.support.hooks import hook_mechanism

pytestmark = pytest.mark.root
PROBES = {"lsm": True}
K = EventKind
DONE = Outcome(0)
HERE = "-100"  # AT_FDCWD
IOCTL32, TIOCGWINSZ = 54, 0x5413
CLIMBING = 2  # RF_LEADS_CLIMBING
MS_REMOUNT, CMD_RECONFIGURE = 32, 7
AF_PACKET, AF_SMC, SOCK_PACKET, PROTO_SMC = 17, 43, 10, 256


# ---- files


@pytest.mark.parametrize("bits", [0o4755, 0o2755], ids=oct)
@pytest.mark.parametrize("way", ["mknod", "open"])
def test_a_file_is_not_made_with_either_set_id_bit(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path, bits: int, way: str
) -> None:
    """A program that is setgid from the start, by mknod or by open."""
    mask = bits & 0o6000

    def made(name: str) -> int:
        path = tmp_path / name
        call = f"sys:133:={path}:{stat.S_IFREG | bits}:0"
        if way == "open":
            call = f"sys:2:={path}:{os.O_CREAT | os.O_WRONLY}:{bits}"
        return values(cgroup, act, call)[0]

    assert made("control") >= 0
    probes.enforce(Rule(K.SYS_CHMOD, "deny", {0: {mask}}, {0: mask}))
    assert made("new") == -errno.EPERM
    assert not (tmp_path / "new").exists()
    (event,) = probes.wait(cgroup, K.SYS_CHMOD)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())


def test_a_kill_at_a_hook_has_no_effect_first(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """The task dies when it returns; by then the call was refused."""
    tool = tmp_path / "tool"
    tool.write_text("x")
    tool.chmod(0o755)
    probes.enforce(Rule(K.SYS_CHMOD, "kill", {0: {0o4000}}, {0: 0o4000}))
    done = cgroup.run([act, f"sys:90:={tool}:{0o4755}"], capture_output=True)
    assert (done.returncode, stat.S_IMODE(tool.stat().st_mode)) == (-signal.SIGKILL, 0o755)
    probes.enforce()
    assert values(cgroup, act, f"sys:90:={tool}:{0o4755}") == [0]
    assert stat.S_IMODE(tool.stat().st_mode) == 0o4755


@pytest.mark.parametrize("link_first", [True, False])
def test_a_link_and_a_directory_are_not_exchanged_in_either_order(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path, *, link_first: bool
) -> None:
    """The race against a path walk; two files may be exchanged."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    for name in ("one", "other"):
        (tmp_path / name).write_text("x")
    pair = (tmp_path / "link", tmp_path / "directory")
    words = pair if link_first else pair[::-1]
    probes.enforce(Rule(K.SYS_RENAME, "deny", {1: {2}}))
    assert evading(cgroup, names, HERE, "exchange", *words) == REFUSED
    assert (tmp_path / "link").is_symlink()
    assert evading(cgroup, names, HERE, "exchange", tmp_path / "one", tmp_path / "other") == DONE
    probes.enforce()
    assert evading(cgroup, names, HERE, "exchange", *words) == DONE


@pytest.mark.parametrize(
    ("text", "climbs"),
    [("a/..", True), ("..", True), ("a" * 300, True), ("a", False), ("a..", False), ("..a", False)],
    ids=["at its end", "alone", "too long", "no", "dots at an end", "dots at a beginning"],
)
def test_a_link_that_may_climb_is_refused(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path, text: str, *, climbs: bool
) -> None:
    """By its text. A text that does not fit may climb after its end."""
    (tmp_path / "d").mkdir()
    probes.enforce(Rule(K.FILE_LINK, "deny", {FLAGS: {CLIMBING}}, {FLAGS: CLIMBING}))
    refused = values(cgroup, act, f"sys:88:={text}:={tmp_path}/d/link") == [-errno.EPERM]
    assert refused is climbs


def test_a_capability_of_a_file_is_not_set_by_a_ring(
    probes: Probes, cgroup: Cgroup, names: str, tmp_path: Path
) -> None:
    """With credentials that the ring lends to its worker, as a filesystem would."""
    with mounted("-t", "tmpfs", "none", tmp_path):
        tool = tmp_path / "tool"
        tool.write_text("x")
        assert evading(cgroup, names, HERE, "ringattribute", tool) == DONE
        os.removexattr(tool, "security.capability")
        probes.enforce(Rule(K.SYS_SETXATTR, "deny", text=b"security.capability\0"))
        assert evading(cgroup, names, HERE, "ringattribute", tool) == REFUSED
        assert os.listxattr(tool) == []


# ---- ioctl, sockets


def test_a_32_bit_ioctl_is_refused(probes: Probes, cgroup: Cgroup, narrow: str) -> None:
    """From 6.8 on it reaches a hook of its own."""
    need_32_bit_calls()

    def result(command: int) -> int:
        done = cgroup.run([narrow, str(IOCTL32), "0", str(command), "0"], capture_output=True)
        return results(done)["narrow"]

    assert result(TIOCGWINSZ) not in (-errno.EPERM, 0)
    probes.enforce(Rule(K.SYS_IOCTL, "deny", {0: {TIOCGWINSZ}}))
    assert result(TIOCGWINSZ) == -errno.EPERM
    assert result(TIOCGWINSZ + 1) != -errno.EPERM
    (event,) = probes.wait(cgroup, K.SYS_IOCTL)
    assert event.mechanism == hook_mechanism()
    assert event.flags & FLAG_COMPAT


@pytest.mark.parametrize(
    ("call", "family", "twin"),
    [
        (f"socket:2:1:{PROTO_SMC}", AF_SMC, "socket:2:1:6"),
        (f"socket:10:1:{PROTO_SMC}", AF_SMC, "socket:10:1:6"),
        (f"socket:2:{SOCK_PACKET}:0", AF_PACKET, "socket:2:2:0"),
    ],
)
def test_a_family_by_another_name_is_that_family(
    probes: Probes, cgroup: Cgroup, act: str, call: str, family: int, twin: str
) -> None:
    """SMC by its protocol, and packet sockets by their old type."""
    probes.enforce(Rule(K.SYS_SOCKET, "deny", {0: {family}}))
    assert values(cgroup, act, call) == [-errno.EPERM]
    assert values(cgroup, act, twin)[0] > 0


def test_a_datagram_to_a_socket_of_the_host_is_refused(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """As to /dev/log: no connection precedes it."""
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        assert values(cgroup, act, f"unixsend:{path}") == [1]
        probes.enforce(Rule(K.UNIX_CONNECT, "deny", text=str(path).encode() + b"\0"))
        assert values(cgroup, act, f"unixsend:{path}") == [-errno.EPERM]
    (event,) = probes.wait(cgroup, K.UNIX_CONNECT)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())


# ---- tasks and mounts


def test_a_process_does_not_make_the_host_its_tracer(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """PTRACE_TRACEME concerns the parent, which is a process of the host here."""
    assert values(cgroup, act, "sys:101:0") == [0]
    probes.enforce(Rule(K.SYS_PTRACE, "deny", {0: {0}, 1: {Relation.HOST}}))
    assert values(cgroup, act, "sys:101:0") == [-errno.EPERM]
    (event,) = probes.wait(cgroup, K.SYS_PTRACE)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())


def test_a_filesystem_is_not_reconfigured_by_the_new_calls(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """fspick and fsconfig: the same as mount(2) with MS_REMOUNT."""
    with mounted("-t", "tmpfs", "none", tmp_path):
        ways = (f"sys:433:-100:={tmp_path}:0", f"sys:431:3:{CMD_RECONFIGURE}:0:0:0")
        assert values(cgroup, act, *ways) == [3, 0]
        probes.enforce(Rule(K.SYS_MOUNT, "deny", {0: {MS_REMOUNT}}, {0: MS_REMOUNT}))
        assert values(cgroup, act, *ways) == [3, -errno.EPERM]
        (event,) = probes.wait(cgroup, K.SYS_MOUNT)
        assert (event.text, event.mechanism) == (b"tmpfs", hook_mechanism())


# ---- programs of the host


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """A container's files: an overlay with a library."""
    with mounted("-t", "tmpfs", "none", tmp_path):
        for name in ("image", "upper", "work", "root"):
            (tmp_path / name).mkdir()
        (tmp_path / "image/library").write_bytes(Path("/bin/true").read_bytes())
        options = f"lowerdir={tmp_path}/image,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        with mounted("-t", "overlay", "-o", options, "none", tmp_path / "root"):
            yield tmp_path / "root"


@pytest.mark.parametrize("way", ["map", "mapat"])
def test_a_program_of_the_host_does_not_map_code_of_a_container(
    probes: Probes, names: str, image: Path, way: str
) -> None:
    """At once, or by a mapping that becomes executable. Its own files it may map."""

    def maps(path: Path) -> str:
        argv = [names, HERE, way, str(path)]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[0]

    assert maps(image / "library") == "opened"
    probes.enforce(Rule(K.HOST_MAP, "deny", {NAME: {name_hash(b"library")}}))
    assert maps(image / "library") == "refused"
    assert maps(Path("/bin/true")) == "opened"
    event = probes.wait(None, K.HOST_MAP)[-1]
    assert (event.action, event.mechanism, event.path) == (Action.DENY, hook_mechanism(), b"/library")
