# SPDX-License-Identifier: Apache-2.0
"""No task of a container is without its container's rules: without memory for its binding, before
the agent, from memory, orphaned, in mounts of its own, or in a runtime that executes nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ringfence import abi
from ringfence.abi import Counter, EventKind
from ringfence.bpf.kernel import AdoptionRound
from ringfence.bpf.settings import KernelSettings
from tests.kernel.probes import LABEL, Probes, running
from tests.kernel.rules import Rule
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.scenes import program_fixture
from tests.support.starvation import MemoryCgroup, memory_cgroup
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root
K = EventKind
CHILDREN, ALIVE = 10_000, 500
MODES = pytest.mark.parametrize("mode", [{"lsm": True}, {}], ids=["lsm", "calls"])
#: what the first process of a container did before the probes were there
BEFORE = {
    "memory": ["memory", "once"],
    "double-fork": ["orphan", "2", "once"],
    "memory-double-fork": ["memory", "orphan", "2", "once"],
    "own-mounts": ["mounts", "once"],
    "orphan-own-mounts": ["orphan", "1", "mounts", "once"],
    "fork-loop": ["chain", "3", "once"],
    "memory-fork-loop": ["memory", "chain", "3", "once"],
}
#: seconds for which a runtime may prepare a container after it has left the host's root
GRACE = KernelSettings().grace_ms / 1000


#: static, so that it runs in any root
unbound_program = program_fixture(Path(__file__).parent / "fixtures" / "unbound.c", "-static")


@pytest.fixture(params=[{"lsm": True}, {}], ids=["lsm", "calls"])
def starving(request: pytest.FixtureRequest) -> Iterator[tuple[Probes, MemoryCgroup]]:
    """Probes whose memory is charged to a cgroup that can be filled."""
    with memory_cgroup() as memory:
        memory.enter()
        with running(**request.param) as probes:
            yield probes, memory


def many(cgroup: Cgroup, program: str, victim: Path) -> tuple[int, int, int]:
    """Returns how many children were born, were refused, and did what a rule forbids."""
    victim.touch()
    done: subprocess.CompletedProcess[str] = cgroup.run(
        [program, "many", str(ALIVE), str(CHILDREN), str(victim)], capture_output=True, text=True
    )
    assert done.returncode == 0, done
    born, refused, through = map(int, re.findall(r"\d+", done.stdout))
    return born, refused, through


def test_without_memory_no_child_is_unbound(
    starving: tuple[Probes, MemoryCgroup], unbound_program: str, tmp_path: Path
) -> None:
    """Ten thousand children while page cache fills the cgroup that pays for their bindings: each is
    bound, or was never there.
    """
    probes, memory = starving
    probes.enforce(Rule(K.SYS_CHMOD, "deny"))
    with new_cgroup(LABEL) as cgroup:
        with memory.full():
            _, refused, through = many(cgroup, unbound_program, tmp_path / "victim")
        lacked = probes.counters(cgroup)[Counter.REFUSED]
        assert through == 0
        assert lacked > 0
        assert lacked >= refused


@pytest.mark.parametrize("starving", [{"lsm": True}, {}], ids=["lsm", "calls"], indirect=True)
def test_with_memory_no_child_is_refused(
    starving: tuple[Probes, MemoryCgroup], unbound_program: str, tmp_path: Path
) -> None:
    """The benign twin: two containers fork at the same time as fast as they can."""
    probes, _ = starving
    victim = tmp_path / "victim"
    with new_cgroup(LABEL) as one, new_cgroup(LABEL) as other:
        command = [unbound_program, "many", str(ALIVE), str(CHILDREN // 2), str(victim)]
        victim.touch()
        both = [cgroup.popen(command, stdout=subprocess.PIPE, text=True) for cgroup in (one, other)]
        said = [child.communicate()[0] for child in both]
        assert [line.split()[2:4] for line in said] == [["refused", "0"]] * 2
        assert [probes.counters(cgroup)[Counter.REFUSED] for cgroup in (one, other)] == [0, 0]


def adopt(probes: Probes, seconds: float) -> AdoptionRound:
    """Runs the iterator as the agent does, until no task waits or the time is over."""
    until = time.monotonic() + seconds
    last = probes.kernel.adopt()
    while last.bound or last.waiting or last.entering:
        if time.monotonic() > until:
            break
        time.sleep(0.1)
        last = probes.kernel.adopt()
    return last


@contextmanager
def long_running(mode: dict[str, Any], *rules: Rule, **settings: Any) -> Iterator[Probes]:
    """Probes whose first adoption is over: what enters now is new."""
    with running(rules=rules, **mode, **settings) as probes:
        probes.kernel.adopt()
        time.sleep(1.1)
        yield probes


def tries(child: subprocess.Popen[str]) -> bool:
    """Let it try. Returns True if the forbidden call had an effect."""
    said, _ = child.communicate("x", timeout=patience(20))
    return "through 1" in said


@pytest.mark.long
@MODES
@pytest.mark.parametrize("way", BEFORE.values(), ids=BEFORE.keys())
def test_a_task_from_before_the_agent_is_bound(
    mode: dict[str, Any], way: list[str], unbound_program: str, tmp_path: Path
) -> None:
    """Whatever it made itself look like: no rule knows it until then, and all do afterwards."""
    victim = tmp_path / "victim"
    victim.touch(mode=0o644)
    with new_cgroup(LABEL) as cgroup:
        child: subprocess.Popen[str] = cgroup.popen(
            [unbound_program, *way, str(victim)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for(lambda: len(cgroup.pids()) == 1, "the last process to be there")
        with running(rules=[Rule(K.SYS_CHMOD, "deny")], **mode) as probes:
            probes.enroll(cgroup)
            last = adopt(probes, GRACE + 3)
            assert last == AdoptionRound([])
            assert not tries(child)


#: executes itself from memory, from one copy to the next; its number stays
AGAIN = """
import os, sys, time
time.sleep(0.2)
program = os.memfd_create("again", 0)
os.write(program, open(sys.argv[1], "rb").read())
os.execve(program, ["python", "-c", sys.argv[2], *sys.argv[1:]], {})
"""


@MODES
def test_a_program_that_executes_again_and_again_is_bound_by_that(mode: dict[str, Any]) -> None:
    """Not by the iterator, which does not run here: the time that a runtime may need is not renewed."""
    python = os.path.realpath(sys.executable)
    with new_cgroup(LABEL) as cgroup:
        child = cgroup.popen([python, "-c", AGAIN, python, AGAIN])
        wait_for(lambda: "memfd:" in os.readlink(f"/proc/{child.pid}/exe"), "a program in memory")
        with running(**mode) as probes:
            probes.enroll(cgroup)
            processes = probes.kernel.map("processes")
            wait_for(lambda: processes.get(child.pid) is not None, "it to be bound")


@pytest.fixture
def root(tmp_path: Path, unbound_program: str) -> Path:
    """The root directory of a container, with the program of the attacks in it."""
    made = tmp_path / "root"
    made.mkdir()
    (made / "victim").touch(mode=0o644)
    (made / "program").write_bytes(Path(unbound_program).read_bytes())
    (made / "program").chmod(0o755)
    return made


@pytest.mark.long
@MODES
@pytest.mark.parametrize("way", [["once"], ["orphan", "2", "once"], ["chain", "3", "once"]])
def test_a_runtime_that_executes_nothing_is_bound(
    mode: dict[str, Any], way: list[str], unbound_program: str, root: Path
) -> None:
    """As those that run WebAssembly in their own process; forking renews no time."""
    with long_running(mode, Rule(K.SYS_CHMOD, "deny")) as probes, new_cgroup(LABEL) as cgroup:
        child: subprocess.Popen[str] = cgroup.popen(
            [unbound_program, "inside", str(root), *way, "/victim"],
            armed=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for(lambda: probes.kernel.map("unarmed").get_int(abi.UNARMED_ENTRANTS), "it to enter")
        wait_for(lambda: probes.kernel.adopt().waiting, "it to leave the host's root")
        assert adopt(probes, GRACE + 3) == AdoptionRound([])
        assert not tries(child)


@pytest.mark.long
def test_a_slow_node_grants_its_runtimes_more_time(unbound_program: str, root: Path) -> None:
    """`containers.grace`: where starts take longer, a runtime is not taken for the workload so soon."""
    with long_running({}, Rule(K.SYS_CHMOD, "deny"), grace_ms=10_000) as probes, new_cgroup(LABEL) as cgroup:
        child: subprocess.Popen[str] = cgroup.popen(
            [unbound_program, "inside", str(root), "once", "/victim"],
            armed=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for(lambda: probes.kernel.adopt().waiting, "it to leave the host's root")
        assert adopt(probes, GRACE + 1).waiting
        assert adopt(probes, 10) == AdoptionRound([])
        assert not tries(child)


@pytest.mark.long
@MODES
def test_a_runtime_with_slow_hooks_is_not_disturbed(
    mode: dict[str, Any], unbound_program: str, root: Path
) -> None:
    """It waits long for hooks, then mounts, leaves for the container's root, and executes."""
    forbidden = [Rule(kind, "deny") for kind in (K.SYS_MOUNT, K.SYS_UMOUNT, K.SYS_PIVOT_ROOT, K.SYS_CHMOD)]
    with long_running(mode, *forbidden) as probes, new_cgroup(LABEL) as cgroup:
        child: subprocess.Popen[str] = cgroup.popen(
            [unbound_program, "prepare", str(int(GRACE * 1500)), str(root), "/program", "once", "/victim"],
            armed=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for(lambda: probes.kernel.map("unarmed").get_int(abi.UNARMED_ENTRANTS), "it to enter")
        adopt(probes, GRACE * 1.5 + 2)
        (start,) = probes.wait(cgroup, K.CONTAINER_START)
        assert start.flags & abi.FLAG_ADOPTED == 0
        assert not tries(child)
