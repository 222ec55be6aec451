# SPDX-License-Identifier: Apache-2.0
"""Relations of processes without LSM hooks: at the entry of calls, and at the exit of opens."""

from __future__ import annotations

import os
import signal

import pytest

from ringfence.abi import EventKind, Relation
from tests.kernel.looks import ACT_HELD, MOUNT_OF, PROCESS, SIGNALS, THROUGH, USR1, Holder, held, holding
from tests.kernel.probes import Probes
from tests.kernel.rules import Rule
from tests.support.cgroups import Cgroup

pytestmark = pytest.mark.root
K = EventKind
KCMP = 312
PROBES = {"observe": (K.SYS_SIGNAL, K.PROCESS_LOOK, K.SYS_SETTIME, K.SYS_KEYCTL, K.FILE_OPEN)}
KILLED = -signal.SIGKILL


def ended(cgroup: Cgroup, act: str, *commands: str) -> int:
    """Returns the exit status of act.c with these commands, armed in the container."""
    return cgroup.run([act, *commands], capture_output=True).returncode


@pytest.mark.parametrize("what", ["memfd", "pipe"])
def test_what_a_foreign_process_holds_is_refused(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder, what: str
) -> None:
    """Its own standard output is not: it holds a descriptor of it."""
    assert ended(cgroup, act, held(stranger, what)) == 0
    probes.enforce(Rule(K.FILE_OPEN, "kill", THROUGH, MOUNT_OF))
    assert ended(cgroup, act, ACT_HELD) == 0
    assert ended(cgroup, act, held(stranger, what)) == KILLED


def test_files_of_proc_have_the_relation_of_their_process(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder
) -> None:
    """Those of the container's other processes are its own."""
    probes.enforce(Rule(K.FILE_OPEN, "kill", *PROCESS))
    with holding(cgroup) as sibling:
        assert ended(cgroup, act, "open:/proc/self/stat:0", f"open:/proc/{sibling.pid}/stat:0") == 0
    assert ended(cgroup, act, f"open:/proc/{stranger.pid}/task/{stranger.pid}/stat:0") == KILLED


@pytest.mark.parametrize("call", SIGNALS)
def test_a_signal_has_the_relation_of_its_target(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder, call: str
) -> None:
    """By every call that has a process's number."""
    probes.enforce(Rule(K.SYS_SIGNAL, "kill", {0: {USR1}, 1: {Relation.HOST}}))
    with holding(cgroup) as sibling:
        own = SIGNALS[call].format(pid=sibling.pid, sig=USR1)
        assert ended(cgroup, act, own, SIGNALS[call].format(pid=stranger.pid, sig=0)) == 0
    assert ended(cgroup, act, SIGNALS[call].format(pid=stranger.pid, sig=USR1)) == KILLED


def test_a_signal_to_a_group_has_the_relation_of_its_processes(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder
) -> None:
    """Also that to every process, in the host's pid namespace. Signal 0: nothing is signalled."""
    with holding(cgroup) as sibling:
        commands = [f"sys:62:{-os.getpgid(stranger.pid)}:0", "sys:62:-1:0", f"sys:62:{sibling.pid}:0"]
        assert ended(cgroup, act, *commands) == 0
    found = [event.operands[1] for event in probes.wait(cgroup, K.SYS_SIGNAL, 3)]
    assert found == [Relation.HOST, Relation.HOST, Relation.CONTAINER]


@pytest.mark.parametrize(("call", "first"), [(141, 0), (251, 1)])
def test_a_change_of_priority_has_the_relation_of_its_processes(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder, call: int, first: int
) -> None:
    """One, a group, the caller's own group, or those of a user. ioprio_set counts these from 1."""
    process, group, user = first, first + 1, first + 2
    probes.enforce(Rule(K.PROCESS_LOOK, "kill", {1: {Relation.HOST}}))
    with holding(cgroup) as sibling:
        for which, who in ((process, 0), (process, sibling.pid), (group, 0)):
            assert ended(cgroup, act, f"sys:{call}:{which}:{who}:0") == 0
    for which, who in ((process, stranger.pid), (group, os.getpgid(stranger.pid)), (user, 65533)):
        assert ended(cgroup, act, f"sys:{call}:{which}:{who}:{2 << 13 | 4 if first else 0}") == KILLED


def test_kcmp_has_the_relation_of_the_more_foreign_process(
    probes: Probes, cgroup: Cgroup, act: str, stranger: Holder
) -> None:
    """Whichever argument it is."""
    with holding(cgroup) as sibling:
        pairs = [(sibling.pid, sibling.pid), (sibling.pid, stranger.pid), (stranger.pid, sibling.pid)]
        assert ended(cgroup, act, *(f"sys:{KCMP}:{a}:{b}:1:0:0" for a, b in pairs)) == 0
    # The C library asks for its own limits first.
    found = [event.operands[1] for event in probes.wait(cgroup, K.PROCESS_LOOK, 4) if event.nr == KCMP]
    assert found == [Relation.CONTAINER, Relation.HOST, Relation.HOST]


def test_a_clock_that_may_be_set_counts_as_set(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """adjtimex with memory that cannot be read; a clock that does not exist."""
    assert ended(cgroup, act, "sys:159:1", "sys:227:77:0") == 0
    found = [event.operands[1] for event in probes.wait(cgroup, K.SYS_SETTIME, 2)]
    assert found == [1, 1]


def test_words_for_request_key_are_noticed(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """By the register: the words themselves do not matter."""
    assert ended(cgroup, act, "sys:249:=user:=rf-absent:0:0", "sys:249:0:0:=x:0") == 0
    found = [event.operands[2] for event in probes.wait(cgroup, K.SYS_KEYCTL, 2)]
    assert found == [0, 1]
