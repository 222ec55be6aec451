# SPDX-License-Identifier: Apache-2.0
"""Life cycle of containers, tasks and cgroups in the probes: arming, inheritance, leaving."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ringfence import abi
from ringfence.abi import Counter, EventKind, Fact, Relation
from ringfence.bpf.kernel import Kernel
from tests.kernel.probes import LABEL, Probes, results, running
from tests.kernel.rules import Rule, name_hash
from tests.support import force
from tests.support.cgroups import PREFIX, Cgroup, hierarchies, new_cgroup
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
K = EventKind
OBSERVED = (K.PROCESS_FORK, K.PROCESS_EXEC, K.PROCESS_EXIT, K.CGROUP_MKDIR, K.CGROUP_RMDIR, K.CGROUP_ATTACH)
CLONE_THREAD = 0x10000
PROBES = {"observe": OBSERVED}


def test_a_container_is_reported_from_start_to_end(probes: Probes, act: str) -> None:
    """create, start with its posture, exec, exit, stop,
    remove: each once, in this order, with its facts.
    """
    with new_cgroup(LABEL) as cgroup:
        made = cgroup.id
        child = cgroup.popen([act, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        probes.wait(cgroup, K.CONTAINER_START)
        child.communicate(b"x")
        probes.wait(cgroup, K.CONTAINER_STOP)
        slot = probes.slot(cgroup)
    wait_for(
        lambda: [e for e in probes.events() if e.kind is K.CONTAINER_REMOVE and e.container == made], "remove"
    )
    reported = [event for event in probes.events() if event.container == made]
    kinds = [event.kind for event in reported]
    assert kinds == [
        K.CONTAINER_CREATE,
        K.CONTAINER_START,
        K.PROCESS_EXEC,
        K.PROCESS_EXIT,
        K.CONTAINER_STOP,
        K.CONTAINER_REMOVE,
    ]
    create, start, run, end, stop, remove = reported
    assert {event.slot for event in reported} == {slot}
    assert create.path == remove.path == f"/{cgroup.name}".encode()
    assert create.cgroup == made
    assert create.parent == os.stat(cgroup.path.parent).st_ino
    assert start.pid == run.pid == end.pid == stop.pid == child.pid
    assert start.start_ns == run.start_ns == end.start_ns
    assert (start.uid, start.seccomp, start.user_ns_level) == (0, 0, 0)
    assert start.cap_bounding == int(_status("CapBnd"), 16)
    assert start.shared_namespaces & 0x20000 == 0  # its mounts are its own
    assert start.shared_namespaces & 0x40000000 == 0x40000000  # the network is the host's
    assert Fact.HOST_NETWORK | Fact.ROOT | Fact.NO_SECCOMP | Fact.CAP_SYS_ADMIN in Fact(start.facts)
    assert Fact.USER_NAMESPACE not in Fact(start.facts)
    assert run.path == act.encode()
    assert run.exe_hash == name_hash(run.path)
    assert run.args.split(b"\0")[:2] == [act.encode(), b"wait"]
    assert run.inode == os.stat(act).st_ino
    assert end.exit_code == stop.exit_code == 0


def _status(name: str) -> str:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return line.split()[1]


def test_an_unarmed_task_is_not_restricted(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """In the cgroup, but in the host's mounts: like a runtime that sets up a container."""
    done = cgroup.run([act, "forks:3"], armed=False, capture_output=True)
    assert results(done) == {"forks": 3}
    assert [event.kind for event in probes.events(cgroup)] == [K.CONTAINER_CREATE]
    assert not any(probes.counters(cgroup))


def test_the_host_is_not_restricted(probes: Probes, act: str) -> None:
    """A task outside of any container leaves no record, whatever its mount namespace."""
    before = len(probes.events())
    subprocess.run(["unshare", "-m", "--", act, "forks:3", "threads:2"], check=True, capture_output=True)
    assert len(probes.events()) == before


def test_a_thousand_forks_are_counted_exactly(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The counters of forks and exits are exact, and the number of armed tasks returns to zero."""
    probes.observe()
    try:
        assert results(cgroup.run([act, "forks:1000", "threads:50"], capture_output=True))["forks"] == 1000
    finally:
        probes.observe(*OBSERVED)
    probes.wait(cgroup, K.CONTAINER_STOP)
    counts = probes.counters(cgroup)
    assert counts[Counter.FORK] == 1000
    assert counts[Counter.EXIT] == 1001
    assert counts[Counter.EXEC] == 1
    value = probes.kernel.map("slots").get(probes.slot(cgroup)) or b""
    assert dict(zip(abi.CONTAINER.names, abi.CONTAINER.unpack(value), strict=True))["tasks"] == 0


def test_fork_and_exit_name_the_child(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Parent, child, flags and the exit status; a thread is neither."""
    cgroup.run([act, "forks:1", "threads:1"], capture_output=True)
    (fork,) = probes.wait(cgroup, K.PROCESS_FORK)
    probes.wait(cgroup, K.CONTAINER_STOP)
    child = next(e for e in probes.events(cgroup, K.PROCESS_EXIT) if e.pid == fork.child_pid)
    assert child.ppid == fork.pid
    assert child.start_ns == fork.child_start_ns > fork.start_ns
    assert os.waitstatus_to_exitcode(child.exit_code) == 7
    assert not fork.clone_flags & CLONE_THREAD
    assert len(probes.events(cgroup, K.PROCESS_EXIT)) == 2


def test_a_thread_that_execs_stays_armed(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """It replaces the leader: one process all the time, one end."""
    cgroup.run([act, f"threadexec:{force.need_program('true')}"], capture_output=True)
    probes.wait(cgroup, K.CONTAINER_STOP)
    first, second = probes.events(cgroup, K.PROCESS_EXEC)
    assert first.pid == second.pid == second.tid
    assert len(probes.events(cgroup, K.PROCESS_EXIT)) == 1
    assert len(probes.events(cgroup, K.CONTAINER_STOP)) == 1


def test_a_program_from_a_memfd_is_known(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Its file has no link in any directory."""
    cgroup.run([act, f"memfd:{act}"], capture_output=True)
    first, second = probes.wait(cgroup, K.PROCESS_EXEC, 2)
    assert Fact.MEMFD_EXE not in Fact(first.facts)
    assert Fact.MEMFD_EXE in Fact(second.facts)
    assert second.args.startswith(b"from-memfd\0")


def test_long_and_non_utf8_names_are_reported_unchanged(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """A path beyond the record is truncated and marked; bytes are unchanged."""
    deep = tmp_path
    while len(str(deep)) < 300:
        deep /= "x" * 40
    deep.mkdir(parents=True)
    program = deep / os.fsdecode(b"\xff\n\x1b[31m")
    program.write_bytes(Path(act).read_bytes())
    program.chmod(0o755)
    cgroup.run([str(program)], capture_output=True)
    (run,) = probes.wait(cgroup, K.PROCESS_EXEC)
    assert run.path == os.fsencode(program)[:255]
    assert run.flags & abi.FLAG_TRUNCATED
    assert run.comm == b"\xff\n\x1b[31m"


def test_cgroups_below_belong_to_the_container(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """With any name; moving into one is not leaving."""
    below = cgroup.path / f"{PREFIX}{LABEL}-below"
    below.mkdir()
    made = below.stat().st_ino
    (event,) = probes.wait(cgroup, K.CGROUP_MKDIR)
    assert (event.cgroup, event.parent, event.path) == (
        made,
        cgroup.id,
        f"/{cgroup.name}/{below.name}".encode(),
    )
    cgroup.run([act, f"put:{below}/cgroup.procs:0"], capture_output=True)
    probes.wait(cgroup, K.CONTAINER_STOP)
    assert not probes.events(cgroup, K.CGROUP_ATTACH)
    below.rmdir()
    (event,) = probes.wait(cgroup, K.CGROUP_RMDIR)
    assert event.cgroup == made


def test_leaving_the_cgroup_is_reported_and_lifts_no_rule(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """A task that moves itself out stays the container's, with all its later actions."""
    done = cgroup.run([act, f"put:{cgroup.path.parent}/cgroup.procs:0", "forks:2"], capture_output=True)
    assert results(done) == {"put": 1, "forks": 2}
    (left,) = probes.wait(cgroup, K.CGROUP_ATTACH)
    assert left.cgroup == os.stat(cgroup.path.parent).st_ino
    probes.wait(cgroup, K.CONTAINER_STOP)
    assert len(probes.events(cgroup, K.PROCESS_FORK)) == 2
    assert probes.counters(cgroup)[Counter.FORK] == 2


def test_a_child_started_in_another_cgroup_has_left_its_own(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """clone3 with CLONE_INTO_CGROUP moves no task; it is reported as leaving all the same."""
    root, own = hierarchies()["v2"], cgroup.paths["v2"]
    assert results(cgroup.run([act, f"into:{own}"], capture_output=True)) == {"into": 1}
    assert probes.events(cgroup, K.CGROUP_ATTACH) == []
    done = cgroup.run([act, f"into:{root}"], capture_output=True)
    assert results(done) == {"into": 1}
    (event,) = probes.wait(cgroup, K.CGROUP_ATTACH)
    assert event.cgroup == root.stat().st_ino
    probes.enforce(Rule(K.CGROUP_ATTACH, "kill", {0: {Relation.CONTAINER}}))
    assert cgroup.run([act, f"into:{root}"]).returncode == -signal.SIGKILL
    probes.enforce()


def test_a_rule_distinguishes_leaving_from_being_moved(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """kill for a task that leaves by itself: a task that the host moves continues."""
    probes.enforce(Rule(K.CGROUP_ATTACH, "kill", {0: {Relation.SELF}}))
    try:
        moved = cgroup.popen([act, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        probes.wait(cgroup, K.CONTAINER_START)
        (cgroup.path.parent / "cgroup.procs").write_text(f"{moved.pid}\n")
        moved.communicate(b"x")
        assert moved.returncode == 0
        left = cgroup.run([act, f"put:{cgroup.path.parent}/cgroup.procs:0", "forks:1"], capture_output=True)
        assert left.returncode == -signal.SIGKILL
        assert "forks" not in results(left)
    finally:
        probes.enforce()
    first, second = probes.wait(cgroup, K.CGROUP_ATTACH, 2)
    assert (first.action, second.action) == (abi.Action.NONE, abi.Action.KILL)


def test_running_containers_are_adopted(act: str) -> None:
    """A container that existed before the probes: each thread is bound, and its children inherit."""
    with new_cgroup(LABEL) as cgroup:
        child = cgroup.popen([act, "wait", "forks:1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        wait_for(lambda: os.readlink(f"/proc/{child.pid}/exe") == act, "the program to run")
        with running(observe=(K.PROCESS_FORK,)) as probes:
            slot = probes.enroll(cgroup)
            assert [(one.pid, one.slot) for one in probes.kernel.adopt().bound] == [(child.pid, slot)]
            assert probes.kernel.adopt().bound == []
            (start,) = probes.wait(cgroup, K.CONTAINER_START)
            assert start.pid == child.pid
            assert start.flags & abi.FLAG_ADOPTED
            child.communicate(b"x")
            probes.wait(cgroup, K.PROCESS_FORK)
            probes.wait(cgroup, K.CONTAINER_STOP)


def test_no_free_slot_is_counted() -> None:
    """A container without a slot is not enrolled, and the loss is reported."""

    def take_all(kernel: Kernel) -> None:
        while kernel.map("free_slots").pop() is not None:
            pass

    with running(prepare=take_all) as probes:
        with new_cgroup(LABEL) as cgroup:
            assert probes.kernel.map("containers").get(cgroup.id.to_bytes(8, "little")) is None
        assert probes.drops() == {("container.create", "table_full"): 1}
