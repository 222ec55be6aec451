# SPDX-License-Identifier: Apache-2.0
"""Relations of processes at LSM hooks: looks into them, what is reached through them, signals."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

import pytest

from ringfence.abi import Action, EventKind, Relation, Tamper
from tests.kernel.looks import ACT_HELD, MOUNT_OF, PROCESS, SIGNALS, THROUGH, USR1, Holder, held, holding
from tests.kernel.probes import Probes, values
from tests.kernel.rules import Rule
from tests.support.cgroups import Cgroup
from tests.support.hooks import hook_mechanism

pytestmark = pytest.mark.root
PROBES = {"lsm": True}
K = EventKind
CALL, OPEN, LOOKUP = 1, 2, 3
READ, ATTACH = 1, 2


@pytest.mark.parametrize("what", ["memfd", "pipe"])
def test_what_a_foreign_process_holds_is_refused(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder, what: str, tmp_path: Path
) -> None:
    """By its own name in /proc, and by a link to that name."""
    alias = tmp_path / "alias"
    alias.symlink_to(stranger.path(what))
    named = f"open:{alias}:{os.O_RDONLY | os.O_NONBLOCK}"
    assert -errno.EPERM not in values(cgroup, act, held(stranger, what), named)
    probes.enforce(Rule(K.FILE_OPEN, "deny", THROUGH, MOUNT_OF))
    assert values(cgroup, act, held(stranger, what)) == [-errno.EPERM]
    assert values(cgroup, act, named) == [-errno.EPERM]
    (one, other) = probes.wait(cgroup, K.FILE_OPEN, 2)
    assert one.action == other.action == Action.DENY


def test_what_is_its_own_is_not_foreign(probes: Probes, cgroup: Cgroup, act: str, stranger: Holder) -> None:
    """Its standard output, also after a look at the host; what another of its processes holds."""
    probes.enforce(Rule(K.FILE_OPEN, "deny", THROUGH, MOUNT_OF))
    read = f"sys:89:={stranger.path('pipe')}:={'x' * 64}:64"
    with holding(cgroup) as sibling:
        found = values(cgroup, act, read, ACT_HELD, held(sibling, "memfd"), held(sibling, "pipe"))
    assert -errno.EPERM not in found
    assert probes.events(cgroup, K.FILE_OPEN) == []


def test_a_look_is_forgotten_by_the_next_open(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder
) -> None:
    """The same call with the same arguments: only its own look counts."""
    probes.enforce(Rule(K.FILE_OPEN, "deny", THROUGH, MOUNT_OF))
    refused, opened = values(cgroup, act, held(stranger, "pipe"), ACT_HELD)
    assert refused == -errno.EPERM
    assert opened >= 0


def test_files_of_proc_have_the_relation_of_their_process(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder
) -> None:
    """Not that of the directory's name: threads and links count as well."""
    probes.enforce(Rule(K.FILE_OPEN, "deny", *PROCESS))
    pid = stranger.pid
    with holding(cgroup) as sibling:
        own = values(
            cgroup, act, "open:/proc/self/stat:0", f"open:/proc/{sibling.pid}/stat:0", "open:/proc/stat:0"
        )
        assert -errno.EPERM not in own
    names = (f"/proc/{pid}/stat", f"/proc/{pid}/task/{pid}/stat", f"/proc/self/../{pid}/stat")
    assert values(cgroup, act, *(f"open:{name}:0" for name in names)) == [-errno.EPERM] * 3


def test_a_look_says_how_it_came_about(probes: Probes, cgroup: Cgroup, act: str, stranger: Holder) -> None:
    """A call on the process, the open of one of its files, a link."""
    pid = stranger.pid
    probes.enforce(
        *(Rule(K.PROCESS_LOOK, "alert", {1: {Relation.HOST}, 2: {via}}) for via in (CALL, OPEN, LOOKUP))
    )
    values(cgroup, act, f"sys:312:{pid}:{pid}:1:0:0", f"open:/proc/{pid}/maps:0", f"open:/proc/{pid}/cwd:0")
    found = [(event.operands[2], event.rule) for event in probes.wait(cgroup, K.PROCESS_LOOK, 3)]
    assert found == [(CALL, 0), (OPEN, 1), (LOOKUP, 2)]


def test_what_everyone_may_read_is_no_look(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder
) -> None:
    """As `ps` and `top` do."""
    probes.enforce(Rule(K.PROCESS_LOOK))
    script = f"cat /proc/{stranger.pid}/stat /proc/{stranger.pid}/status /proc/{stranger.pid}/cmdline"
    assert cgroup.run(["sh", "-c", script], capture_output=True).returncode == 0
    assert probes.events(cgroup, K.PROCESS_LOOK) == []


def test_a_look_is_refused(probes: Probes, cgroup: Cgroup, act: str, stranger: Holder) -> None:
    """kcmp of the host's processes; of the caller itself it works."""
    pid = stranger.pid
    call = f"sys:312:{pid}:{pid}:1:0:0"
    assert values(cgroup, act, call) == [0]
    probes.enforce(Rule(K.PROCESS_LOOK, "deny", {0: {READ}, 1: {Relation.HOST}, 2: {CALL}}))
    assert values(cgroup, act, call) == [-errno.EPERM]
    (event,) = probes.wait(cgroup, K.PROCESS_LOOK)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())
    with holding(cgroup) as sibling:
        assert values(cgroup, act, f"sys:312:{sibling.pid}:{sibling.pid}:1:0:0") == [0]


def test_a_call_with_an_event_of_its_own_is_no_look(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder
) -> None:
    """ptrace is decided by the rules on ptrace."""
    probes.enforce(Rule(K.PROCESS_LOOK), Rule(K.SYS_PTRACE, "deny", {1: {Relation.HOST}}))
    assert values(cgroup, act, f"ptrace:{stranger.pid}") == [-errno.EPERM]
    probes.wait(cgroup, K.SYS_PTRACE)
    assert probes.events(cgroup, K.PROCESS_LOOK) == []


_OWNER = """
import fcntl, os, socket, struct, sys
one, pid = socket.socketpair()[0], int(sys.argv[1])
try:
    {way}
except OSError as error:
    sys.exit(error.errno)
"""
OWNERS = {
    "F_SETOWN": "fcntl.fcntl(one, 8, pid)",
    "F_SETOWN of a group": "fcntl.fcntl(one, 8, pid and -os.getpgid(pid))",
    "F_SETOWN_EX": "fcntl.fcntl(one, 15, struct.pack('ii', 1, pid))",
}


def owned(cgroup: Cgroup, way: str, pid: int) -> int:
    """Returns the status of a program that makes a process the owner of its socket's signals."""
    return cgroup.run([sys.executable, "-c", _OWNER.format(way=way), str(pid)]).returncode


@pytest.mark.parametrize("way", OWNERS)
def test_a_foreign_owner_of_signals_is_refused(
    probes: Probes, cgroup: Cgroup, stranger: Holder, way: str
) -> None:
    """The kernel would signal it later, for any task. Nobody may be the owner, as before."""
    probes.enforce(Rule(K.SYS_SIGNAL, "deny", {1: {Relation.HOST}}))
    assert owned(cgroup, OWNERS[way], stranger.pid) == errno.EPERM
    (event,) = probes.wait(cgroup, K.SYS_SIGNAL)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())
    assert owned(cgroup, OWNERS[way], 0) == 0


def test_a_foreign_owner_that_was_set_condemns(probes: Probes, cgroup: Cgroup, stranger: Holder) -> None:
    """By a call whose number no hook reads, FIOSETOWN: as if another thread had changed it meanwhile."""
    way = "fcntl.ioctl(one, 0x8901, struct.pack('i', pid))"
    probes.enforce(Rule(K.SYS_SIGNAL, "deny", {1: {Relation.HOST}}))
    assert owned(cgroup, way, 0) == 0
    assert owned(cgroup, way, stranger.pid) == -signal.SIGKILL
    (event,) = probes.wait(cgroup, K.AGENT_TAMPER)
    assert event.what == Tamper.CONDEMNED


@pytest.mark.parametrize("call", SIGNALS)
def test_a_signal_to_the_host_is_refused(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder, call: str
) -> None:
    """By every call that has the number of a process. To its own container it arrives."""
    command = SIGNALS[call].format(pid=stranger.pid, sig=USR1)
    assert values(cgroup, act, command) == [0]
    probes.enforce(Rule(K.SYS_SIGNAL, "deny", {0: {USR1}, 1: {Relation.HOST}}))
    assert values(cgroup, act, SIGNALS[call].format(pid=stranger.pid, sig=0)) == [0]
    assert values(cgroup, act, command) == [-errno.EPERM]
    (event,) = probes.wait(cgroup, K.SYS_SIGNAL)
    assert event.operands[:2] == (USR1, Relation.HOST)
    with holding(cgroup) as sibling:
        assert values(cgroup, act, SIGNALS[call].format(pid=sibling.pid, sig=USR1)) == [0]


def test_a_signal_to_a_group_does_not_reach_the_host(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder
) -> None:
    """The hook is asked for each process: the caller's own gets it. The call is reported once."""
    probes.enforce(Rule(K.SYS_SIGNAL, "deny", {1: {Relation.HOST}}))
    group = os.getpgid(stranger.pid)
    assert group == os.getpgid(0) != stranger.pid
    assert values(cgroup, act, f"sys:62:{-group}:0") == [0]
    assert len(probes.wait(cgroup, K.SYS_SIGNAL)) == 1
