# SPDX-License-Identifier: Apache-2.0
"""Without a free buffer to read texts into, nothing passes that a rule could refuse.

A task has a buffer of its own, which no other task can take. If a program finds it taken, the worst
is assumed. Where hooks decide, the call is refused, else its process is killed.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ringfence.abi import GUARD_DENY, Action, EventKind, Tamper
from ringfence.bpf.capabilities import NodeCapabilities
from tests.kernel.lsm import FLAGS, MAGIC, NAME
from tests.kernel.probes import BOTH_WAYS, HOOKS_DECIDE, LABEL, Probes, running
from tests.kernel.rules import Rule, name_hash
from tests.kernel.starving import Act, pools_taken
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup

pytestmark = pytest.mark.root
K = EventKind
NEWUSER, NEWUTS = 0x10000000, 0x04000000
O_LARGEFILE = 0o100000  # of every 64-bit open; no other flag: for reading
NOT_NAMED, NO_TEXT = {NAME: {name_hash(b"another")}}, b"no/such/text\0"


class Case(NamedTuple):
    """A call that a rule could refuse by something that needs a buffer: a text, or a file's name."""

    id: str
    kind: EventKind
    call: str  # {tmp}: a directory with the file `file` and the program `tool`
    rule: dict[str, object]
    everywhere: bool = True  # where only calls are seen, too
    cgroup: str = ""  # the cgroup hook that decides if no LSM hook does
    needs: str = ""  # a file that shows that the kernel can do it
    hooked: bool = True  # an LSM hook decides it
    refusal: int = errno.EPERM  # what a refusal by a hook looks like


CASES = [
    Case("mount", K.SYS_MOUNT, "mount:tmpfs:{tmp}", {"text": NO_TEXT}),
    Case("fsopen", K.SYS_FSOPEN, "sys:430:=tmpfs:0", {"text": NO_TEXT}),
    Case("chroot", K.SYS_CHROOT, "sys:161:={tmp}", {"text": NO_TEXT}),
    Case("chmod", K.SYS_CHMOD, "sys:90:={tmp}/file:511", {"text": NO_TEXT}),
    Case("setxattr", K.SYS_SETXATTR, "xattr:{tmp}/file:user.x", {"text": NO_TEXT}),
    Case("symlink", K.SYS_SYMLINK, "sys:88:=there:={tmp}/here", {"text": NO_TEXT}),
    Case("mknod", K.SYS_MKNOD, "mknod:{tmp}/fifo:p:0:0", {"text": NO_TEXT}),
    Case("memfd", K.SYS_MEMFD_CREATE, "sys:319:=name:0", {"text": NO_TEXT}, hooked=False),
    Case("key", K.SYS_KEYCTL, "sys:248:=user:=d:=v:1:-2", {"text": NO_TEXT}),
    Case("module", K.MODULE_REQUEST, "socket:29:3:0", {"text": NO_TEXT},
         needs="/proc/sys/kernel/modprobe", refusal=errno.EAFNOSUPPORT),
    Case("open", K.FILE_OPEN, "open:{tmp}/file:0", {"operands": NOT_NAMED}),
    Case("open32", K.FILE_OPEN, "open32:{tmp}/file", {"operands": NOT_NAMED}),
    Case("create", K.FILE_OPEN, "sys:85:={tmp}/new:420", {"operands": NOT_NAMED}),
    Case("path", K.FILE_OPEN, "open:{tmp}/file:0", {"text": NO_TEXT}),
    Case("exec", K.PROCESS_EXEC, "sys:59:={tmp}/tool:0:0", {"operands": NOT_NAMED}),
    Case("rename", K.FILE_OPEN, "sys:82:={tmp}/file:={tmp}/other", {"operands": NOT_NAMED}, False),
    Case("unlink", K.FILE_OPEN, "sys:87:={tmp}/file", {"operands": NOT_NAMED}, False),
    Case("mkdir", K.FILE_OPEN, "sys:83:={tmp}/directory:511", {"operands": NOT_NAMED}, False),
    Case("link", K.FILE_LINK, "sys:88:=../there:={tmp}/here", {"operands": NOT_NAMED}, False),
    Case("sysctl", K.SYSCTL_ACCESS, "rewrite:/proc/sys/kernel/hostname",
         {"text": NO_TEXT, "operands": {0: {1}}}, cgroup="sysctl"),
    Case("unix", K.UNIX_CONNECT, "unix:{tmp}/socket", {"text": NO_TEXT}, cgroup="connect_unix"),
]  # fmt: skip


def rule_of(case: Case, action: str) -> Rule:
    """Returns the rule of a case, with that action."""
    return Rule(case.kind, action, **case.rule)  # type: ignore[arg-type]


def check_passed(result: int | None) -> None:
    """The call was done, and its process lives."""
    assert result is not None
    assert result >= 0


def check_stopped(one: Act, result: int | None, *, refused: bool, refusal: int = errno.EPERM) -> None:
    """Either the call was refused with that error, or its process was killed in it."""
    if refused:
        assert result == -refusal
    else:
        assert (result, one.status()) == (None, -signal.SIGKILL)


@pytest.fixture
def things(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file, a server's socket and a program."""
    (tmp_path / "file").write_text("x")
    tool = tmp_path / "tool"
    tool.write_bytes(Path("/bin/true").read_bytes())
    tool.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        yield tmp_path


@BOTH_WAYS
@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_a_call_that_a_rule_could_match_does_not_pass(
    probes: Probes, cgroup: Cgroup, act: str, things: Path, by_hook: bool, case: Case
) -> None:
    """Neither its text nor its file's name is known: a rule on another one refuses it.
    With its buffer, or under an alert, the same call passes.
    """
    if not by_hook and not case.everywhere:
        force.elsewhere("calls are not seen for this event")
    if case.cgroup and not by_hook and case.cgroup not in NodeCapabilities.detect().cgroup:
        force.elsewhere(f"this kernel has no hook cgroup/{case.cgroup}")
    if not Path(case.needs).exists():
        force.elsewhere(f"no {case.needs}")
    call = case.call.format(tmp=things)
    probes.enforce(rule_of(case, "deny"))
    with Act(probes, cgroup, act, call, call) as one:
        assert one.call() not in (-errno.EPERM, None) or case.id == "exec"
        assert case.id != "exec" or one.status() == 0
    for made in ("new", "here", "fifo", "directory", "other"):
        path = things / made
        if made == "other" and path.exists():
            path.rename(things / "file")
        elif path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    (things / "file").write_text("x")
    lost = probes.drops().get((case.kind.label, "table_full"), 0)
    with Act(probes, cgroup, act, call) as one:
        probes.enforce(rule_of(case, "alert"))
        one.take_buffer()
        probes.enforce(rule_of(case, "deny"))
        refused = bool((by_hook and case.hooked) or case.cgroup)
        check_stopped(one, one.starved_call(), refused=refused, refusal=case.refusal)
    assert probes.drops()[case.kind.label, "table_full"] > lost


@BOTH_WAYS
@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_an_alert_refuses_nothing(probes: Probes, cgroup: Cgroup, act: str, things: Path, case: Case) -> None:
    """The record is lost, and counted."""
    call = case.call.format(tmp=things)
    probes.enforce(rule_of(case, "alert"))
    with Act(probes, cgroup, act, call) as one:
        result = one.starved_call()
        assert result != -errno.EPERM
        assert one.status() == 0


@BOTH_WAYS
@pytest.mark.parametrize(
    ("kind", "operands", "hit", "other"),
    [
        (K.SYS_UNSHARE, {0: {NEWUTS}}, f"unshare:{NEWUTS}", f"unshare:{0x400}"),
        (K.SYS_SOCKET, {0: {38}}, "socket:38:5:0", "socket:2:2:0"),
        (K.SYS_CHMOD, {0: {0o600}}, "sys:90:={tmp}/file:384", "sys:90:={tmp}/file:448"),
        (K.SYS_KEYCTL, {0: {0}}, "sys:250:0:-1:1", "sys:250:6:-3:0"),
        (K.SYS_MEMFD_CREATE, {0: {1}}, "sys:319:=name:1", "sys:319:=name:2"),
        (K.FILE_OPEN, {FLAGS: {O_LARGEFILE | 1}}, "open:{tmp}/file:1", "open:{tmp}/file:0"),
    ],
    ids=["unshare", "socket", "chmod", "keyctl", "memfd", "open"],
)
def test_what_needs_no_text_is_decided_as_ever(
    probes: Probes,
    cgroup: Cgroup,
    act: str,
    things: Path,
    by_hook: bool,
    kind: EventKind,
    operands: dict[int, set[int]],
    hit: str,
    other: str,
) -> None:
    """Numbers are known without a buffer: exactly the calls that match are refused."""
    probes.enforce(Rule(kind, "deny", operands))
    calls = [call.format(tmp=things) for call in (other, hit)]
    with Act(probes, cgroup, act, *calls) as one, pools_taken(probes):
        one.take_buffer()
        assert one.call() not in (-errno.EPERM, None)
        check_stopped(one, one.call(), refused=by_hook and kind is not K.SYS_MEMFD_CREATE)


@BOTH_WAYS
def test_an_exception_does_not_hold_for_what_is_unknown(
    probes: Probes, cgroup: Cgroup, act: str, things: Path, by_hook: bool
) -> None:
    """The exception is for reading, and the rule for one file, which this may be."""
    call = f"open:{things}/file:0"
    deny = Rule(K.FILE_OPEN, "deny", {NAME: {name_hash(b"file")}})
    probes.enforce(deny, Rule(K.FILE_OPEN, operands={FLAGS: {O_LARGEFILE}}, clears=0))
    with Act(probes, cgroup, act, call, call) as one:
        check_passed(one.call())
        check_stopped(one, one.starved_call(), refused=by_hook)


@BOTH_WAYS
def test_no_other_task_takes_the_buffer_of_a_task(
    probes: Probes, cgroup: Cgroup, act: str, things: Path, by_hook: bool
) -> None:
    """All buffers of the pools are taken: a container's tasks have their own, and texts decide."""
    probes.enforce(
        Rule(K.SYS_MOUNT, "deny", text=b"ramfs\0"),
        Rule(K.FILE_OPEN, "deny", {NAME: {name_hash(b"tool")}}),
        Rule(K.PROCESS_EXEC, "alert", {NAME: {name_hash(b"tool")}}),
    )
    calls = [f"mount:tmpfs:{things}", f"open:{things}/file:0", f"mount:ramfs:{things}"]
    (things / "below").mkdir()
    before = probes.drops()
    with Act(probes, cgroup, act, f"mount:tmpfs:{things}/below", *calls[1:]) as one, pools_taken(probes):
        assert one.call() == 0
        check_passed(one.call())
        result = one.call()
        assert result == (-errno.EPERM if by_hook else None)
    assert probes.drops() == before
    (event,) = [e for e in probes.wait(cgroup, K.SYS_MOUNT) if e.rule == 0]
    assert event.text == b"ramfs"


@BOTH_WAYS
def test_the_first_program_of_a_container_is_killed_if_it_cannot_be_judged(
    probes: Probes, cgroup: Cgroup, things: Path
) -> None:
    """Its task is not bound yet, so it takes a buffer of the pools."""
    probes.enforce(Rule(K.PROCESS_EXEC, "deny", NOT_NAMED))
    assert cgroup.run([str(things / "tool")]).returncode == 0
    with pools_taken(probes):
        assert cgroup.run([str(things / "tool")]).returncode == -signal.SIGKILL
        probes.enforce(Rule(K.PROCESS_EXEC, "alert", NOT_NAMED))
        assert cgroup.run([str(things / "tool")]).returncode == 0


@HOOKS_DECIDE
def test_a_call_is_refused_by_its_known_fields(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Flags are numbers, so they are known. A filesystem's name is not."""
    probes.enforce(
        Rule(K.SYS_UNSHARE, "deny", {0: {NEWUSER}}, {0: NEWUSER}),
        Rule(K.SYS_FSOPEN, "deny", text=b"ext4\0"),
    )
    calls = [f"unshare:{NEWUSER}", f"unshare:{NEWUTS}", "sys:430:=tmpfs:0", "sys:430:=tmpfs:0"]
    with Act(probes, cgroup, act, *calls) as one:
        one.take_buffer()
        assert one.call() == -errno.EPERM
        assert one.call() == 0
        assert one.call() == -errno.EPERM
        one.take_buffer(taken=False)
        last = one.call()
        assert last is not None
        assert last > 0


@BOTH_WAYS
def test_an_open_is_refused_by_the_filesystem_which_is_known(
    probes: Probes, cgroup: Cgroup, act: str, things: Path, by_hook: bool
) -> None:
    """The name is not. Other filesystems pass."""
    stat = ["stat", "-f", "-c", "0x%t", str(things)]
    magic = int(subprocess.check_output(stat), 16)
    probes.enforce(Rule(K.FILE_OPEN, "deny", {MAGIC: {magic}, **NOT_NAMED}))
    with Act(probes, cgroup, act, "open:/proc/uptime:0", f"open:{things}/file:0") as one:
        one.take_buffer()
        check_passed(one.call())
        assert one.call() == (-errno.EPERM if by_hook else None)
    assert os.path.exists(things / "file")


def test_a_file_of_the_agents_process_counts_as_a_guarded_one(act: str) -> None:
    """Its name is unknown: looking into the agent is killed, if the call passed till then."""
    call = f"open:/proc/{os.getpid()}/stat:0"
    with running(guard=GUARD_DENY) as probes, new_cgroup(LABEL) as cgroup:
        with Act(probes, cgroup, act, call, "open:/proc/self/stat:0", call) as one:
            check_passed(one.call())
            one.take_buffer()
            check_passed(one.call())
            check_stopped(one, one.call(), refused=False)
        event, condemned = probes.wait(cgroup, K.AGENT_TAMPER)
        assert event.action == Action.KILL
        assert (event.what, condemned.what) == (Tamper.PROC, Tamper.CONDEMNED)
