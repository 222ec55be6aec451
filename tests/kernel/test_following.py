# SPDX-License-Identifier: Apache-2.0
"""No task of a container is ever without its container, or keeps the identity of an earlier
program.

Linux 7 may skip a program at a tracepoint for one task because another one was preempted in it
(docs/reference/kernel-compat.md), and tasks that fork without pause trigger that. So tasks are followed a
second time, at LSM hooks or by perf. The children's attempts are refused where nothing is skipped:
at hooks, or by cgroup-BPF.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ringfence.abi import CONTAINER, DIM_EXE, ContainerValue, EventKind
from tests.kernel.probes import BOTH_WAYS, HOOKS_DECIDE, Probes
from tests.kernel.rules import Rule, name_hash
from tests.support.cgroups import Cgroup
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
K = EventKind
SECONDS, WORKERS = 10, 8
#: The attempt of each child of each worker; it exits with 0 if the attempt succeeded.
TRIES = {
    "connect": "os._exit(attempt())",
    "exec": "os.execv('/bin/chmod', ['chmod', '755', victim])",
}
#: Workers that fork for some seconds; they print the number of children, and how many succeeded.
CHURN = """
import errno, json, os, socket, sys, time
victim, seconds, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
def attempt():
    with socket.socket() as client:
        return 1 if client.connect_ex(("127.0.0.1", 9)) == errno.EPERM else 0
def work(into):
    until, born, through = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until:
        child = os.fork()
        if not child:
            {tries}
        born += 1
        through += not os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(into, json.dumps([born, through]).encode() + b"\\n")
    os._exit(0)
out, into = os.pipe()
for _ in range(workers):
    if not os.fork():
        work(into)
os.close(into)
with open(out) as results:
    found = [json.loads(line) for line in results]
assert len(found) == workers
for _ in found:
    os.wait()
print(json.dumps([sum(column) for column in zip(*found)]))
"""


def churn(cgroup: Cgroup, tries: str, victim: Path) -> tuple[int, int]:
    """Returns the number of children, and how many of them did what a rule forbids."""
    victim.touch(mode=0o644)
    program = CHURN.replace("{tries}", TRIES[tries])
    done = cgroup.run(
        [sys.executable, "-c", program, str(victim), str(SECONDS), str(WORKERS)], capture_output=True
    )
    assert done.returncode == 0, done
    born, through = json.loads(done.stdout)
    return born, through


@BOTH_WAYS
def test_every_child_is_restricted_by_the_rules(probes: Probes, cgroup: Cgroup, tmp_path: Path) -> None:
    """Several thousand children."""
    probes.enforce(Rule(K.NET_CONNECT, "deny"))
    born, through = churn(cgroup, "connect", tmp_path / "victim")
    assert born > 10 * WORKERS
    assert through == 0


@HOOKS_DECIDE
def test_an_exception_ends_with_its_program(probes: Probes, cgroup: Cgroup, tmp_path: Path) -> None:
    """The interpreter may, and a program that it executes may not, however many do so at once."""
    own = name_hash(os.path.realpath(sys.executable).encode())
    probes.enforce(Rule(K.SYS_CHMOD, "deny"), Rule(K.SYS_CHMOD, operands={DIM_EXE: {own}}, clears=0))
    born, through = churn(cgroup, "exec", tmp_path / "victim")
    assert born > 10 * WORKERS
    assert through == 0


@BOTH_WAYS
def test_ended_tasks_are_no_longer_counted(probes: Probes, cgroup: Cgroup, tmp_path: Path) -> None:
    """Otherwise a container would reach its task limit over
    time, and a reused pid would be taken for its task.
    """
    churn(cgroup, "connect", tmp_path / "victim")
    slot = probes.slot(cgroup).to_bytes(4, "little")

    def left() -> tuple[int, int]:
        value = ContainerValue._make(CONTAINER.unpack(probes.kernel.map("slots").get(slot) or b""))
        return value.tasks, value.processes

    wait_for(lambda: left() == (0, 0), "all to be gone")
