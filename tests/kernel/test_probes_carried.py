# SPDX-License-Identifier: Apache-2.0
"""What the next agent knows of the tasks of its predecessor."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ringfence import abi
from ringfence.abi import EventKind
from tests.kernel.probes import LABEL, Probes, running
from tests.kernel.rules import Rule
from tests.kernel.test_probes_slots import leaver
from tests.support.cgroups import Cgroup, new_cgroup

pytestmark = pytest.mark.root
K = EventKind
BORROWED = 1 << 30  # RF_PROGRAM_BORROWED
SHARE = 2  # processes of one container in the table of processes


@contextmanager
def successor(before: Probes, cgroup: Cgroup, *, known: bool = True) -> Iterator[tuple[Probes, int]]:
    """The probes of the next agent, not adopting yet, and the container's slot there. `known`: they
    have the tables of `before`, as the last of several.
    """
    with running() as probes:
        slot = probes.enroll(cgroup, abi.STATE_USED)
        for name in ("tasks", "processes") if known else ():
            lent = probes.kernel.map(f"{name}_before")
            lent.set(0, probes.kernel.map(name).fd)
            lent.set(lent.max_entries - 1, before.kernel.map(name).fd)
        yield probes, slot


@contextmanager
def leavers(cgroup: Cgroup, act: str, number: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of the container that have left its cgroup."""
    made = []
    try:
        made += [leaver(cgroup, act) for _ in range(number)]
        yield made
    finally:
        for child in made:
            child.kill()
            child.communicate()


def test_tasks_that_left_their_cgroup_are_bound_again(act: str) -> None:
    """Whether they were in the table of processes, or beyond their container's share of it."""
    with new_cgroup(LABEL) as cgroup, running(process_share=SHARE) as before:
        with leavers(cgroup, act, SHARE + 3) as left:
            table = before.kernel.map("processes")
            assert [table.get(child.pid) is None for child in left] == [False] * SHARE + [True] * 3
            with successor(before, cgroup, known=False) as (probes, _):
                assert probes.kernel.adopt().bound == []
            with successor(before, cgroup) as (probes, slot):
                bound = [(one.pid, one.slot) for one in probes.kernel.adopt().bound]
                assert bound == [(child.pid, slot) for child in left]
                probes.enforce(Rule(K.SYS_UNSHARE, "kill"))
                for child in left:
                    child.communicate(b"x")
                assert [child.returncode for child in left] == [-signal.SIGKILL] * len(left)


def test_what_was_known_of_a_process_stays_known(act: str) -> None:
    """That somebody drives it, or not; beyond the share nothing was known, so no exception applies."""
    with new_cgroup(LABEL) as cgroup, running(process_share=SHARE + 1) as before:
        with leavers(cgroup, act, SHARE + 2) as left:
            image, driven, stale, beyond = (child.pid for child in left)
            change(before, driven, facts=BORROWED)
            change(before, stale, start=1)
            with successor(before, cgroup) as (probes, _):
                probes.kernel.adopt()
                assert not borrowed(probes, image)
                assert borrowed(probes, driven)
                assert borrowed(probes, stale)
                assert borrowed(probes, beyond)


def entry(probes: Probes, pid: int) -> abi.TaskValue:
    """A process in the table of processes."""
    value = probes.kernel.map("processes").get(pid)
    assert value is not None
    return abi.TaskValue._make(abi.TASK.unpack(value))


def borrowed(probes: Probes, pid: int) -> bool:
    """Returns True if somebody drives the process."""
    return bool(entry(probes, pid).facts & BORROWED)


def change(probes: Probes, pid: int, *, facts: int = 0, start: int = 0) -> None:
    """Add to what is known of a process."""
    was = entry(probes, pid)
    now = was._replace(facts=was.facts | facts, start_ns=was.start_ns + start)
    probes.kernel.map("processes").set(pid, abi.TASK.pack(*now))
