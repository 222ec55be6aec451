# SPDX-License-Identifier: Apache-2.0
"""Every record belongs to its container: from the
first, across moves, to after the container's end.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import FLAG_ADOPTED, EventKind
from ringfence.config.values import Pattern
from ringfence.containers.model import State
from ringfence.containers.patterns import matches
from ringfence.response.describe import describe
from tests.kernel.attribution import Observer, TestCgroup, Workload, new_prefix, observing
from tests.support import force
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root

SOURCE = Path(__file__).parent / "fixtures/attribution.c"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static test program."""
    compiler = force.need_program("gcc")
    target = tmp_path_factory.mktemp("attribution") / "attribution"
    subprocess.run([compiler, "-O1", "-static", "-o", target, SOURCE], check=True)
    return target


@pytest.fixture
def prefix() -> str:
    """A prefix of names that only this test uses."""
    return new_prefix()


@pytest.fixture
def observer(prefix: str) -> Iterator[Observer]:
    """An observer, attached, for this test's names only."""
    with observing(Pattern(prefix, hex64=False)) as made:
        yield made


@pytest.fixture
def cgroup(prefix: str, observer: Observer) -> Iterator[TestCgroup]:
    """A container's cgroup, created while the observer is attached."""
    made = TestCgroup(prefix + "a").make()
    yield made
    made.remove()


def test_the_first_record_of_a_container_carries_its_id_and_path(
    observer: Observer, cgroup: TestCgroup, program: Path
) -> None:
    """Enrolled at mkdir; armed at the first exec in a
    mount namespace of its own, which it already has.
    """
    [created] = observer.wait(EventKind.CONTAINER_CREATE)
    assert created.container is not None
    assert (created.container.id, created.container.cgroup_id) == (cgroup.name, cgroup.id)
    assert created.container.cgroup_path == f"/{cgroup.name}"
    with Workload(program, cgroup, cgroup.name) as workload:
        [started] = observer.wait(EventKind.CONTAINER_START, cgroup.name)
        [executed] = observer.wait(EventKind.PROCESS_EXEC, cgroup.name)
        assert started.event.pid == executed.event.pid == workload.pid
        assert started.event.time_ns <= executed.event.time_ns
        found = observer.registry.find(cgroup.id)
        assert found is not None
        assert (found.state, found.pid) == (State.RUNNING, workload.pid)
        assert found.posture is not None
        assert found.posture.shared_namespaces is not None
        assert "mnt" not in found.posture.shared_namespaces
        assert "net" in found.posture.shared_namespaces
    assert observer.mistakes() == []


def test_the_steps_of_a_build_are_containers(prefix: str) -> None:
    """By the name's length and the parent cgroup, or
    by a prefix: exactly those that `matches` accepts.
    """
    step = "0123456789abcdefghijklmxyz"
    patterns = (Pattern("", hex64=False, build=True), Pattern(prefix, hex64=False, build=True))
    top = TestCgroup(f"{prefix}build").make()
    names = [f"buildkit/{step[:25]}", f"buildkit/{step}", f"buildkits/{step[:25]}", f"buildkit/{step[:24]}-"]
    places = [*(f"{top.name}/{name}" for name in names), f"{prefix}{step[:25]}.scope", f"{prefix}{step[:24]}"]
    with observing(*patterns) as observer:
        made = [TestCgroup(place).make() for place in places]
        try:
            wanted = [one.id for one in made if matches(f"/{one.name}", patterns)]
            assert len(wanted) == 2
            observer.wait(EventKind.CONTAINER_CREATE, count=2)
            owned = [one.id for one in made if observer.slots.owner(one.id) is not None]
            assert owned == wanted
        finally:
            for one in (*made, top):
                one.remove()


def test_tasks_outside_containers_are_not_restricted(
    observer: Observer, cgroup: TestCgroup, program: Path
) -> None:
    """Neither a host process with its own mount
    namespace nor a process that joined without an exec.
    """
    subprocess.run(["unshare", "--mount", "true"], check=True)
    with Workload(program, cgroup, cgroup.name) as workload:
        workload.act()
        observer.wait(EventKind.PROCESS_EXIT, cgroup.name)
    assert {seen.event.pid for seen in observer.of(EventKind.PROCESS_FORK)} == {workload.pid}
    assert all(seen.event.container == cgroup.id for seen in observer.seen)


@pytest.mark.long
def test_a_thousand_containers_of_50_ms_are_attributed(prefix: str, program: Path) -> None:
    """Several at a time, more than there are slots:
    no wrong record, none unattributed, no slot lost.
    """
    with observing(Pattern(prefix, hex64=False), slots=64) as observer:
        running: list[tuple[subprocess.Popen[bytes], TestCgroup]] = []
        ids: set[int] = set()
        for number in range(1000):
            cgroup = TestCgroup(f"{prefix}{number}").make()
            ids.add(cgroup.id)
            argv = [str(program), "enter", str(cgroup.procs), cgroup.name, "short"]
            running.append((subprocess.Popen(argv), cgroup))
            while len(running) >= 12:
                observer.pump()
                _reap(running)
        while running:
            observer.pump()
            _reap(running)
        observer.wait(EventKind.CONTAINER_REMOVE, count=1000)
        observer.registry.sweep()
        assert observer.mistakes() == []
        assert observer.drops() == {}
        assert (
            len(observer.of(EventKind.CONTAINER_CREATE))
            == len(observer.of(EventKind.CONTAINER_START))
            == 1000
        )
        assert len(observer.of(EventKind.PROCESS_EXEC)) == 2000
        assert {seen.event.container for seen in observer.seen} == ids
        assert sum(observer.registry.counts.unattributed.values()) == 0
        assert (len(observer.registry), list(observer.slots.used())) == (0, [])
        assert sorted(iter(observer.slots.take, None)) == list(range(64))


def _reap(running: list[tuple[subprocess.Popen[bytes], TestCgroup]]) -> None:
    """Remove the cgroups of the processes that have ended."""

    def ended() -> list[tuple[subprocess.Popen[bytes], TestCgroup]]:
        return [entry for entry in running if entry[0].poll() is not None]

    for entry in wait_for(ended, "a container to end", every=0.002):
        process, cgroup = entry
        assert process.returncode == 0
        cgroup.remove()
        running.remove(entry)


def test_a_forked_child_knows_its_ancestry(observer: Observer, cgroup: TestCgroup, program: Path) -> None:
    """Up to the container's first process; the runtime outside is known only by its PID."""
    with Workload(program, cgroup, cgroup.name) as workload:
        workload.act()
        _, child = observer.wait(EventKind.PROCESS_EXEC, cgroup.name, count=2)
        observer.wait(EventKind.PROCESS_EXIT, cgroup.name)
        chain = observer.tree.ancestry(child.event.pid, child.event.start_ns)
        assert [(step.pid, step.missing) for step in chain] == [(workload.pid, False), (os.getpid(), True)]
        assert chain[0].args.split(b"\0")[1] == b"hold"


def test_a_moved_task_stays_with_its_container(
    observer: Observer, cgroup: TestCgroup, prefix: str, program: Path
) -> None:
    """The move is seen, but is no way out: later actions
    are the container's, even without its cgroup.
    """
    outside = TestCgroup("rftest-out" + prefix.removeprefix("rftest-")).make()
    identifier = cgroup.id
    try:
        with Workload(program, cgroup, cgroup.name) as workload:
            observer.wait(EventKind.CONTAINER_START, cgroup.name)
            outside.procs.write_text(str(workload.pid))
            [left] = observer.wait(EventKind.CGROUP_ATTACH, cgroup.name)
            assert describe(left.event)["path"] == f"/{outside.name}".encode()
            cgroup.remove()
            observer.wait(EventKind.CONTAINER_REMOVE, cgroup.name)
            workload.act()
            executed = observer.wait(EventKind.PROCESS_EXEC, cgroup.name, count=2)
            assert executed[-1].event.container == identifier
            assert observer.registry.unfreed == 1
            assert len(list(observer.slots.used())) == 1
            workload.end()
            observer.wait(EventKind.CONTAINER_STOP, cgroup.name)
        observer.registry.sweep()
        assert list(observer.slots.used()) == []
        assert observer.mistakes() == []
    finally:
        outside.remove()


def test_a_running_container_is_adopted(prefix: str, program: Path) -> None:
    """It exists before the agent: its tasks are armed
    by the iterator, and its children inherit that.
    """
    cgroup = TestCgroup(prefix + "old").make()
    try:
        with Workload(program, cgroup, cgroup.name) as workload:
            with observing(Pattern(prefix, hex64=False), attach=False) as observer:
                observer.attach()
                observer.adopt()
                [started] = observer.wait(EventKind.CONTAINER_START, cgroup.name)
                assert started.event.flags & FLAG_ADOPTED
                found = observer.registry.find(cgroup.id)
                assert found is not None
                assert (found.adopted, found.state, found.pid) == (True, State.RUNNING, workload.pid)
                process = observer.tree.find(workload.pid, started.event.start_ns)
                assert process is not None
                assert process.args.split(b"\0")[1] == b"hold"
                workload.act()
                [executed] = observer.wait(EventKind.PROCESS_EXEC, cgroup.name)
                assert executed.event.container == cgroup.id
                observer.adopt()
                observer.pump()
                assert len(observer.of(EventKind.CONTAINER_START)) == 1
                workload.end()
                observer.wait(EventKind.CONTAINER_STOP, cgroup.name)
                cgroup.remove()
                observer.wait(EventKind.CONTAINER_REMOVE, cgroup.name)
                assert list(observer.slots.used()) == []
                assert observer.mistakes() == []
    finally:
        cgroup.remove()


def test_nested_cgroups_belong_to_the_container(
    observer: Observer, cgroup: TestCgroup, prefix: str, program: Path
) -> None:
    """With any name; a task that moves within the container has not left."""
    inner = TestCgroup(f"{cgroup.name}/{prefix}b/c").make()
    made = observer.wait(EventKind.CGROUP_MKDIR, cgroup.name, count=2)
    assert {seen.event.container for seen in made} == {cgroup.id}
    with Workload(program, inner, cgroup.name) as workload:
        workload.act()
        observer.wait(EventKind.PROCESS_EXIT, cgroup.name)
        cgroup_procs = TestCgroup(f"{cgroup.name}/{prefix}b").procs
        cgroup_procs.write_text(str(workload.pid))
        workload.act()
        observer.wait(EventKind.PROCESS_EXIT, cgroup.name, count=2)
    assert observer.of(EventKind.CGROUP_ATTACH) == []
    assert len(observer.of(EventKind.CONTAINER_CREATE)) == 1
    assert observer.mistakes() == []


def test_nested_cgroups_of_an_adopted_container_are_enrolled(prefix: str, program: Path) -> None:
    """The task runs in a child cgroup; the container is the topmost cgroup that matches."""
    cgroup = TestCgroup(prefix + "old").make()
    inner = TestCgroup(f"{cgroup.name}/below").make()
    try:
        with (
            Workload(program, inner, cgroup.name) as workload,
            observing(Pattern(prefix, hex64=False)) as observer,
        ):
            observer.adopt()
            workload.act()
            [executed] = observer.wait(EventKind.PROCESS_EXEC, cgroup.name)
            assert executed.event.container == cgroup.id
            later = TestCgroup(f"{cgroup.name}/later").make()
            observer.wait(EventKind.CGROUP_MKDIR, cgroup.name)
            later.remove()
    finally:
        cgroup.remove()


def test_records_in_flight_survive_their_container(observer: Observer, prefix: str, program: Path) -> None:
    """All events happened before the first record was read."""
    names = [f"{prefix}{number}" for number in range(20)]
    for name in names:
        cgroup = TestCgroup(name).make()
        subprocess.run([program, "enter", cgroup.procs, name, "child"], check=True)
        cgroup.remove()
    observer.wait(EventKind.CONTAINER_REMOVE, count=len(names))
    assert {seen.container.id for seen in observer.seen if seen.container} == set(names)
    assert observer.mistakes() == []
    assert list(observer.slots.used()) == []


def test_a_full_table_is_counted_and_recovers(prefix: str, program: Path) -> None:
    """With more containers than slots, the excess one is counted. After another one
    ends, it is enrolled when it runs a program, and adoption finds nothing left to do.
    """
    cgroups = []
    with observing(Pattern(prefix, hex64=False), slots=2) as observer:
        try:
            cgroups = [TestCgroup(f"{prefix}{number}").make() for number in range(3)]
            observer.wait(EventKind.CONTAINER_CREATE, count=2)
            assert sum(observer.drops().values()) == 1
            cgroups[0].remove()
            observer.wait(EventKind.CONTAINER_REMOVE)
            with Workload(program, cgroups[2], cgroups[2].name):
                observer.wait(EventKind.CONTAINER_CREATE, count=3)
                observer.adopt()
                assert {container.id for container in observer.registry} == {
                    cgroups[1].name,
                    cgroups[2].name,
                }
        finally:
            for cgroup in cgroups:
                cgroup.remove()


@pytest.mark.long
@pytest.mark.parametrize(
    "tail", [b"\x1b[31mred", b"\xff\xfe", "\u202eabc\u2028".encode(), b" .scope", b"x" * 200]
)
def test_hostile_cgroup_names_are_lossless(
    observer: Observer, prefix: str, program: Path, tail: bytes
) -> None:
    """Escape codes, invalid UTF-8, direction overrides: the same bytes in and out."""
    name = prefix + os.fsdecode(tail)
    cgroup = TestCgroup(name).make()
    try:
        [created] = observer.wait(EventKind.CONTAINER_CREATE)
        assert created.container is not None
        assert os.fsencode(created.container.id) == prefix.encode() + tail
        with Workload(program, cgroup, name):
            observer.wait(EventKind.PROCESS_EXEC, name)
    finally:
        cgroup.remove()
    assert observer.mistakes() == []


def test_a_newline_is_no_cgroup_name(observer: Observer, prefix: str) -> None:
    """The kernel refuses it (cgroup_mkdir), so
    /proc/PID/cgroup stays parseable; nothing was enrolled.
    """
    with pytest.raises(OSError, match="Invalid argument"):
        TestCgroup(f"{prefix}a\nb").make()
    observer.pump()
    assert observer.seen == []


@pytest.mark.long
@pytest.mark.parametrize("name", [b"a\nb", b"\x1b[2J", b"\xff\xfe", b"q) R 1 (", b"n" * 255])
def test_hostile_program_names_are_lossless(
    observer: Observer, cgroup: TestCgroup, program: Path, tmp_path: Path, name: bytes
) -> None:
    """As a file name, as the task's name, and in argv."""
    copy = os.path.join(os.fsencode(tmp_path), name)
    with open(copy, "wb") as file:
        file.write(program.read_bytes())
    os.chmod(copy, 0o700)
    with subprocess.Popen([copy, "enter", cgroup.procs, cgroup.name, "child"], executable=copy) as process:
        [executed] = observer.wait(EventKind.PROCESS_EXEC, cgroup.name)
        assert process.wait() == 0
    details = describe(executed.event)
    path: bytes = details["path"]
    if len(copy) < 256:
        assert path == copy
    else:
        assert path.endswith(b"n" * 100) or path == copy[:255]
    assert observer.mistakes() == []
