# SPDX-License-Identifier: Apache-2.0
"""The invariants against real causes, in virtual machines only, with and without LSM hooks.

A module changes a task as a kernel exploit would. Usermode helpers: test_lsm_helpers.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ringfence.abi import (
    DRIFT_BORROWED,
    DRIFT_CAPABILITIES,
    DRIFT_USER,
    NO_CALL,
    Action,
    EventKind,
    Mechanism,
    Relation,
)
from tests.kernel.probes import BOTH_WAYS, Probes, results
from tests.kernel.rules import Rule
from tests.support.cgroups import Cgroup

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("in_a_machine"), BOTH_WAYS]
K = EventKind
NAMESPACES = 0x20000 | 0x40000000 | 0x20000000 | 0x8000000 | 0x4000000 | 0x2000000
NEWUSER = 0x10000000
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


@pytest.fixture(scope="module")
def exploit() -> str:
    """The device of the module, loaded once."""
    module = os.environ.get("RINGFENCE_VM_MODULE", "")
    if not module:
        pytest.skip(os.environ.get("RINGFENCE_VM_NO_MODULE", "no module for this kernel"))
    if not Path("/dev/rfexploit").exists():
        subprocess.run(["insmod", module], check=True)
    return "/dev/rfexploit"


@pytest.fixture
def act_for_all(act: str) -> str:
    """A copy of act that every user may run."""
    for path in (Path(act), *Path(act).parents[:4]):
        path.chmod(path.stat().st_mode | 0o055)
    return act


WAYS = [
    ("commit", DRIFT_USER | DRIFT_CAPABILITIES),
    ("root", DRIFT_USER),
    ("capabilities", DRIFT_CAPABILITIES),
    ("files", DRIFT_USER),
    ("effective", DRIFT_CAPABILITIES),
    ("pointers", DRIFT_USER | DRIFT_CAPABILITIES),
]


@pytest.mark.parametrize(("way", "what"), WAYS, ids=[way for way, _ in WAYS])
def test_credentials_from_an_exploit_kill_the_task(
    probes: Probes, cgroup: Cgroup, act_for_all: str, exploit: str, way: str, what: int
) -> None:
    """Killed at its next open, which has no effect."""
    probes.enforce(Rule(K.TASK_DRIFT, "kill"))
    argv = [*NOBODY, act_for_all, f"put:{exploit}:{way}", "open:/proc/uptime:0", "name:alive"]
    done = cgroup.run(argv, capture_output=True)
    assert results(done) == {"put": len(way)}, done
    assert done.returncode == -signal.SIGKILL
    (event,) = probes.wait(cgroup, K.TASK_DRIFT)
    assert (event.changed, event.action, event.at) == (what, Action.KILL, K.FILE_OPEN)
    assert (event.uid0, event.permitted0) == (65534, 0)


@pytest.mark.parametrize("next_step", ["exec:true:true:true", "threads:1", "forks:1"])
def test_every_next_step_is_a_checkpoint(
    probes: Probes, cgroup: Cgroup, act_for_all: str, exploit: str, next_step: str
) -> None:
    """A shell is the usual goal of exploits."""
    probes.enforce(Rule(K.TASK_DRIFT, "kill"))
    done = cgroup.run([*NOBODY, act_for_all, f"put:{exploit}:commit", next_step], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done
    assert len(probes.wait(cgroup, K.TASK_DRIFT)) == 1


def test_namespaces_from_an_exploit_kill_the_task(
    probes: Probes, cgroup: Cgroup, act_for_all: str, exploit: str
) -> None:
    """All of the host's namespaces at once."""
    probes.enforce(Rule(K.TASK_DRIFT, "kill"))
    argv = ["unshare", "-nui", *NOBODY, act_for_all, f"put:{exploit}:namespaces", "open:/proc/uptime:0"]
    done = cgroup.run(argv, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done
    (event,) = probes.wait(cgroup, K.TASK_DRIFT)
    assert event.changed & NAMESPACES == 0x20000 | 0x40000000 | 0x8000000 | 0x4000000
    assert not event.changed & ~NAMESPACES


def test_a_task_that_entered_the_host_unchecked_is_killed(
    probes: Probes, cgroup: Cgroup, act: str, exploit: str
) -> None:
    """Root with CAP_SYS_ADMIN could enter by setns, so
    it is no drift; but a rule would have refused it.
    """
    probes.enforce(Rule(K.SYS_SETNS, "deny", {1: {Relation.HOST}}))
    argv = ["unshare", "-nui", act, f"put:{exploit}:namespaces", "open:/proc/uptime:0"]
    done = cgroup.run(argv, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done
    (event,) = probes.wait(cgroup, K.SYS_SETNS)
    assert (event.action, event.mechanism, event.nr) == (Action.KILL, Mechanism.KILL, NO_CALL)
    assert event.operands[0] & NAMESPACES == 0x20000 | 0x40000000 | 0x8000000 | 0x4000000
    probes.enforce(Rule(K.SYS_SETNS, "alert", {1: {Relation.HOST}}))
    assert cgroup.run(argv, capture_output=True).returncode == 0


def test_a_way_out_of_a_user_namespace_is_drift(
    probes: Probes, cgroup: Cgroup, act_for_all: str, exploit: str
) -> None:
    """Root of its own namespace becomes a user of the host."""
    probes.enforce(Rule(K.TASK_DRIFT, "kill"))
    argv = [*NOBODY, "unshare", "-Ur", act_for_all, f"put:{exploit}:user-namespace", "open:/proc/uptime:0"]
    done = cgroup.run(argv, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done
    (event,) = probes.wait(cgroup, K.TASK_DRIFT)
    assert event.changed & NEWUSER


def test_borrowed_credentials_are_noticed_at_exec(
    probes: Probes, cgroup: Cgroup, act_for_all: str, exploit: str
) -> None:
    """The task acts with the credentials of another one."""
    probes.enforce(Rule(K.TASK_DRIFT, "kill"))
    done = cgroup.run(
        [*NOBODY, act_for_all, f"put:{exploit}:borrow", "exec:true:true:true"], capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done
    (event,) = probes.wait(cgroup, K.TASK_DRIFT)
    assert event.changed == DRIFT_BORROWED


def test_a_drift_alert_is_reported_once(
    probes: Probes, cgroup: Cgroup, act_for_all: str, exploit: str
) -> None:
    """In audit mode the task continues with its new identity; an unchanged task has no alert."""
    probes.enforce(Rule(K.TASK_DRIFT))
    opens = ["open:/proc/uptime:0"] * 3
    done = cgroup.run([*NOBODY, act_for_all, f"put:{exploit}:nothing", *opens], capture_output=True)
    assert (done.returncode, probes.events(cgroup, K.TASK_DRIFT)) == (0, [])
    done = cgroup.run([*NOBODY, act_for_all, f"put:{exploit}:commit", *opens], capture_output=True)
    assert done.returncode == 0
    assert len(probes.wait(cgroup, K.TASK_DRIFT)) == 1
