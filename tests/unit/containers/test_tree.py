# SPDX-License-Identifier: Apache-2.0
"""The origin of processes, with reused PIDs and lost events."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.abi import EventKind
from ringfence.containers.tree import DEPTH_MAX, Process, ProcessTree, read_processes
from ringfence.events import ExecEvent, TaskEvent
from ringfence_linux.procfs import TICK_NS

S = 10**9


def fork(
    parent: int, child: int, *, at: int, parent_at: int = S, container: int = 5, thread: bool = False
) -> TaskEvent:
    """PROCESS_FORK of a process or a thread."""
    return TaskEvent(
        event=EventKind.PROCESS_FORK,
        container=container,
        pid=parent,
        start_ns=parent_at,
        child_pid=child,
        child_tid=child + 1000 if thread else child,
        child_start_ns=at,
        comm_raw=b"sh" + bytes(14),
    )


def execute(
    pid: int, path: bytes, *, at: int, ppid: int = 0, args: bytes = b"", container: int = 5
) -> ExecEvent:
    """PROCESS_EXEC."""
    return ExecEvent(
        event=EventKind.PROCESS_EXEC,
        container=container,
        pid=pid,
        start_ns=at,
        ppid=ppid,
        path_raw=path.ljust(256, b"\0"),
        path_len=len(path),
        args_raw=args.ljust(256, b"\0"),
        args_len=len(args),
        comm_raw=path[-15:].ljust(16, b"\0"),
    )


def leave(pid: int, *, at: int) -> TaskEvent:
    """PROCESS_EXIT."""
    return TaskEvent(event=EventKind.PROCESS_EXIT, pid=pid, start_ns=at, container=5)


def tree_of(*events: ExecEvent | TaskEvent) -> ProcessTree:
    """Returns a tree after these events."""
    tree = ProcessTree()
    for event in events:
        tree.on_event(event)
    return tree


def test_ancestry_ends_at_the_containers_first_process() -> None:
    """The last step is the runtime, of which only the PID is known."""
    tree = tree_of(
        execute(10, b"/bin/init", at=S, ppid=9),
        fork(10, 11, at=2 * S),
        execute(11, b"/bin/sh", at=2 * S, ppid=10, args=b"sh\0-c\0id\0"),
        fork(11, 12, at=3 * S, parent_at=2 * S),
    )
    chain = tree.ancestry(12, 3 * S)
    assert [(step.pid, step.exe, step.missing) for step in chain] == [
        (11, b"/bin/sh", False),
        (10, b"/bin/init", False),
        (9, b"", True),
    ]
    assert chain[0].args == b"sh\0-c\0id\0"


@pytest.mark.parametrize(
    ("events", "asked", "ppid", "first", "origin"),
    [
        # the entrypoint and its child, by the runtime that no event is about
        ([execute(10, b"/bin/init", at=S, ppid=9)], (10, S), 9, 10, b"(entrypoint)"),
        ([execute(10, b"/bin/init", at=S, ppid=9), fork(10, 11, at=2 * S)], (11, 2 * S), 10, 10,
         b"(entrypoint)"),
        # a command that somebody executes in the container
        ([execute(20, b"/bin/sh", at=S, ppid=19)], (20, S), 19, 10, b"(runtime exec)"),
        ([execute(20, b"/bin/sh", at=S, ppid=19), fork(20, 21, at=2 * S)], (21, 2 * S), 20, 10,
         b"(runtime exec)"),
        # the fork of the process itself was lost; its parent is known
        ([execute(10, b"/bin/init", at=S, ppid=9)], (11, 2 * S), 10, 10, b"(entrypoint)"),
        ([execute(20, b"/bin/sh", at=S, ppid=19)], (21, 2 * S), 20, 10, b"(runtime exec)"),
        # PID 1 of the host has adopted it
        ([execute(20, b"/bin/sh", at=S, ppid=1)], (20, S), 1, 10, b"(outside the container)"),
        # a parent in the container that is forgotten; a container whose first process is not known
        ([fork(20, 21, at=2 * S)], (21, 2 * S), 20, 10, b"(unknown)"),
        ([execute(20, b"/bin/sh", at=S, ppid=19)], (20, S), 19, 0, b"(unknown)"),
        # nothing is known, as of an event of a time without an agent
        ([], (20, S), 19, 10, b"(unknown)"),
    ],
)  # fmt: skip
def test_ancestry_ends_in_the_origin(
    events: list[ExecEvent | TaskEvent], asked: tuple[int, int], ppid: int, first: int, origin: bytes
) -> None:
    """The last step says who started the chain: the container's own program, an exec session, or nobody
    known. No step is without a name.
    """
    chain = tree_of(*events).ancestry(*asked, ppid=ppid, first=first)
    assert [step.comm for step in chain if step.missing] == [chain[-1].comm] == [origin]
    assert all(step.comm for step in chain)


def test_a_fork_without_exec_runs_its_parents_program() -> None:
    """Until it executes a program."""
    tree = tree_of(execute(10, b"/bin/a", at=S), fork(10, 11, at=2 * S))
    process = tree.find(11, 2 * S)
    assert process is not None
    assert process.exe == b"/bin/a"


def test_a_dead_parent_is_still_an_ancestor() -> None:
    """A double fork does not end the ancestry."""
    tree = tree_of(
        execute(10, b"/bin/a", at=S),
        fork(10, 11, at=2 * S),
        fork(11, 12, at=3 * S, parent_at=2 * S),
        leave(11, at=2 * S),
    )
    assert [step.pid for step in tree.ancestry(12, 3 * S)][:2] == [11, 10]


def test_a_reused_pid_is_another_process() -> None:
    """The ancestry ends at the PID's new owner, which is no ancestor."""
    tree = tree_of(
        fork(10, 11, at=2 * S),
        fork(11, 12, at=3 * S, parent_at=2 * S),
        leave(11, at=2 * S),
        execute(11, b"/bin/impostor", at=9 * S),
    )
    assert tree.ancestry(12, 3 * S)[0].exe == b""
    assert tree.find(11, 2 * S) is not None
    new = tree.find(11, 9 * S)
    assert new is not None
    assert new.exe == b"/bin/impostor"


def test_an_unknown_childs_parent_must_be_older() -> None:
    """By its PID alone, a younger process would look like the parent."""
    tree = tree_of(execute(20, b"/bin/young", at=9 * S))
    [step] = tree.ancestry(21, 3 * S, ppid=20)
    assert step.missing


def test_a_late_exit_does_not_end_the_pids_new_owner() -> None:
    """The start times differ."""
    tree = tree_of(execute(11, b"/bin/new", at=9 * S), leave(11, at=2 * S))
    assert tree.find(11, 9 * S) is not None
    assert len(tree) == 1


def test_threads_are_no_processes() -> None:
    """A fork event of a thread changes nothing."""
    assert len(tree_of(fork(10, 10, at=2 * S, thread=True))) == 0


def test_the_processes_of_a_container_are_listed_and_forgotten_with_it() -> None:
    """Including those with a lost exit."""
    tree = tree_of(execute(10, b"/a", at=S), execute(11, b"/b", at=S), execute(12, b"/c", at=S, container=6))
    assert [process.pid for process in tree.of_container(5)] == [10, 11]
    assert tree.forget(5) == 2
    assert len(tree) == 1


def test_a_long_ancestry_is_cut() -> None:
    """An alert remains readable."""
    events = [fork(pid, pid + 1, at=(pid + 1) * S, parent_at=pid * S) for pid in range(1, 100)]
    assert len(tree_of(*events).ancestry(100, 100 * S)) == DEPTH_MAX


def test_a_fork_bomb_does_not_grow_the_tree() -> None:
    """Entries and bytes are limited; evictions are counted."""
    tree = ProcessTree(live_max=1000, dead_max=500)
    tracemalloc.start()
    for pid in range(2, 20_000):
        tree.on_event(execute(pid, b"/bin/%d" % pid, at=pid * S, args=b"x" * 256))
        if pid % 3 == 0:
            tree.on_event(leave(pid, at=pid * S))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(tree) <= 1000, tree.dead <= 500, tree.evicted > 10_000) == (True, True, True)
    assert size < 1500 * 1500


def test_running_processes_are_read_from_proc() -> None:
    """Those of an adopted container, with parents; start times agree with the probes' to a tick."""
    inner = "import sys; print(1, flush=True); sys.stdin.read()"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdout.readline()
        [child] = _children(parent.pid)
        tree = ProcessTree()
        assert tree.seed([parent.pid, child], 5) == 2
        assert tree.seed([parent.pid, child], 5) == 0
        process = tree.find(child, 0)
        assert process is not None
        assert tree.find(child, process.start_ns + TICK_NS - 1) is process
        assert [step.pid for step in tree.ancestry(child, process.start_ns)][:1] == [parent.pid]
        assert process.args.startswith(os.fsencode(sys.executable) + b"\0-c\0")
        parent.stdin.close()


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def test_a_pid_that_is_gone_is_skipped() -> None:
    """A process may end while it is read."""
    assert ProcessTree().seed([0x7FFFFFF0], 5) == 0


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("fel"), st.integers(1, 5), st.integers(1, 5), st.integers(0, 3)),
        max_size=60,
    )
)
def test_no_order_of_events_breaks_the_tree(steps: list[tuple[str, int, int, int]]) -> None:
    """Lost, late and duplicate events: the ancestry always ends."""
    tree = ProcessTree(live_max=3, dead_max=2)
    for what, pid, other, at in steps:
        if what == "f":
            tree.on_event(fork(pid, other, at=at * S, parent_at=at * S))
        elif what == "e":
            tree.on_event(execute(pid, b"/x", at=at * S, ppid=other))
        else:
            tree.on_event(leave(pid, at=at * S))
        assert len(tree) <= 3
        assert tree.dead <= 2
        assert len(tree.ancestry(pid, at * S, ppid=other)) <= DEPTH_MAX


def test_a_fork_bomb_only_evicts_its_own_container() -> None:
    """The processes of other containers stay, even if older, and even if a new container appears last."""
    tree = ProcessTree(live_max=100, dead_max=50)
    for pid in range(1, 21):
        tree.on_event(execute(pid, b"/bin/quiet", at=S, container=7))
    for pid in range(21, 31):
        tree.on_event(execute(pid, b"/bin/quiet", at=S, container=7))
        tree.on_event(leave(pid, at=S))
    for pid in range(1000, 3000):
        tree.on_event(fork(1, pid, at=2 * S, container=5))
        if pid % 2:
            tree.on_event(leave(pid, at=2 * S))
    tree.on_event(execute(5000, b"/bin/late", at=3 * S, container=9))
    assert len(tree.of_container(7)) == 20
    assert tree.find(5000, 3 * S) is not None
    assert all(tree.find(pid, S) for pid in range(21, 31))
    assert tree.capacity == (100, 100)
    assert tree.capacity_of_dead == (50, 50)
    assert tree.evicted == 1000 - 80 + 1


def test_processes_are_reconciled_with_those_that_are_there() -> None:
    """Unknown ones are added, and those gone are ended, unless they began after the list was asked for."""
    tree = tree_of(
        execute(10, b"/a", at=S),
        execute(11, b"/b", at=2 * S),
        execute(12, b"/c", at=3 * S),
        execute(13, b"/d", at=S),
    )
    there = [
        Process(10, S, 1, 0, 5, b"a", b"/a", b"", 0),
        Process(20, 4 * S, 10, 0, 5, b"n", b"/n", b"", 0),
    ]
    assert tree.reconcile(5, there, asked_ns=3 * S) == (1, 2)
    assert sorted(process.pid for process in tree.of_container(5)) == [10, 12, 20]
    assert tree.dead == 2
    assert [step.pid for step in tree.ancestry(20, 4 * S)] == [10]
    assert tree.reconcile(5, there, asked_ns=3 * S) == (0, 0)


def test_a_start_time_matches_to_a_tick() -> None:
    """/proc has no finer ones; an exec makes it exact."""
    tree = tree_of(execute(10, b"/a", at=TICK_NS))
    process = tree.find(10, 2 * TICK_NS - 1)
    assert process is not None
    assert tree.find(10, 2 * TICK_NS) is None
    assert tree.find(10, 0) is process
    tree.on_event(execute(10, b"/b", at=2 * TICK_NS - 1, args=b"x" * 300))
    assert (len(tree), tree.dead, process.exe, process.start_ns) == (1, 0, b"/b", 2 * TICK_NS - 1)
    assert process.args == b"x" * 256
    tree.on_event(leave(10, at=2 * TICK_NS))
    assert len(tree) == 1
    tree.on_event(leave(10, at=TICK_NS))
    assert (len(tree), tree.dead) == (0, 1)


def test_an_exec_of_an_unknown_process_makes_one() -> None:
    """With the user and the container of the event; a known one keeps its parent."""
    event = execute(10, b"/a", at=S, ppid=9)._replace(uid=7)
    tree = tree_of(event)
    process = tree.find(10, S)
    assert process is not None
    assert (process.ppid, process.uid, process.container, process.comm.rstrip(b"\0")) == (9, 7, 5, b"/a")
    tree.on_event(fork(10, 11, at=2 * S)._replace(uid=8))
    child = tree.find(11, 2 * S)
    assert child is not None
    assert (child.ppid, child.pstart_ns, child.uid, child.container) == (10, S, 8, 5)
    tree.on_event(execute(11, b"/b", at=2 * S, ppid=1)._replace(uid=9))
    assert (child.ppid, child.exe, child.uid) == (10, b"/b", 9)
    assert tree.ancestry(11, 2 * S)[0].comm == b"/a"


def test_a_fork_of_a_pids_previous_owner_has_no_program() -> None:
    """The parent's start time is another one."""
    tree = tree_of(execute(10, b"/a", at=9 * S), fork(10, 11, at=2 * S, parent_at=S))
    child = tree.find(11, 2 * S)
    assert child is not None
    assert (child.exe, child.args) == (b"", b"")


def test_a_pid_that_is_taken_again_retires_its_owner() -> None:
    """Its exit was lost."""
    tree = tree_of(execute(10, b"/a", at=S), execute(10, b"/b", at=9 * S))
    old, new = tree.find(10, S), tree.find(10, 9 * S)
    assert old is not None
    assert new is not None
    assert (old.exe, new.exe, len(tree), tree.dead) == (b"/a", b"/b", 1, 1)


def test_a_parent_that_began_with_its_child_is_its_parent() -> None:
    """Times of /proc are those of a tick."""
    tree = tree_of(execute(10, b"/a", at=S))
    assert not tree.ancestry(11, S, ppid=10)[0].missing
    assert tree.ancestry(11, S - 1, ppid=10)[0].missing
    assert tree.ancestry(11, S) == []


def stat_line(pid: int, ppid: int, start: int) -> str:
    """A line of /proc/PID/stat (proc(5): the parent is field 4, the start field 22)."""
    return f"{pid} (a b) S {ppid} " + "0 " * 17 + f"{start} 0 0\n"


def test_processes_that_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    """A kernel thread has no program; what has no arguments is gone."""
    for pid in (1, 2, 3):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(stat_line(pid, 7, 100 * pid))
    (tmp_path / "1/exe").symlink_to("/bin/one")
    for pid in (1, 2):
        (tmp_path / str(pid) / "cmdline").write_bytes(b"a\0" * 200)
    found = read_processes([1, 2, 3, 4], 5, tmp_path)
    assert [(one.pid, one.exe, one.ppid, one.container) for one in found] == [
        (1, b"/bin/one", 7, 5),
        (2, b"", 7, 5),
    ]
    assert [one.start_ns for one in found] == [100 * TICK_NS, 200 * TICK_NS]
    assert {(len(one.args), one.uid, one.pstart_ns) for one in found} == {(256, os.getuid(), 0)}
