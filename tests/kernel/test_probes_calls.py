# SPDX-License-Identifier: Apache-2.0
"""System calls as the probes see them: arguments, operands, verdicts, and 32-bit entry points."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess

import pytest

from ringfence import abi
from ringfence.abi import Action, Counter, EventKind, Fact, Mechanism, Relation
from tests.kernel.probes import LABEL, Probes, need_32_bit_calls, results, run, running
from tests.kernel.rules import Rule
from tests.support.cgroups import Cgroup, new_cgroup

pytestmark = pytest.mark.root
K = EventKind
NEWUTS, NEWIPC, NEWNET, NEWUSER = 0x4000000, 0x8000000, 0x40000000, 0x10000000
AF_ALG, AF_INET, SOCK_DGRAM, SOCK_STREAM = 38, 2, 2, 1
OBSERVED = (K.SYS_UNSHARE, K.SYS_SETNS, K.SYS_MOUNT, K.SYS_SOCKET, K.SYS_PTRACE, K.SYS_SETUID, K.SYS_MKNOD)
PROBES = {"observe": OBSERVED}


def test_a_call_is_reported_with_its_arguments(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Number, arguments, string and counter; nothing is decided without a rule."""
    done = run(cgroup, act, f"unshare:{NEWUTS}", "mount:rf-no-such-fs:/tmp", "socket:2:2:17", "setuid:0")
    assert results(done) == {"unshare": 0, "mount": -errno.ENODEV, "socket": 3, "setuid": 0}
    (unshare,) = probes.wait(cgroup, K.SYS_UNSHARE)
    assert unshare.args[0] == unshare.operands[0] == NEWUTS
    assert (unshare.action, unshare.mechanism, unshare.rule) == (Action.NONE, Mechanism.OBSERVE, abi.NO_RULE)
    assert unshare.comm == b"act"
    (mount,) = probes.wait(cgroup, K.SYS_MOUNT)
    assert mount.text == b"rf-no-such-fs"
    assert mount.operands[0] == 3  # MS_RDONLY | MS_NOSUID
    (socket,) = probes.wait(cgroup, K.SYS_SOCKET)
    assert socket.operands[:3] == (AF_INET, SOCK_DGRAM, 17)
    assert socket.nr == {"x86_64": 41, "aarch64": 198}[platform.machine()]
    counts = probes.counters(cgroup)
    assert (counts[Counter.SYS_NAMESPACE], counts[Counter.SYS_SOCKET], counts[Counter.SYS_MOUNT]) == (1, 1, 1)


def test_a_killed_call_kills(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The whole thread group ends before the call
    returns; the record has the rule and its generation.
    """
    generation = probes.enforce(Rule(K.SYS_UNSHARE), Rule(K.SYS_UNSHARE, "kill", {0: {NEWUTS}}))
    done = run(cgroup, act, f"unshare:{NEWIPC}", f"unshare:{NEWUTS}", "forks:1")
    assert done.returncode == -signal.SIGKILL
    assert results(done) == {"unshare": 0}
    alert, kill = probes.wait(cgroup, K.SYS_UNSHARE, 2)
    assert (alert.action, alert.rule, alert.mechanism) == (Action.ALERT, 0, Mechanism.OBSERVE)
    assert (kill.action, kill.rule, kill.mechanism) == (Action.KILL, 1, Mechanism.KILL)
    assert kill.generation == alert.generation == generation
    assert not kill.flags & abi.FLAG_SIGNAL_FAILED
    counts = probes.counters(cgroup)
    assert (counts[Counter.ALERT], counts[Counter.KILL]) == (2, 1)


def test_a_rule_does_not_affect_unarmed_tasks(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Neither a runtime's set-up in the cgroup, nor the host."""
    probes.enforce(Rule(K.SYS_UNSHARE, "kill"))
    done = cgroup.run([act, f"unshare:{NEWUTS}"], armed=False, capture_output=True)
    assert results(done) == {"unshare": 0}
    subprocess.run([act, f"unshare:{NEWUTS}"], check=True, capture_output=True)
    assert not probes.events(cgroup, K.SYS_UNSHARE)


def test_a_mask_selects_the_bits_that_count(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Other bits of the operand change nothing."""
    probes.enforce(Rule(K.SYS_UNSHARE, "alert", {0: {NEWUTS}}, {0: NEWUTS}))
    run(cgroup, act, f"unshare:{NEWUTS | NEWIPC}", f"unshare:{NEWIPC}")
    first, second = probes.wait(cgroup, K.SYS_UNSHARE, 2)
    assert (first.action, second.action) == (Action.ALERT, Action.NONE)


def test_all_operands_must_match(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The AND of a rule's operands, and the lowest number among the strongest rules that match."""
    probes.enforce(
        Rule(K.SYS_SOCKET, "alert", {0: {AF_INET}, 1: {SOCK_DGRAM}}),
        Rule(K.SYS_SOCKET, "alert", {0: {AF_INET}}),
        Rule(K.SYS_SOCKET, "alert", {2: {6}}),
    )
    run(cgroup, act, "socket:2:2:0", "socket:2:1:6", "socket:1:1:0", "socket:1:1:6")
    reported = probes.wait(cgroup, K.SYS_SOCKET, 4)
    assert [event.rule for event in reported] == [0, 1, abi.NO_RULE, 2]


def test_exceptions_clear_their_rule_only(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """An excepted rule does not match; another rule on the same call still does."""
    probes.enforce(
        Rule(K.SYS_SOCKET, clears=1, operands={1: {SOCK_DGRAM}}),
        Rule(K.SYS_SOCKET, "kill", {0: {AF_INET}}),
        Rule(K.SYS_SOCKET, "alert", {0: {AF_INET}, 2: {17}}),
    )
    done = run(cgroup, act, "socket:2:2:0", "socket:2:2:17", "socket:2:1:0")
    assert done.returncode == -signal.SIGKILL
    reported = probes.wait(cgroup, K.SYS_SOCKET, 3)
    assert [(event.action, event.rule) for event in reported] == [
        (Action.NONE, abi.NO_RULE),
        (Action.ALERT, 2),
        (Action.KILL, 1),
    ]


def test_the_matching_rule_is_found_among_many(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """1,200 rules over nineteen words: the matching one is found."""
    rules = [Rule(K.SYS_SOCKET, "alert", {2: {1000 + number}}) for number in range(1200)]
    probes.enforce(*rules, Rule(K.SYS_SOCKET, "kill", {0: {AF_ALG}}))
    done = run(cgroup, act, "socket:2:2:0", "socket:38:5:0")
    assert done.returncode == -signal.SIGKILL
    first, second = probes.wait(cgroup, K.SYS_SOCKET, 2)
    assert (first.action, second.action, second.rule) == (Action.NONE, Action.KILL, 1200)
    assert not probes.drops()


def test_every_rule_that_matches_is_evaluated(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """4,096 rules that all match, over all words: the last one is the strongest."""
    probes.enforce(*[Rule(K.SYS_SOCKET)] * 4095, Rule(K.SYS_SOCKET, "kill"))
    done = run(cgroup, act, "socket:2:2:0")
    assert done.returncode == -signal.SIGKILL
    (event,) = probes.wait(cgroup, K.SYS_SOCKET)
    assert (event.action, event.rule) == (Action.KILL, 4095)


def test_text_matches_by_prefix_and_exactly(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The longest stored prefix includes the shorter ones."""
    probes.enforce(
        Rule(K.SYS_MOUNT, "alert", text=b"rf-"),
        Rule(K.SYS_MOUNT, "alert", text=b"rf-one\0", operands={0: {3}}),
        Rule(K.SYS_MOUNT, "kill", text=b"rf-kill\0"),
    )
    run(
        cgroup,
        act,
        "mount:rf-one:/",
        "mount:rf-onetwo:/",
        "mount:other:/",
        "mount:rf-killer:/",
        "mount:rf-kill:/",
    )
    reported = probes.wait(cgroup, K.SYS_MOUNT, 5)
    assert [event.rule for event in reported] == [0, 0, abi.NO_RULE, 0, 2]


def test_facts_are_current_at_each_call(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """A user namespace entered after the exec is seen at the next call."""
    bit = int(Fact.USER_NAMESPACE)
    probes.enforce(Rule(K.SYS_SOCKET, "alert", {abi.DIM_FACTS: {bit}}, {abi.DIM_FACTS: bit}))
    run(cgroup, act, "socket:2:2:0", f"unshare:{NEWUSER}", "socket:2:2:0")
    first, second = probes.wait(cgroup, K.SYS_SOCKET, 2)
    assert (first.action, second.action) == (Action.NONE, Action.ALERT)
    assert Fact.USER_NAMESPACE in Fact(second.facts)
    assert Fact.USER_NAMESPACE not in Fact(first.facts)
    assert Fact.CAP_SYS_ADMIN in Fact(second.facts)  # in the new namespace it has them all


def test_setns_has_the_namespace_kinds_and_their_owner(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """By the namespace behind the descriptor, or the process behind the pidfd; not by a path."""
    run(
        cgroup,
        act,
        f"setns:/proc/{os.getpid()}/ns/uts:0",
        "setns:/proc/self/ns/mnt:0",
        f"setnspid:1:{NEWNET}",
        f"setnspid:{os.getpid()}:{NEWUTS}",
    )
    reported = [event.operands[:2] for event in probes.wait(cgroup, K.SYS_SETNS, 4)]
    assert reported == [
        (NEWUTS, Relation.HOST),
        (0x20000, Relation.SELF),
        (NEWNET, Relation.HOST),
        (NEWUTS, Relation.HOST),
    ]


def test_ptrace_distinguishes_own_and_host_processes(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """In the host's pid namespace, by the container that the target is bound to."""
    peer = cgroup.popen([act, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stranger = subprocess.Popen([act, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with new_cgroup(LABEL) as elsewhere:
        other = elsewhere.popen([act, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            probes.wait(cgroup, K.CONTAINER_START)
            probes.wait(elsewhere, K.CONTAINER_START)
            run(cgroup, act, *(f"ptrace:{process.pid}" for process in (peer, stranger, other)))
        finally:
            for process in (peer, stranger, other):
                process.communicate(b"x")
    reported = [event.operands[1] for event in probes.wait(cgroup, K.SYS_PTRACE, 3)]
    assert reported == [Relation.CONTAINER, Relation.HOST, Relation.OTHER]


def test_mknod_has_the_kind_of_node(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The type of the node, without its permissions."""
    run(cgroup, act, "mknod:/nowhere/x:b:7:0")
    (event,) = probes.wait(cgroup, K.SYS_MKNOD)
    assert event.operands[0] == 0o060000


def test_32_bit_calls_are_watched(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """int 0x80 of a 64-bit program: seen with the 32-bit
    number, reported as such, killed like any other.
    """
    need_32_bit_calls()
    run(cgroup, act, f"unshare32:{NEWUTS}", "socket32:2:2:17")
    (unshare,) = probes.wait(cgroup, K.SYS_UNSHARE)
    assert (unshare.nr, unshare.args[0]) == (310, NEWUTS)
    assert unshare.flags & abi.FLAG_COMPAT
    assert Fact.COMPAT | Fact.FOREIGN_ABI in Fact(unshare.facts)
    (socket,) = probes.wait(cgroup, K.SYS_SOCKET)
    assert (socket.nr, socket.operands[:3]) == (102, (AF_INET, SOCK_DGRAM, 17))
    probes.enforce(Rule(K.SYS_UNSHARE, "kill", {0: {NEWUTS}}))
    killed = run(cgroup, act, f"unshare32:{NEWUTS}", "forks:1")
    assert killed.returncode == -signal.SIGKILL
    assert not results(killed)


def test_after_a_move_the_rules_still_apply(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """A task that left its cgroup is killed like one that stayed."""
    probes.enforce(Rule(K.SYS_UNSHARE, "kill"))
    done = run(cgroup, act, f"put:{cgroup.path.parent}/cgroup.procs:0", "unshare:0")
    assert done.returncode == -signal.SIGKILL
    assert results(done) == {"put": 1}
    (event,) = probes.wait(cgroup, K.SYS_UNSHARE)
    assert (event.container, event.action) == (cgroup.id, Action.KILL)


def test_a_rate_limit_drops_activity_and_counts_it(act: str) -> None:
    """Observation beyond the rate is dropped and counted; alerts are not limited."""
    with (
        running(activity_rate=1, activity_burst=10) as probes,
        new_cgroup(LABEL) as noisy,
    ):
        probes.kernel.set_observe(K.SYS_SOCKET, abi.OBSERVE_ACTIVITY)
        run(noisy, act, *["socket:2:2:0"] * 200)
        seen = len(probes.events(noisy, K.SYS_SOCKET))
        assert 10 <= seen <= 20
        assert seen + probes.drops()[("socket", "rate_limit")] == 200
        assert probes.kernel.map("emitted").sum(int(K.SYS_SOCKET)) == seen
        probes.enforce(Rule(K.SYS_SOCKET))
        run(noisy, act, *["socket:2:2:0"] * 200)
        assert len(probes.events(noisy, K.SYS_SOCKET)) == seen + 200


def test_a_full_ring_is_counted(act: str) -> None:
    """Without a reader: sent and dropped add up."""
    with running(alerts_bytes=1 << 16) as probes, new_cgroup(LABEL) as noisy:
        probes.enforce(Rule(K.SYS_SOCKET))
        run(noisy, act, *["socket:2:2:0"] * 500)
        emitted = probes.kernel.map("emitted").sum(int(K.SYS_SOCKET))
        assert 0 < emitted < 500
        assert emitted + probes.drops()[("socket", "ring_full")] == 500
        assert len(probes.events(noisy, K.SYS_SOCKET)) == emitted
