# SPDX-License-Identifier: Apache-2.0
"""Containers with every capability and the host's processes enter namespaces that are not theirs.

The host's side is a process of the test in a mount namespace of its own, as systemd gives one to a
service: its files are the host's, its namespace is not the first one. A mark in it shows whether an
attack had an effect.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringfence.abi import DIM_FACTS, Action, EventKind, Fact, Relation
from tests.kernel.conftest import _reset_probes, cgroup, probes
from tests.kernel.probes import BOTH_WAYS, HOOKS_DECIDE, LABEL, Probes
from tests.kernel.rules import Rule
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.hooks import hook_mechanism
from tests.support.scenes import program_fixture
from tests.support.waiting import wait_for

__all__ = ["_reset_probes", "cgroup", "probes"]

pytestmark = pytest.mark.root
K = EventKind
HOST = Rule(K.SYS_SETNS, "deny", {1: {Relation.HOST}})
OTHER = Rule(K.SYS_SETNS, "deny", {1: {Relation.OTHER}})
NEWNET = 0x40000000
CLAIMS = 128
SERVICE = """
mount -t tmpfs none /mnt && echo mark > /mnt/mark && echo victim > /mnt/victim
exec python3 -c '
import socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.bind("/mnt/socket")
    server.listen()
    print("ready", flush=True)
    sys.stdin.read()
'
"""


#: ways into a namespace, and acts there
enter = program_fixture(Path(__file__).parent / "fixtures" / "enter.c")


@contextmanager
def served(command: list[str]) -> Iterator[int]:
    """A process with a mark in its own mount namespace; its number."""
    argv = [*command, "unshare", "-m", "sh", "-ec", SERVICE]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        yield running.pid
        running.communicate()


@pytest.fixture
def service() -> Iterator[int]:
    """A service of the host."""
    with served([]) as pid:
        yield pid


def attack(cgroup: Cgroup, *words: object) -> tuple[str, int]:
    """Runs it in a container. Returns what it said, and its exit code."""
    done = cgroup.run([*map(str, words)], capture_output=True, text=True)
    return done.stdout, done.returncode


WAYS = ["file", "pidfd", "pidfd-many", "thread", "child", "chroot-before", "own-first", "twice"]
ACTS = [
    *("open", "chroot", "connect", "mkdir", "unlink", "rename"),
    *("chmod", "mount", "unshare", "exec", "fork"),
]
TRIED = [*((way, "open") for way in WAYS), *(("file", act) for act in ACTS[1:])]


@BOTH_WAYS
@pytest.mark.parametrize(("way", "act"), TRIED, ids=["-".join(pair) for pair in TRIED])
def test_a_service_of_the_host_is_the_host(
    probes: Probes, cgroup: Cgroup, enter: str, service: int, way: str, act: str
) -> None:
    """Whatever the way in, and whatever is done there: refused, or killed before it has an effect."""
    probes.enforce(HOST)
    said, _ = attack(cgroup, enter, way, service, act)
    assert "done" not in said
    assert "mark" not in said
    assert any(
        (event.operands[1], event.action) in ((Relation.HOST, Action.DENY), (Relation.HOST, Action.KILL))
        for event in probes.wait(cgroup, K.SYS_SETNS)
    )


@pytest.mark.long
@BOTH_WAYS
@pytest.mark.parametrize(("way", "act"), TRIED, ids=["-".join(pair) for pair in TRIED])
def test_the_attacks_succeed_without_a_rule(
    probes: Probes, cgroup: Cgroup, enter: str, service: int, way: str, act: str
) -> None:
    """Else the tests above would show nothing."""
    probes.enforce(Rule(K.SYS_SETNS, "alert", {1: {Relation.HOST}}))
    said, code = attack(cgroup, enter, way, service, act)
    assert "done" in said or (act == "exec" and "mark" in said), (said, code)


@BOTH_WAYS
def test_another_container_is_not_the_host(probes: Probes, cgroup: Cgroup, enter: str) -> None:
    """A rule on the host's namespaces lets it pass; a rule on other containers' does not."""
    with new_cgroup(LABEL) as neighbour, served(neighbour.command([])) as pid:
        probes.enforce(HOST)
        assert "done" in attack(cgroup, enter, "file", pid, "open")[0]
        probes.enforce(OTHER)
        assert "done" not in attack(cgroup, enter, "file", pid, "open")[0]
        assert {event.operands[1] for event in probes.wait(cgroup, K.SYS_SETNS)} == {Relation.OTHER}


@BOTH_WAYS
@pytest.mark.parametrize("way", ["own", "own-user"])
def test_namespaces_of_its_own_are_free(probes: Probes, cgroup: Cgroup, enter: str, way: str) -> None:
    """Made by itself or by a child that reached no hook since, entered, left and entered again."""
    probes.enforce(HOST, OTHER)
    assert attack(cgroup, "unshare", "-u", enter, way) == ("done\n", 0)
    assert probes.events(cgroup, K.SYS_SETNS) == []


@BOTH_WAYS
def test_a_container_returns_to_the_network_of_the_host_by_an_exception(
    probes: Probes, cgroup: Cgroup, enter: str
) -> None:
    """As a network plugin does: it was started there. Other namespaces have no such exception."""
    started_there: dict[int, set[int]] = {0: {NEWNET}, DIM_FACTS: {Fact.HOST_NETWORK}}
    network = Rule(K.SYS_SETNS, "deny", started_there, {DIM_FACTS: Fact.HOST_NETWORK}, clears=0)
    probes.enforce(HOST, network)
    assert attack(cgroup, enter, "return") == ("done\n", 0)
    probes.enforce(HOST)
    assert "done" not in attack(cgroup, enter, "return")[0]


@BOTH_WAYS
def test_a_container_with_many_namespaces_harms_no_other(probes: Probes, cgroup: Cgroup, enter: str) -> None:
    """Its share is full, what it made goes on, and another container keeps its own."""
    probes.enforce(HOST, OTHER)
    with subprocess.Popen(
        cgroup.command([enter, "many", str(3 * CLAIMS)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "made\n"
        wait_for(lambda: ("setns", "table_full") in probes.drops(), "a full share")
        with new_cgroup(LABEL) as neighbour:
            assert attack(neighbour, enter, "own") == ("done\n", 0)
        said, _ = maker.communicate("x")
        assert (said, maker.returncode) == ("done\n", 0)
    assert attack(cgroup, enter, "own") == ("done\n", 0)


RACES = {"uts": "-u", "net": "-n", "mnt": "-m"}
COUNTS = re.compile(r"tries (\d+) entered (\d+) effects (\d+)")


@BOTH_WAYS
@pytest.mark.parametrize("kind", RACES)
def test_threads_that_swap_a_descriptor_win_nothing(
    probes: Probes, cgroup: Cgroup, enter: str, kind: str
) -> None:
    """RINGFENCE_TRIES: how often. The kernel's object decides, not what the descriptor is later."""
    tries = int(os.environ.get("RINGFENCE_TRIES", "20000"))
    words = ["unshare", RACES[kind], enter, "race", kind, "self", str(os.getpid()), str(tries)]
    probes.enforce(Rule(K.SYS_SETNS, "alert", {1: {Relation.HOST}}))

    def won() -> bool:
        found = COUNTS.search(attack(cgroup, *words[:-1], "2000")[0])
        assert found is not None
        return int(found[3]) > 0

    wait_for(won, "the race to be won where no rule is against it")
    probes.enforce(HOST)
    found = COUNTS.search(attack(cgroup, *words)[0])
    assert found is not None
    assert int(found[1]) >= tries
    assert (int(found[2]), int(found[3])) == (0, 0)


@HOOKS_DECIDE
def test_a_second_try_is_killed(probes: Probes, cgroup: Cgroup, enter: str, service: int) -> None:
    """After it was refused, a container that asks again does not do so by mistake."""
    probes.enforce(HOST)
    said, _ = attack(cgroup, enter, "file", service, "open")
    assert said == "failed 1\n"
    done = cgroup.run([enter, "twice", str(service), "open"], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    events = probes.wait(cgroup, K.SYS_SETNS, 3)
    assert [event.action for event in events] == [Action.DENY, Action.DENY, Action.KILL]
    assert {event.mechanism for event in events} == {hook_mechanism()}
