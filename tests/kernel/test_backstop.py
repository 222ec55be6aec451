# SPDX-License-Identifier: Apache-2.0
"""Backstops of mechanism `hook`: what a kernel that preempts skips is judged again, and killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.abi import GUARD_DENY, Action, EventKind, Mechanism, Relation, Tamper
from ringfence.bpf.attach import kprobe_type
from ringfence.bpf.preemption import find
from tests.kernel.lsm import named
from tests.kernel.probes import Probes, run, running, values
from tests.kernel.rules import Rule
from tests.kernel.test_hook_mechanism import (
    CALL_MMAP,
    CALL_OPEN,
    CALL_PERSONALITY,
    MAP_PRIVATE,
    PROT_EXEC,
    PROT_READ,
    READ_IMPLIES_EXEC,
)
from tests.kernel.test_lsm_calls import CASES, Case
from tests.support import force
from tests.support.cgroups import Cgroup
from tests.support.hooks import need_function_hooks

pytestmark = pytest.mark.root
K = EventKind
SETTINGS: dict[str, Any] = {
    "lsm": True,
    "hook_mechanism": Mechanism.HOOK,
    "preemptible": True,
    "backstop": True,
    "entries_skippable": True,
    "entry_backstop": True,
    "guard": GUARD_DENY,
}
#: functions whose first instruction is a jump that the kernel patches: no kprobe fits behind the entry
TOO_SHORT = {"security_uring_allowed", "security_uring_sqpoll"}
MILLISECONDS = int(os.environ.get("RINGFENCE_BACKSTOP_MS", "4000"))


@pytest.fixture(autouse=True, scope="module")
def _functions() -> None:
    """Skip where programs at functions do not decide, or perf has no kprobes. Every guest has both."""
    need_function_hooks()
    assert kprobe_type() > 0


@pytest.fixture(scope="module")
def probes() -> Iterator[Probes]:
    """Probes with first programs and backstops at all hooks."""
    with running(**SETTINGS) as found:
        yield found


@pytest.fixture(scope="module")
def alone(probes: Probes) -> Probes:
    """The same, with the first programs skipped always: they are detached."""
    detached(probes, "lsm/")
    assert any(link.program == "backstop_lsm_file_open" for link in probes.kernel.attached)
    return probes


def detached(probes: Probes, kind: str) -> None:
    """Detach programs of these sections, and wait until they are gone, which the kernel does later else."""
    kernel = probes.kernel
    of = {program.name: program.section for program in kernel.programs}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ringfence.bpf.kernel.detach", _close)
        kernel.forget([link for link in kernel.attached if of[link.program].startswith(kind)])


def _close(links: Iterable[int]) -> None:
    for link in links:
        os.close(link)


def misses(probes: Probes) -> dict[str, int]:
    """Returns program -> how often the kernel skipped it, if it did."""
    return {stat.name: stat.misses for stat in probes.kernel.program_stats() if stat.misses}


@pytest.fixture(autouse=True)
def _calm(probes: Probes) -> None:
    probes.calm()


def test_every_deciding_program_has_one(probes: Probes) -> None:
    """Each hook's program, but those that follow, and those of functions without room."""
    kernel = probes.kernel
    assert [skip for skip in kernel.skipped if "refused" in skip.reason] == []
    lacking = {skip.target for skip in kernel.skipped if skip.program.startswith("backstop_")}
    assert lacking <= TOO_SHORT
    of = {program.name: program.section for program in kernel.programs}
    attached = {link.program for link in kernel.attached}
    first = {name for name in attached if of[name].startswith("lsm/")}
    without = {name for name in first if f"backstop_{name}" not in attached}
    assert without <= {
        "follow_task_alloc",
        "follow_exec",
        "owner_file_set_fowner",
        "host_mmap_file",
        "host_file_mprotect",
        "lsm_uring_allowed",
        "lsm_uring_sqpoll",
    }


def test_it_says_nothing_where_the_first_program_decides(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """A refusal and an alert are reported once, and a permitted open not at all."""
    (tmp_path / "secret").touch()
    (tmp_path / "watched").touch()
    alert = Rule(K.FILE_OPEN, "alert", named("watched").operands)
    probes.enforce(named("secret"), alert)
    assert values(cgroup, act, f"open:{tmp_path}/secret:0")[0] < 0
    assert values(cgroup, act, f"open:{tmp_path}/watched:0")[0] >= 0
    said = [(one.action, one.mechanism) for one in probes.wait(cgroup, K.FILE_OPEN, 2)]
    assert said == [(Action.DENY, Mechanism.HOOK), (Action.ALERT, Mechanism.OBSERVE)]


def test_a_skipped_program_lets_nothing_through(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """Threads of one CPU keep the program busy: the kernel skips it, and each such open is killed."""
    if not find().may_skip:
        force.elsewhere("this kernel does not preempt itself, and skips no program")
    for name in ("secret", "other"):
        (tmp_path / name).touch()
    probes.enforce(named("secret"))
    through = values(cgroup, act, f"opensbeside:4:{MILLISECONDS}:{tmp_path}/secret:{tmp_path}/other")
    skipped = misses(probes)
    ends = [(one.action, one.mechanism) for one in probes.events(cgroup, K.FILE_OPEN)]
    killed = ends.count((Action.KILL, Mechanism.BACKSTOP))
    assert skipped["lsm_file_open"] > 0
    assert killed > 0
    assert set(ends) <= {(Action.KILL, Mechanism.BACKSTOP), (Action.DENY, Mechanism.HOOK)}
    assert through == [0]


def test_each_check_of_one_setns_is_about_the_same_namespace(
    probes: Probes, cgroup: Cgroup, act: str
) -> None:
    """Of three for a mount namespace, in a process with two threads: then the kernel refuses by itself."""
    probes.enforce(Rule(K.SYS_SETNS, "deny", {1: {Relation.HOST}}))
    calls = ["hammer:1:/dev/null", "setns:/proc/self/ns/mnt:0"]
    assert values(cgroup, act, *calls) == [1, -errno.EINVAL]


def test_the_namespace_of_an_earlier_setns_is_not_that_of_the_next(
    probes: Probes, cgroup: Cgroup, act: str
) -> None:
    """The kernel refuses to enter one's own user namespace before any hook; fentry misses the next call."""
    probes.enforce(Rule(K.SYS_SETNS, "deny", {1: {Relation.HOST}}))
    calls = ["setns:/proc/self/ns/user:0", "wait", "setns:/proc/1/ns/uts:0"]
    with cgroup.popen([act, *calls], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"setns -%d\n" % errno.EINVAL
        detached(probes, "fentry/")
        child.stdin.write(b"x")
        child.stdin.close()
        said = child.stdout.read()
    assert said == b"wait 1\nsetns -%d\n" % errno.EPERM


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case.kind.label} {case.attack.replace('x' * 32, 'x')}" for case in CASES]
)
def test_it_kills_what_it_refuses(alone: Probes, cgroup: Cgroup, act: str, case: Case) -> None:
    """As the first program would refuse it; what that one permits is not killed."""
    alone.enforce(case.rule())
    assert run(cgroup, act, case.twin).returncode == 0
    assert run(cgroup, act, case.attack).returncode == -signal.SIGKILL, misses(alone)
    # Two checks of one call are two calls if a slow guest takes longer between them than RF_SAME_CALL_NS.
    for event in alone.wait(cgroup, case.kind):
        assert (event.action, event.mechanism) == (Action.KILL, Mechanism.BACKSTOP)


def test_an_open_file_left_in_a_ring_condemns(
    alone: Probes, cgroup: Cgroup, heir: str, tmp_path: Path
) -> None:
    """The ring's table of files belongs to the parent, too: it is condemned with the child that opened."""
    (tmp_path / "secret").write_text("x")
    alone.enforce(named("secret"))
    assert run(cgroup, heir, "ring", str(tmp_path / "secret")).returncode == -signal.SIGKILL
    opened, condemned = (alone.wait(cgroup, kind)[0] for kind in (K.FILE_OPEN, K.AGENT_TAMPER))
    assert (opened.mechanism, condemned.what) == (Mechanism.BACKSTOP, Tamper.CONDEMNED)


@pytest.mark.parametrize("command", ["open:{}:0", "sys:87:={}", "sys:90:={}:448"])
def test_it_kills_for_files(alone: Probes, cgroup: Cgroup, act: str, tmp_path: Path, command: str) -> None:
    """By open(2), unlink(2), chmod(2)."""
    (tmp_path / "secret").touch()
    alone.enforce(named("secret"))
    assert run(cgroup, act, command.format(tmp_path / "secret")).returncode == -signal.SIGKILL
    event = alone.wait(cgroup, K.FILE_OPEN)[0]
    assert (event.action, event.mechanism) == (Action.KILL, Mechanism.BACKSTOP)


def test_it_kills_for_processes(alone: Probes, cgroup: Cgroup, act: str) -> None:
    """A look into a process of the host; not one into the caller."""
    alone.enforce(Rule(K.PROCESS_LOOK, "deny", {1: {Relation.HOST}}))
    own = "sys:312:$$:$$:1:0:0"
    assert cgroup.run(["sh", "-c", f"exec {act} {own}"], capture_output=True).returncode == 0
    assert run(cgroup, act, "sys:312:1:1:1:0:0").returncode == -signal.SIGKILL
    (event,) = alone.wait(cgroup, K.PROCESS_LOOK)
    assert (event.action, event.mechanism) == (Action.KILL, Mechanism.BACKSTOP)


@pytest.mark.parametrize("persona", [0, READ_IMPLIES_EXEC], ids=["asked", "implied"])
def test_it_kills_for_mappings(alone: Probes, cgroup: Cgroup, act: str, tmp_path: Path, persona: int) -> None:
    """A mapping for execution, asked for or implied by personality(2)."""
    tool = tmp_path / "tool"
    tool.write_bytes(bytes(4096))
    alone.enforce(named("tool", K.FILE_MAP))
    prot = PROT_READ if persona else PROT_READ | PROT_EXEC
    first = [f"sys:{CALL_PERSONALITY}:{persona}", f"sys:{CALL_OPEN}:={tool}:{os.O_RDONLY}"]
    fd = values(cgroup, act, *first)[-1]
    mapping = f"sys:{CALL_MMAP}:0:4096:{prot}:{MAP_PRIVATE}:{fd}:0"
    assert run(cgroup, act, *first, mapping).returncode == -signal.SIGKILL
    (event,) = alone.wait(cgroup, K.FILE_MAP)
    assert (event.action, event.mechanism) == (Action.KILL, Mechanism.BACKSTOP)
