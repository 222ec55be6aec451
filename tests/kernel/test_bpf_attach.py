# SPDX-License-Identifier: Apache-2.0
"""Attaching: one program at many places, missing ones are reported, nothing remains afterwards."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.bpf.attach import Attached, AttachPlan, Skipped, attach_all, detach, open_tracefs, places
from ringfence.bpf.objects import ObjectFile, explain, load_error
from ringfence.bpf.syscalls import CALLS, OPENS
from ringfence.errors import KernelError
from ringfence_linux import syscalls
from tests.kernel.binding import (
    EXITS,
    LEFT,
    SYSCTLS,
    TRIED,
    attached,
    compile_fixture,
    ids,
    link_id,
    loaded,
    program_id,
)
from tests.support import force
from tests.support.cgroups import Cgroup
from tests.support.waiting import busy, patience, quickest, wait_for

pytestmark = pytest.mark.root
GETPPID = frozenset({"getppid"})
NOTHING = AttachPlan(tracing=frozenset(), cgroup=frozenset())


@pytest.fixture(scope="module")
def fixture_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled once for the tests of this file."""
    return compile_fixture(tmp_path_factory.mktemp("binding"))


def test_each_kind_of_program_runs(fixture_object: Path, cgroup: Cgroup) -> None:
    """tp_btf, the tracepoints of a call's entry and exit, and a cgroup program count what happens."""
    v2 = cgroup.paths.get("v2")
    if v2 is None:
        force.elsewhere("no cgroup v2 hierarchy")
    plan = AttachPlan(entry=GETPPID, exit=GETPPID, cgroup_path=str(v2))
    with loaded(fixture_object, burst=1) as done, attached(done, plan):
        counts = done.maps["counts"]
        os.getppid()
        assert (counts.sum(TRIED), counts.sum(LEFT)) == (1, 1)
        command = f"echo $$ > {v2}/cgroup.procs && head -c 1 /proc/sys/kernel/ostype"
        subprocess.run(["/bin/sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
        assert counts.sum(EXITS) > 0
        assert counts.sum(SYSCTLS) == 1


def test_plan_is_followed_exactly(fixture_object: Path) -> None:
    """What is not in the plan is not attached."""
    with loaded(fixture_object) as done:
        assert list(places(done.programs.values(), NOTHING)) == []
        wanted = {
            (p.program.name, p.target) for p in places(done.programs.values(), AttachPlan(entry=GETPPID))
        }
        assert wanted == {
            ("ended", "sched_process_exit"),
            ("getppid_enter", "syscalls/sys_enter_getppid"),
        }


def test_missing_call_is_skipped_and_reported(fixture_object: Path) -> None:
    """On a kernel without a system call the rest is still attached."""
    plan = AttachPlan(entry=GETPPID | {"no_such_call"}, tracing=frozenset())
    with loaded(fixture_object) as done:
        results = list(attach_all(places(done.programs.values(), plan), ""))
        detach(result.fd for result in results if not isinstance(result, Skipped))
    assert [type(result).__name__ for result in results] == ["Attached", "Skipped"]
    assert "no_such_call" in results[1].target


def test_everything_is_attached_fast_and_leaves_nothing(fixture_object: Path) -> None:
    """All system calls in under 300 ms, detached within a moment, and neither
    link nor program remains. (Each waits for every CPU: the best of some tries.)
    """
    plan = AttachPlan(entry=frozenset(CALLS), exit=frozenset(OPENS), tracing=frozenset())
    gave_back: list[float] = []

    def attach_and_detach() -> float:
        with loaded(fixture_object) as done:
            programs = {program_id(program) for program in done.programs.values()}
            begin = time.monotonic()
            results = list(attach_all(places(done.programs.values(), plan), ""))
            took = time.monotonic() - begin
            fds = [result.fd for result in results if not isinstance(result, Skipped)]
            links = {link_id(fd) for fd in fds}
            assert len(links) > 60
            assert links <= ids("link")
            begin = time.monotonic()
            detach(fds)
            gave_back.append(time.monotonic() - begin)
        wait_for(lambda: not links & ids("link"), "the links to go")
        wait_for(lambda: not programs & ids("prog"), "the programs to go")
        return took

    assert quickest(attach_and_detach, patience(0.3)) < patience(0.3) * busy()
    assert min(gave_back) < patience(1.0) * busy()


def test_detaching_needs_no_bpffs(fixture_object: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no bpffs can be made, links are closed the slow way."""

    def refuse(kind: str) -> int:
        raise PermissionError(1, "fsopen", kind)

    with loaded(fixture_object, burst=1) as done:
        links = list(attach_all(places(done.programs.values(), replace(NOTHING, entry=GETPPID)), ""))
        monkeypatch.setattr(syscalls, "mount_detached", refuse)
        detach(link.fd for link in links if isinstance(link, Attached))
        os.getppid()
        assert done.maps["counts"].sum(TRIED) == 0


def test_private_tracefs_is_in_no_mount_namespace() -> None:
    """Tracepoint ids are read without a mount that is visible to other processes."""
    before = Path("/proc/self/mountinfo").read_text()
    with open_tracefs() as tracefs:
        assert Path("/proc/self/mountinfo").read_text() == before
        assert (tracefs.tracepoint_id("syscalls/sys_enter_openat") or 0) > 0
        assert tracefs.tracepoint_id("syscalls/sys_enter_nonsense") is None


def test_unknown_constant_is_an_error_of_the_build(fixture_object: Path) -> None:
    """An agent and an object of different builds are refused with a clear error."""
    with ObjectFile(fixture_object) as file:
        with pytest.raises(KernelError, match="has no constant nothing of 4 bytes"):
            file.write_constant("nothing", bytes(4))
        with pytest.raises(KernelError, match="has no constant target of 8 bytes"):
            file.write_constant("target", bytes(8))


def test_missing_and_broken_objects_are_named(tmp_path: Path) -> None:
    """No traceback: the error names the file, the problem, and what to do."""
    with pytest.raises(KernelError, match=r"none\.o is missing") as caught:
        ObjectFile(tmp_path / "none.o")
    assert "make build" in caught.value.hint
    broken = tmp_path / "broken.o"
    broken.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(KernelError, match=r"broken\.o is not a BPF object"):
        ObjectFile(broken)


def test_refusal_of_the_verifier_is_short_and_complete(tmp_path: Path) -> None:
    """The error names the program and ends with the verifier's reason; the log is complete."""
    source = tmp_path / "bad.bpf.c"
    source.write_text(
        "#define SEC(n) __attribute__((section(n), used))\n"
        'SEC("tracepoint") int reads_wild(unsigned long *ctx) { return *(int *)(ctx[1] + 16); }\n'
        'char LICENSE[] SEC("license") = "GPL";\n'
    )
    built = tmp_path / "bad.bpf.o"
    clang = force.need_program("clang")
    subprocess.run([clang, "-O2", "-g", "-target", "bpf", "-c", source, "-o", built], check=True)
    with ObjectFile(built, explained=True) as file:
        with pytest.raises(OSError) as caught:
            file.load()
        failure = load_error(caught.value)
    assert "the kernel refused program reads_wild" in failure.message
    assert "invalid mem access" in failure.message.splitlines()[-1]
    assert len(failure.message.splitlines()) < 10
    assert "BEGIN PROG LOAD LOG" in failure.log
    assert explain(failure.log)[0] == ["reads_wild"]


def test_a_place_held_by_another_product_is_skipped_and_reported(
    fixture_object: Path, cgroup: Cgroup
) -> None:
    """With another program attached there exclusively,
    this one cannot be attached, but all others are.
    """
    v2 = cgroup.paths.get("v2")
    if v2 is None:
        force.elsewhere("no cgroup v2 hierarchy")
    plan = AttachPlan(entry=GETPPID, tracing=frozenset(), cgroup_path=str(v2))
    with loaded(fixture_object) as other, loaded(fixture_object) as own:
        program = next(one for one in other.programs.values() if one.section == "cgroup/sysctl")
        words = ["sysctl", "id", str(program_id(program))]
        subprocess.run([force.need_program("bpftool"), "cgroup", "attach", str(v2), *words], check=True)
        results = list(attach_all(places(own.programs.values(), plan), plan.cgroup_path))
        detach(result.fd for result in results if isinstance(result, Attached))
        subprocess.run(["bpftool", "cgroup", "detach", str(v2), *words], check=True)
    skipped = [result for result in results if isinstance(result, Skipped)]
    assert [one.target for one in skipped] == ["sysctl"]
    assert "another product" in skipped[0].reason
    assert len(results) == 2
