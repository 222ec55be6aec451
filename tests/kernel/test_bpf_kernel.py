# SPDX-License-Identifier: Apache-2.0
"""The real probes through the facade: load, configure, attach and close in time; nothing remains."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence import abi
from ringfence.abi import OBSERVE_ALERTS, PATTERN, PATTERN_ANY, PATTERN_HEX64, EventKind
from ringfence.bpf import _libbpf
from ringfence.bpf.attach import AttachPlan
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.kernel import DEFAULT_OBJECT, Kernel, KernelSettings, Pattern
from ringfence.bpf.syscalls import CALLS, OPENS, entries
from ringfence.errors import ConfigError, KernelError
from ringfence_linux.namespaces import visible
from tests.kernel.binding import ids, link_id, program_id
from tests.support import force
from tests.support.descriptors import open_descriptors
from tests.support.waiting import busy, patience, quickest, wait_for

pytestmark = pytest.mark.root
# Small: these tests are about the binding, and run beside others.
SETTINGS = KernelSettings(slots=64, processes=256, alerts_bytes=1 << 16, activity_bytes=1 << 16)
ROOT = Path(__file__).resolve().parents[2]


def everything() -> AttachPlan:
    """Each program, and each call except the hot ones
    that are attached only when a rule needs them.
    """
    hot = {"ioctl", "splice", "vmsplice", "tee"}
    cgroup2 = NodeCapabilities.detect().cgroup2
    return AttachPlan(entry=frozenset(CALLS) - hot, exit=frozenset(OPENS), cgroup_path=cgroup2)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """The probes, loaded and attached nowhere."""
    if not DEFAULT_OBJECT.exists():
        force.missing("probes", "the probes are not built: make build")
    with Kernel.load(SETTINGS) as loaded:
        yield loaded


def test_load_and_attach_are_fast() -> None:
    """Under 1 s of CPU time and 300 ms of wall time (the best of some tries, more on a loaded machine:
    attaching waits for every CPU). The CPU time is the verifier's, and differs by half between machines.

    Times in an emulated guest are not meaningful: there the limit only detects a hang.
    """
    if not DEFAULT_OBJECT.exists():
        force.missing("probes", "the probes are not built: make build")

    def load() -> float:
        begin = time.process_time()
        with Kernel.load(KernelSettings()):
            return time.process_time() - begin

    def attach() -> float:
        with Kernel.load(KernelSettings()) as loaded:
            begin = time.monotonic()
            assert len(loaded.attach(everything())) > 70
            return time.monotonic() - begin

    for work, most in ((load, patience(1.0)), (attach, patience(0.3))):
        assert quickest(work, most) < most * busy()


def test_sizes_are_those_of_the_settings(kernel: Kernel) -> None:
    """Every map whose size the agent sets has the requested size."""
    for name, entries_ in SETTINGS.sizes().items():
        assert kernel.map(name).max_entries == entries_


def test_close_leaves_nothing() -> None:
    """No descriptor, mapping, program or link remains, repeatedly."""
    if not DEFAULT_OBJECT.exists():
        force.missing("probes", "the probes are not built: make build")
    descriptors = open_descriptors()
    for _ in range(2):
        with Kernel.load(SETTINGS) as loaded:
            loaded.attach(everything())
            programs = {program_id(program) for program in loaded.programs}
            links = {link_id(one.fd) for one in loaded.attached}
            assert links <= ids("link")
        assert open_descriptors() == descriptors
        assert "ringbuf" not in Path("/proc/self/maps").read_text()
        wait_for(lambda links=links: not links & ids("link"), "the links to go")  # type: ignore[misc]
        wait_for(lambda programs=programs: not programs & ids("prog"), "the programs to go")  # type: ignore[misc]


def test_plan_can_change(kernel: Kernel) -> None:
    """A second plan attaches what is new, detaches what is no longer in it, and keeps the rest."""
    first = AttachPlan(entry=frozenset({"unshare", "setns"}), tracing=frozenset(), compat=False)
    second = replace(first, entry=frozenset({"setns", "bpf"}))
    assert {link.target for link in kernel.attach(first)} == {
        "syscalls/sys_enter_unshare",
        "syscalls/sys_enter_setns",
    }
    kept = next(link for link in kernel.attached if link.target.endswith("setns"))
    assert [link.target for link in kernel.attach(second)] == ["syscalls/sys_enter_bpf"]
    assert kept in kernel.attached
    assert {link.target for link in kernel.attached} == {"syscalls/sys_enter_setns", "syscalls/sys_enter_bpf"}
    assert kernel.attach(second) == []


def test_failed_attach_changes_nothing(kernel: Kernel) -> None:
    """A plan that cannot be carried out is undone, and the error names the failure."""
    before = kernel.attach(AttachPlan(entry=frozenset({"bpf"}), tracing=frozenset(), compat=False))
    with pytest.raises(KernelError, match="no-such-cgroup"):
        kernel.attach(AttachPlan(entry=frozenset({"unshare"}), cgroup_path="/no-such-cgroup"))
    assert kernel.attached == before


def test_absent_call_is_reported_once(kernel: Kernel) -> None:
    """What this kernel does not have is in `skipped` with its reason."""
    kernel.attach(AttachPlan(entry=frozenset({"bpf", "no_such_call"}), tracing=frozenset(), compat=False))
    (skip,) = [skip for skip in kernel.skipped if "no_such_call" in skip.target]
    assert skip.reason == "this kernel has no such tracepoint"


def test_unix_programs_are_loaded_exactly_where_the_kernel_has_them(kernel: Kernel) -> None:
    """cgroup/connect_unix is loaded from 6.7 on, and reported as missing before."""
    programs = {program.section for program in kernel.programs}
    skipped = {skip.target for skip in kernel.skipped}
    for name in ("connect_unix", "sendmsg_unix"):
        can = name in NodeCapabilities.detect().cgroup
        assert (f"cgroup/{name}" in programs) == can
        assert (f"cgroup/{name}" in skipped) == (not can)


def test_call_table_has_the_requested_calls(kernel: Kernel) -> None:
    """Another set of names replaces the first one completely."""
    kernel.configure_syscalls(CALLS)
    assert len(table(kernel)) == len(dict(entries(CALLS)))
    kernel.configure_syscalls(["unshare"])
    assert table(kernel) == dict(entries(["unshare"]))


def table(kernel: Kernel) -> dict[int, bytes]:
    """Returns the non-empty entries of `syscalls`."""
    found = kernel.map("syscalls").items()
    return {int.from_bytes(key, "little"): value for key, value in found if any(value)}


def test_fewer_patterns_leave_no_old_ones(kernel: Kernel) -> None:
    """Fewer patterns than before: none of the old ones remains."""
    kernel.configure_patterns([Pattern(PATTERN_HEX64, b"docker-"), Pattern(PATTERN_ANY, b"rftest-")])
    kernel.configure_patterns([Pattern(PATTERN_ANY, b"rftest-")])
    first = PATTERN.unpack(kernel.map("patterns").get(0) or b"")
    assert (first[0], first[1], first[2].rstrip(b"\0")) == (PATTERN_ANY, 7, b"rftest-")
    assert not any(kernel.map("patterns").get(1) or b"?")


def test_patterns_that_do_not_fit_are_refused(kernel: Kernel) -> None:
    """Too long, or too many: a configuration error."""
    with pytest.raises(ConfigError, match="at most 46 bytes"):
        kernel.configure_patterns([Pattern(PATTERN_ANY, b"x" * 47)])
    with pytest.raises(ConfigError, match="33 cgroup patterns"):
        kernel.configure_patterns([Pattern(PATTERN_ANY, b"x")] * 33)


def test_observe_levels_are_set(kernel: Kernel) -> None:
    """One kind, then all."""
    kernel.set_observe(EventKind.FILE_OPEN, OBSERVE_ALERTS)
    assert kernel.map("observe").get_int(EventKind.FILE_OPEN) == OBSERVE_ALERTS
    kernel.observe_only({EventKind.NET_BIND: OBSERVE_ALERTS})
    levels = {
        int.from_bytes(k, "little"): int.from_bytes(v, "little") for k, v in kernel.map("observe").items()
    }
    assert {kind: level for kind, level in levels.items() if level} == {EventKind.NET_BIND: OBSERVE_ALERTS}


def test_statistics_run_only_while_requested(kernel: Kernel) -> None:
    """Runs are counted after keep_statistics, by program."""
    kernel.attach(AttachPlan(entry=frozenset({"bpf"}), tracing=frozenset(), compat=False))
    kernel.keep_statistics(on=True)
    kernel.map("observe").get(0)
    kernel.map("observe").get(0)
    kernel.keep_statistics(on=False)
    stats = {stat.name: stat for stat in kernel.program_stats()}
    assert stats["syscall_enter"].run_count >= 2
    assert stats["syscall_enter"].run_time_ns > 0


def test_adopting_an_empty_node_adopts_nothing(kernel: Kernel) -> None:
    """No cgroup is enrolled, so no task becomes armed."""
    assert kernel.adopt().bound == []


def test_rings_are_ready(kernel: Kernel) -> None:
    """Both are mapped and empty."""
    for ring in (kernel.alerts, kernel.activity):
        assert (ring.pending(), ring.read()) == (0, [])


def test_object_of_another_build_is_refused(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of another size would be misread; the error names it."""
    monkeypatch.setitem(abi.MAPS, "slots", abi.MapShape(4, abi.CONTAINER.size + 8))
    with pytest.raises(KernelError, match="map slots does not have the expected shape") as caught:
        Kernel.load(SETTINGS)
    assert "make build" in caught.value.hint


def test_missing_object_is_named(tmp_path: Path) -> None:
    """With advice on what to do."""
    with pytest.raises(KernelError, match="is missing") as caught:
        Kernel.load(replace(SETTINGS, object_path=tmp_path / "ringfence.bpf.o"))
    assert caught.value.hint == "install the package again; in a checkout: make build"


LOAD = """
import sys
from ringfence.bpf.kernel import Kernel, KernelSettings
from ringfence.errors import Error
try:
    Kernel.load(KernelSettings(slots=64, processes=256)).close()
except Error as error:
    print(error.exit_code, error.message)
"""


def run_load(**options: object) -> str:
    """Load in a child process; returns its output."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        **options,  # type: ignore[call-overload]
    )
    return str(done.stdout)


def test_locked_memory_need_not_be_raised(kernel: Kernel) -> None:
    """A tiny RLIMIT_MEMLOCK does not matter: the kernel charges the cgroup."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (16384, 16384))

    assert run_load(preexec_fn=limit) == ""


def test_other_users_get_an_error(kernel: Kernel) -> None:
    """Not root: one line and exit code 4, no traceback."""
    output = run_load(user=65534, group=65534, extra_groups=())
    assert output.startswith("4 loading BPF programs needs root")


def test_memory_is_freed_after_a_load() -> None:
    """A load keeps a few hundred kB, not the megabytes that libbpf needs for it."""
    if not DEFAULT_OBJECT.exists():
        force.missing("probes", "the probes are not built: make build")
    Kernel.load(SETTINGS).close()
    before = resident()
    with Kernel.load(SETTINGS):
        assert resident() - before < 3 << 20


def resident() -> int:
    """Returns this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_host_namespaces_are_numbers() -> None:
    """Every kind is present, with an inum or 0."""
    found = visible()
    assert set(found) == {"mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time"}
    assert found["mnt"] > 0


def test_the_verifier_processes_few_instructions(kernel: Kernel) -> None:
    """A program whose states multiply takes seconds
    to load at every start. RF_NARROW says what to do.
    """
    looked = {
        program.name: int.from_bytes(_libbpf.info(program.fd, 220)[216:], "little")  # verified_insns, 5.16
        for program in kernel.programs
    }
    assert max(looked.values()) < 100_000, looked
