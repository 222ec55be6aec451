# SPDX-License-Identifier: Apache-2.0
"""Kernel tables under attack: one container must not cost the others their protection."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringfence import abi
from ringfence.abi import EventKind
from tests.kernel.probes import ALWAYS, LABEL, Probes, results, running
from tests.kernel.rules import Rule
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root
K = EventKind
NEWUTS = 0x4000000
ATTACK = f"unshare:{NEWUTS}"
NODE = "mknod:{tmp}/node:b:259:1048575"
#: child cgroups of one container; the figure of the docs is 50,000
CHILDREN = int(os.environ.get("RINGFENCE_CHILDREN", "2000"))


@contextmanager
def many(parent: Path, count: int) -> Iterator[None]:
    """That many cgroups below one."""
    made = [parent / f"c{number}" for number in range(count)]
    try:
        for path in made:
            path.mkdir()
        yield
    finally:
        for path in made:
            path.rmdir()


def armed(probes: Probes, cgroup: Cgroup, act: str) -> bool:
    """Returns True if a program that the host starts in the container is under its rules."""
    probes.enforce(Rule(K.SYS_UNSHARE, "kill"))
    try:
        done = cgroup.run([act, ATTACK], capture_output=True)
    finally:
        probes.enforce()
    return done.returncode == -signal.SIGKILL


def free(probes: Probes) -> int:
    """Returns the number of free slots."""
    table = probes.kernel.map("slots")
    return sum(not abi.CONTAINER.unpack(value)[0] for _, value in table.items())


def leaver(cgroup: Cgroup, act: str, attack: str = ATTACK) -> subprocess.Popen[bytes]:
    """A process of the container that has left its cgroups; it waits for input, then attacks."""
    child = cgroup.popen([act, "wait", attack], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for(lambda: os.readlink(f"/proc/{child.pid}/exe") == act, "the program to run")
    for path in set(cgroup.paths.values()):
        (path.parent / "cgroup.procs").write_text(f"{child.pid}\n")
    return child


def test_child_cgroups_fill_no_table(act: str) -> None:
    """Any number: they take no entry, and another container is enrolled and restricted as usual."""
    with running(slots=4) as probes, new_cgroup(LABEL) as loud, many(loud.path, CHILDREN):
        with new_cgroup(LABEL) as other:
            assert armed(probes, other, act)
        assert probes.kernel.map("containers").fill() == 2
        assert probes.drops() == {}


def test_a_task_in_a_deep_cgroup_belongs_to_its_container(act: str) -> None:
    """Deeper than the lookup of ancestors: a process started
    there by the host is restricted, and one moved there.
    """
    with running(observe=(K.CGROUP_ATTACH,)) as probes, new_cgroup(LABEL) as cgroup:
        deep, made = cgroup.path, list[Path]()
        for _ in range(3 * abi.LEVELS):
            deep /= "d"
            made.append(deep)
            deep.mkdir()
        below = Cgroup(str(deep.relative_to(cgroup.path.parent)))
        for path in set(below.paths.values()):
            path.mkdir(parents=True, exist_ok=True)
        assert armed(probes, below, act)
        moved = cgroup.run([act, f"put:{deep}/cgroup.procs:0", "forks:1"], capture_output=True)
        assert results(moved) == {"put": 1, "forks": 1}
        assert not probes.events(cgroup, K.CGROUP_ATTACH)


def test_without_an_agent_the_kernel_frees_slots(act: str) -> None:
    """Many times more containers than slots: each is enrolled and restricted."""
    with running(slots=4, beats=0) as probes:
        for _ in range(20):
            with new_cgroup(LABEL) as cgroup:
                assert armed(probes, cgroup, act)
        wait_for(lambda: free(probes) == 4, "all slots to be free")
        assert probes.drops() == {}
        assert probes.kernel.map("containers").fill() == 0


def test_with_an_agent_the_kernel_frees_nothing() -> None:
    """Its registry does; only one of the two may."""
    with running(slots=4, beats=ALWAYS) as probes:
        for _ in range(6):
            with new_cgroup(LABEL):
                pass
        assert free(probes) == 0
        assert probes.drops() == {("container.create", "table_full"): 2}


def test_a_slot_is_not_freed_while_a_task_that_left_is_alive(act: str) -> None:
    """Only that task is left of its container; when it ends, the slot is freed."""
    with running(slots=4, beats=0) as probes:
        with new_cgroup(LABEL) as cgroup:
            child = leaver(cgroup, act)
        assert free(probes) == 3
        probes.enforce(Rule(K.SYS_UNSHARE, "kill"))
        child.communicate(b"x")
        assert child.returncode == -signal.SIGKILL
        wait_for(lambda: free(probes) == 4, "the slot to be free")


def test_an_armed_task_makes_no_containers(act: str) -> None:
    """A container that can write the host's cgroups cannot
    use up the slots: cgroups that it makes are its own.
    """
    with running(slots=4, observe=(K.CGROUP_MKDIR,)) as probes, new_cgroup(LABEL) as cgroup:
        names = [f"{PREFIX}{LABEL}-junk{number}" for number in range(8)]
        paths = [cgroup.path.parent / name for name in names]
        try:
            made = cgroup.run([act, *(f"sys:83:={path}:448" for path in paths)], capture_output=True)
            assert made.returncode == 0
            assert all(path.is_dir() for path in paths)
            assert free(probes) == 3
            assert len(probes.wait(cgroup, K.CGROUP_MKDIR, 8)) == 8
            with new_cgroup(LABEL) as other:
                assert armed(probes, other, act)
            # If the host runs a container in such a directory, it is enrolled as one.
            junk = Cgroup(names[0]).create()
            assert armed(probes, junk, act)
            junk.remove()
        finally:
            for path in paths:
                if path.is_dir():
                    path.rmdir()


def test_a_container_that_found_no_slot_is_enrolled_when_it_runs_a_program(act: str) -> None:
    """If one is free by then."""
    with running(slots=1, beats=0) as probes:
        with new_cgroup(LABEL), new_cgroup(LABEL) as late:
            assert not armed(probes, late, act)
        with new_cgroup(LABEL) as first:
            with new_cgroup(LABEL) as late:
                first.remove()
                wait_for(lambda: free(probes) == 1, "the slot of the first")
                assert armed(probes, late, act)
                (create,) = probes.wait(late, K.CONTAINER_CREATE)
                assert create.flags & abi.FLAG_TRUNCATED
            first.create()


def test_earlier_containers_are_not_enrolled_without_adoption(act: str) -> None:
    """`containers.adopt: no`: also programs that are run in them later."""
    with new_cgroup(LABEL) as old, running(late=False) as probes:
        assert not armed(probes, old, act)
        with new_cgroup(LABEL) as fresh:
            assert armed(probes, fresh, act)


@pytest.mark.parametrize("storage", [None, False], ids=["as this kernel can", "by number"])
def test_a_full_process_table_refuses_every_process(act: str, tmp_path: Path, storage: bool | None) -> None:
    """A fork bomb in one container: devices are refused to every process of it and of another one."""
    call = NODE.format(tmp=tmp_path)
    with (
        running(processes=64, process_share=16, task_storage=storage) as probes,
        new_cgroup(LABEL) as loud,
        new_cgroup(LABEL) as other,
    ):
        probes.enforce(Rule(K.DEVICE_ACCESS, "deny", {0: {1}}))
        sleeps = "for i in $(seq 40); do sleep 600 >/dev/null & done; exec " + f"{act} {call} forks:1"
        bomb = loud.popen(["/bin/sh", "-c", sleeps], stdout=subprocess.PIPE, text=True)
        said, _ = bomb.communicate(timeout=patience(60))
        assert f"mknod {-errno.EPERM}" in said
        for cgroup in (loud, other):
            assert results(cgroup.run([act, call], capture_output=True)) == {"mknod": -errno.EPERM}
        assert probes.kernel.map("processes").fill() <= 17
        assert ("process.exec", "process_table") in probes.drops()
        # The host, and a runtime's set-up inside the container, are still not restricted.
        host = subprocess.run(["unshare", "-m", "--", act, call], check=True, capture_output=True)
        assert results(host) == {"mknod": 0}
        (tmp_path / "node").unlink()
        assert results(other.run([act, call], armed=False, capture_output=True)) == {"mknod": 0}


def test_a_stale_entry_does_not_match_a_reused_pid(act: str, tmp_path: Path) -> None:
    """Processes are identified by number and start:
    a host process is never taken for an ended one.
    """
    with running(task_storage=False) as probes, new_cgroup(LABEL) as cgroup:
        probes.enforce(Rule(K.DEVICE_ACCESS, "deny", {0: {1}}))
        host = subprocess.Popen(
            [act, "wait", NODE.format(tmp=tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        slot = probes.slot(cgroup)
        stale = abi.TASK.pack(cgroup.id, slot, 0, 0, 12345)
        probes.kernel.map("processes").set(host.pid, stale)
        said, _ = host.communicate(b"x")
        assert b"mknod 0" in said


def test_no_flood_of_one_rule_hides_another(act: str) -> None:
    """With an empty bucket, the first alert of each rule in a second is reported, kills included."""
    with running(alert_rate=1, alert_burst=1) as probes, new_cgroup(LABEL) as cgroup:
        probes.enforce(
            Rule(K.SYS_SOCKET, "alert", {2: {0}}),
            Rule(K.SYS_SOCKET, "alert", {2: {17}}),
            Rule(K.SYS_UNSHARE, "kill"),
        )
        done = cgroup.run([act, "times:3000:socket:2:2:0", "socket:2:2:17", ATTACK], capture_output=True)
        assert done.returncode == -signal.SIGKILL
        reported = probes.wait(cgroup, K.SYS_UNSHARE)
        rules = [event.rule for event in probes.events(cgroup, K.SYS_SOCKET)]
        assert rules.count(1) == 1
        assert reported[0].rule == 2
        dropped = probes.drops()["socket", "rate_limit"]
        assert len(rules) + dropped == 3001
        assert dropped > 2900


def test_kills_take_tokens_too(act: str) -> None:
    """A loop that starts killed programs at once does
    not fill the ring: it is counted, and each is killed.
    """
    with running(alert_rate=1, alert_burst=1) as probes, new_cgroup(LABEL) as cgroup:
        probes.enforce(Rule(K.SYS_UNSHARE, "kill"))
        script = f"for i in $(seq 200); do {act} {ATTACK}; echo $?; done"
        done = cgroup.run(
            ["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
        )
        assert done.stdout.split().count(str(128 + signal.SIGKILL)) == 200
        dropped = probes.drops()["unshare", "rate_limit"]
        assert len(probes.events(cgroup, K.SYS_UNSHARE)) + dropped == 200
        assert dropped > 100
