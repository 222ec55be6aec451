# SPDX-License-Identifier: Apache-2.0
"""Threads that are preempted inside a cgroup program keep its buffer. Many of them must not make
another call pass, nor disturb another container.

The kernel must preempt: RINGFENCE_VM_APPEND=preempt=full for guests of 6.12; 7.x always does.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringfence.abi import EventKind
from tests.kernel import conftest
from tests.kernel.lsm import NAME
from tests.kernel.probes import BOTH_WAYS, LABEL, Probes, results
from tests.kernel.rules import Rule, name_hash
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup

pytestmark = pytest.mark.root
act, by_hook, cgroup, probes = conftest.act, conftest.by_hook, conftest.cgroup, conftest.probes
K = EventKind
THREADS = 400 if force.in_guest() else 32  # others use this machine
TRIES = int(os.environ.get("RINGFENCE_ADVERSARY_TRIES", "10"))
SYSCTL = "/proc/sys/kernel/hostname"
WRITES = 50


@contextmanager
def hammered(cgroup: Cgroup, act: str) -> Iterator[None]:
    """Threads of the container read a sysctl, which a cgroup program decides by its name."""
    argv = [act, f"hammer:{THREADS}:{SYSCTL}", "wait"]
    with cgroup.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == f"hammer {THREADS}\n".encode()
            yield
        finally:
            child.kill()


def stopped(cgroup: Cgroup, act: str, call: str) -> bool:
    """Try a call that a rule refuses. Returns True if it had no result for the attacker."""
    done = cgroup.run([act, call], capture_output=True)
    if done.returncode == -signal.SIGKILL:
        return True
    (result,) = results(done).values()
    return result in (-errno.EPERM, -errno.EACCES)


def skipped(probes: Probes) -> int:
    """How often the kernel has skipped a program. Hooks of BPF-LSM it never skips."""
    return sum(program.misses for program in probes.kernel.program_stats())


@BOTH_WAYS
def test_preempted_threads_let_no_call_pass(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path, by_hook: bool
) -> None:
    """Each try is stopped, and each write of another container succeeds.

    Where only calls are seen, a kernel that preempts may skip a program: no more calls pass.
    """
    (tmp_path / "secret").write_text("x")
    probes.enforce(
        Rule(K.SYSCTL_ACCESS, "deny", {0: {1}}, text=b"no/such/name\0"),
        Rule(K.SYS_MOUNT, "deny", text=b"ramfs\0"),
        Rule(K.FILE_OPEN, "deny", {NAME: {name_hash(b"secret")}}),
    )
    calls = (f"mount:ramfs:{tmp_path}", f"open:{tmp_path}/secret:0")
    with new_cgroup(LABEL) as other:
        lost, before = probes.drops(), skipped(probes)
        with hammered(cgroup, act):
            stops = [stopped(cgroup, act, call) for _ in range(TRIES) for call in calls]
            done = other.run([act, f"times:{WRITES}:rewrite:{SYSCTL}"], capture_output=True)
        assert stops.count(False) <= (0 if by_hook else skipped(probes) - before)
        assert results(done) == {"times": WRITES}
    unjudged = {
        key: count - lost.get(key, 0) for key, count in probes.drops().items() if key[1] == "table_full"
    }
    assert not any(unjudged.values()), unjudged
