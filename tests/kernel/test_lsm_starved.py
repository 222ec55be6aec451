# SPDX-License-Identifier: Apache-2.0
"""Without a free buffer to read texts into, nothing passes that a rule could refuse.

Preempted programs keep their buffers, so a container could arrange that none is free.
"""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringfence.abi import EventKind
from tests.kernel.lsm import REFUSED, Outcome, evading
from tests.kernel.probes import BOTH_WAYS, HOOKS_DECIDE, Probes, results
from tests.kernel.rules import Rule, name_hash
from tests.support.cgroups import Cgroup

pytestmark = pytest.mark.root
K = EventKind
MAGIC, FLAGS, TYPE, NAME = range(4)  # operands of file.open
TAKEN = b"\xff" * 8
NEWUSER, NEWUTS = 0x10000000, 0x04000000


@contextmanager
def starved(probes: Probes) -> Iterator[None]:
    """Every buffer is taken, until the end of the block."""
    own, shared = probes.kernel.map("scratch_busy"), probes.kernel.map("scratch_shared_busy")
    before = own.get(0)
    assert before is not None
    own.set(0, TAKEN * (len(before) // 8))
    shared.set(0, TAKEN)
    try:
        yield
    finally:
        own.set(0, bytes(len(before)))
        shared.set(0, bytes(8))


def act_of(cgroup: Cgroup, act: str, command: str) -> int:
    """Returns the result of one command of act.c."""
    done: subprocess.CompletedProcess[bytes] = cgroup.run([act, command], capture_output=True)
    assert done.returncode == 0, done
    (value,) = results(done).values()
    return value


@BOTH_WAYS
def test_a_shared_buffer_is_used_when_the_cpus_buffers_are_taken(
    probes: Probes, cgroup: Cgroup, act: str
) -> None:
    """Nothing is lost yet: the text is checked and reported."""
    own = probes.kernel.map("scratch_busy")
    before = own.get(0)
    assert before is not None
    probes.enforce(Rule(K.SYSCTL_ACCESS, "deny", {0: {1}}, text=b"kernel/domainname\0"))
    own.set(0, TAKEN * (len(before) // 8))
    try:
        assert act_of(cgroup, act, "rewrite:/proc/sys/kernel/domainname") == -errno.EPERM
        assert act_of(cgroup, act, "rewrite:/proc/sys/kernel/hostname") > 0
    finally:
        own.set(0, bytes(len(before)))
    (event,) = probes.wait(cgroup, K.SYSCTL_ACCESS)
    assert event.name == b"kernel/domainname"
    assert probes.kernel.map("scratch_shared_busy").get(0) == bytes(8)  # given back


@BOTH_WAYS
def test_a_sysctl_that_a_rule_could_match_is_refused(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Writes of any name, because the rule is about writes only; the refusal is counted."""
    probes.enforce(Rule(K.SYSCTL_ACCESS, "deny", {0: {1}}, text=b"kernel/domainname\0"))
    lost = probes.drops().get(("sysctl.access", "table_full"), 0)
    with starved(probes):
        assert act_of(cgroup, act, "rewrite:/proc/sys/kernel/hostname") == -errno.EPERM
        assert cgroup.run(["cat", "/proc/sys/kernel/hostname"], capture_output=True).returncode == 0
    assert probes.drops()[("sysctl.access", "table_full")] > lost
    assert act_of(cgroup, act, "rewrite:/proc/sys/kernel/hostname") > 0


@HOOKS_DECIDE  # a call that is killed and not refused passes without a buffer
def test_an_open_that_a_rule_could_match_is_refused(
    probes: Probes, cgroup: Cgroup, evade: str, tmp_path: Path
) -> None:
    """By the filesystem, which is known; the name is not. Other filesystems, and alerts, pass."""
    secret = tmp_path / "file"
    secret.write_text("x")
    magic = int(subprocess.check_output(["stat", "-f", "-c", "0x%t", str(tmp_path)]), 16)
    names = {NAME: {name_hash(b"another")}}
    probes.enforce(Rule(K.FILE_OPEN, "deny", {MAGIC: {magic}, **names}))
    with starved(probes):
        assert evading(cgroup, evade, "open", secret) == REFUSED
        assert evading(cgroup, evade, "open", "/proc/uptime") == Outcome(0)
    assert evading(cgroup, evade, "open", secret) == Outcome(0)
    probes.enforce(Rule(K.FILE_OPEN, "alert", {MAGIC: {magic}, **names}))
    with starved(probes):
        assert evading(cgroup, evade, "open", secret) == Outcome(0)


@HOOKS_DECIDE
def test_a_call_is_refused_by_its_known_fields(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Flags are numbers, so they are known. A filesystem's name is not."""
    probes.enforce(
        Rule(K.SYS_UNSHARE, "deny", {0: {NEWUSER}}, {0: NEWUSER}),
        Rule(K.SYS_FSOPEN, "deny", text=b"ext4\0"),
    )
    with starved(probes):
        assert act_of(cgroup, act, f"unshare:{NEWUSER}") == -errno.EPERM
        assert act_of(cgroup, act, f"unshare:{NEWUTS}") == 0
        assert act_of(cgroup, act, "sys:430:=tmpfs:0") == -errno.EPERM
    assert act_of(cgroup, act, "sys:430:=tmpfs:0") > 0


@HOOKS_DECIDE
def test_a_program_is_refused_by_its_known_fields(
    probes: Probes, cgroup: Cgroup, evade: str, tmp_path: Path
) -> None:
    """Not its name."""
    tool = tmp_path / "tool"
    tool.write_bytes(Path("/bin/true").read_bytes())
    tool.chmod(0o755)
    probes.enforce(Rule(K.PROCESS_EXEC, "deny", {NAME: {name_hash(b"another")}}))
    running_there = cgroup.popen(
        [evade, "wait", "-", str(tool)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with running_there, starved(probes):
        said, _ = running_there.communicate(b"x")
    assert said.split()[:2] == [b"refused", str(errno.EPERM).encode()]
    assert cgroup.run([evade, "exec", str(tool), "-"]).returncode == 0


#: hooks that decide with the text or the path of an object, of which none can be read
HOOKED = [
    (Rule(K.SYS_MOUNT, "deny", text=b"ext4\0"), "mount:tmpfs:/tmp"),
    (Rule(K.SYS_CHMOD, "deny", {0: {0o4000}}, {0: 0o4000}, text=b"/elsewhere\0"), "sys:90:={file}:2541"),
    (Rule(K.SYS_SETXATTR, "deny", text=b"security.other\0"), "xattr:{file}:security.capability"),
    (Rule(K.SYS_IOCTL, "deny", {0: {0x5413}}), f"sys:16:0:{0x5413}:0"),
    (Rule(K.SYS_SOCKET, "deny", {0: {38}}), "socket:38:5:0"),
    (Rule(K.SYS_UMOUNT, "deny", text=b"/elsewhere\0"), "sys:166:=/:2"),
    (Rule(K.FILE_LINK, "deny", {NAME: {name_hash(b"another")}}), "sys:88:=/etc:={file}.link"),
    (Rule(K.UNIX_CONNECT, "deny", text=b"/no/such/name\0"), "unix:@rf-starved"),
]


@HOOKS_DECIDE
@pytest.mark.parametrize(("rule", "call"), HOOKED, ids=[rule.event.label for rule, _ in HOOKED])
def test_a_hook_refuses_what_it_cannot_read(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path, rule: Rule, call: str
) -> None:
    """A rule might match; without it, the call does not end with EPERM."""
    path = tmp_path / "file"
    path.write_text("x")
    call = call.format(file=path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0rf-starved")
        server.listen(1)
        with starved(probes):
            assert act_of(cgroup, act, call) != -errno.EPERM
            probes.enforce(rule)
            assert act_of(cgroup, act, call) == -errno.EPERM


@HOOKS_DECIDE
def test_an_exception_holds_for_nothing_unknown(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """An exception on a text would hold for each text that cannot be read."""
    probes.enforce(
        Rule(K.SYS_FSOPEN, clears=1, text=b"tmpfs\0"),
        Rule(K.SYS_FSOPEN, "deny"),
    )
    assert act_of(cgroup, act, "sys:430:=tmpfs:0") > 0
    with starved(probes):
        assert act_of(cgroup, act, "sys:430:=tmpfs:0") == -errno.EPERM
