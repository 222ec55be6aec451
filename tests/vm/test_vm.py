# SPDX-License-Identifier: Apache-2.0
"""The kernel and escape tests on the kernels of the catalogue, and the harness's own promises."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import force
from tools.vm import suite
from tools.vm.catalogue import DEFAULT, Prepared, prepared
from tools.vm.cpio import Archive
from tools.vm.fetch import fetch
from tools.vm.machine import Job, Outcome, _follow, run
from tools.vm.side_by_side import run_side_by_side
from tools.vm.suite import FULL, LATE_BREAKPOINT, MORE, ROOT, SHARES, SUITE, Report, bad_lines


def kernel_or_skip(name: str) -> Prepared:
    """A kernel of the cache; where virtual machines are forced it is fetched."""
    if force.in_guest():
        force.elsewhere("this is a virtual machine already")
    force.need_root()
    if prepared(name) is None and not force.forced("vm"):
        force.missing("vm", "kernels are not in the cache: `make vm-fetch` gets them")
    fetch([name])
    kernel = prepared(name)
    assert kernel is not None
    return kernel


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    """The suites of all kernels that every check boots, run side by side, and what failed once more."""
    kernels = {name: kernel_or_skip(name) for name in DEFAULT}
    first = run_side_by_side(DEFAULT, ["--shares"])
    return {report.kernel: suite.once_more(kernels[report.kernel], report) for report in first}


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.parametrize("name", DEFAULT)
def test_the_kernel_tests_pass_on(
    name: str, reports: dict[str, Report], record_property: Callable[[str, object], None]
) -> None:
    """What the kernel has a say in, in one boot of a distribution's kernel, with pure cgroup v2."""
    report = reports[name]
    for test, why in report.flaky:
        record_property("flaky", f"{name}: {test}: {why}")
    failures = "\n".join(bad_lines(report))
    assert report.ok, f"{report.line()}\n{failures}\n(see tests/results/vm/{name}.log)"


@pytest.mark.vm
def test_a_command_s_status_comes_back() -> None:
    """The exit code of the guest's command is the outcome's status."""
    outcome = run(kernel_or_skip("6.1"), Job(["sh", "-c", "uname -r; exit 7"], timeout=120))
    assert (outcome.status, outcome.reason) == (7, "")
    assert "6.1." in outcome.console


@pytest.mark.vm
def test_a_guest_that_hangs_is_an_error() -> None:
    """A command that never ends gives no status, and a reason."""
    outcome = run(kernel_or_skip("6.1"), Job(["sleep", "1000"], timeout=6))
    assert (outcome.status, outcome.reason) == (None, "did not end in time")


@pytest.mark.vm
def test_a_guest_that_crashes_is_an_error() -> None:
    """A kernel panic gives no status, and a reason."""
    crash = Job(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout=120)
    outcome = run(kernel_or_skip("6.1"), crash)
    assert outcome.status is None
    assert "without a report" in outcome.reason


def test_an_archive_is_what_cpio_reads() -> None:
    """Names and contents are padded to four bytes, and the end mark is there."""
    archive = Archive()
    archive.add("a", 0o100644, b"12345")
    whole = archive.finish()
    assert len(whole) % 4 == 0
    assert whole.startswith(b"070701")
    assert whole[110:112] == b"a\0"
    assert whole[112:117] == b"12345"
    assert b"TRAILER!!!\0" in whole


def _report(**changed: object) -> Report:
    whole: dict[str, object] = {
        "kernel": "6.1", "release": "6.1.0", "passed": 5, "skips": [], "failures": [], "seconds": 1.0,
        "broken": "",
    }  # fmt: skip
    return Report(**{**whole, **changed})  # type: ignore[arg-type]


def test_a_skip_that_nobody_allowed_is_a_failure() -> None:
    """What would be skipped in every guest would be run by nobody, and nobody would know."""
    assert _report().ok
    unknown = _report(skips=[("test_x", "elsewhere: no BPF-LSM: not among the modules")])
    assert not unknown.ok
    assert bad_lines(unknown) == ["test_x: skipped: elsewhere: no BPF-LSM: not among the modules"]
    allowed = _report(skips=[("test_x", "elsewhere: needs a hybrid cgroup host")])
    assert (allowed.ok, bad_lines(allowed)) == (True, [])
    young = [("test_x", "elsewhere: this kernel has no hook for unix sockets (6.7 has)")]
    assert _report(skips=young).ok
    assert not _report(kernel="newest", skips=young).ok


def test_no_results_and_failures_are_not_well() -> None:
    """A suite in which nothing ran is none."""
    assert not _report(passed=0).ok
    assert not _report(broken="the machine did not end in time").ok
    assert not _report(failures=[("test_x", "assert 1 == 2")]).ok


@pytest.mark.parametrize(
    "pattern", [*SUITE, *MORE, *FULL, *(one for share in SHARES.values() for one in share)]
)
def test_what_guests_are_asked_to_run_is_there(pattern: str) -> None:
    """A file that was renamed would not be missed otherwise."""
    file, _, test = pattern.partition("::")
    found = list(ROOT.glob(file))
    assert found
    assert not test or f"def {test}(" in found[0].read_text()


def test_each_hook_test_runs_in_some_guest_of_every_check() -> None:
    """Only guests have BPF-LSM: a file in no share would be run by `make test-vm` alone."""
    shared = {file for share in (SUITE, *SHARES.values()) for pattern in share for file in ROOT.glob(pattern)}
    assert set(ROOT.glob("tests/kernel/test_lsm_*.py")) <= shared


def test_shares_are_of_kernels_that_every_check_boots() -> None:
    """Nobody else's share would be run."""
    assert set(SHARES) == set(DEFAULT)


@pytest.mark.parametrize(
    ("said", "boots"),
    [(f"{LATE_BREAKPOINT} 0000 [#1]\nKernel panic", 2), ("Oops: 0002 [#1]\nKernel panic", 1), ("", 2)],
)
def test_a_guest_is_booted_again_for_the_emulators_sake_alone(
    monkeypatch: pytest.MonkeyPatch, said: str, boots: int
) -> None:
    """And once at most: another panic is the report."""
    made: list[Job] = []

    def panicking(kernel: Prepared, job: Job, *, echo: object) -> Outcome:
        made.append(job)
        return Outcome(None, "powered off without a report", 1.0, said)

    monkeypatch.setattr(suite, "run", panicking)
    outcome = suite.boot(Prepared("6.1", "6.1.0-x", Path("/nowhere"), Path("/nowhere"), []), Job(["true"]))
    assert (outcome.status, len(made)) == (None, boots)


def test_a_machine_that_says_nothing_is_not_waited_for() -> None:
    """It did not boot. One that has said something has its whole time."""
    for script, ended in (("sleep 30", True), ("echo x; sleep 2", False)):
        with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as machine:
            now = time.monotonic()
            assert _follow(machine, now + 20, now + 1, None)[1] is ended
            machine.terminate()


def test_a_failed_test_of_a_guest_runs_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another boot, by itself. One that passes there is flaky; one that fails again is a failure.

    What this kernel does not have is skipped there, as it would have been in the first boot.
    """
    asked: list[list[str]] = []

    def another_boot(kernel: Prepared, tests: list[str]) -> Report:
        asked.append(tests)
        absent = ("tests.kernel.test_c::test_z", "no module for this kernel")
        return _report(passed=1, skips=[absent], failures=[("tests.kernel.test_b::test_y", "again")])

    monkeypatch.setattr(suite, "run_suite", another_boot)
    kernel = Prepared("6.1", "6.1.0-x", Path("/nowhere"), Path("/nowhere"), [])
    first, second = ("tests.kernel.test_a::test_x[1]", "late"), ("tests.kernel.test_b::test_y", "wrong")
    third = ("tests.kernel.test_c::test_z", "late")
    report = suite.once_more(kernel, _report(failures=[first, second, third]))
    ids = [
        "tests/kernel/test_a.py::test_x[1]",
        "tests/kernel/test_b.py::test_y",
        "tests/kernel/test_c.py::test_z",
    ]
    assert asked == [ids]
    assert (report.passed, report.failures, report.flaky) == (6, [second], [first])
    assert [test for test, _ in report.skips] == [third[0]]
    assert not report.ok
    assert suite.once_more(kernel, _report(broken="it hangs")).broken
    many = [
        (f"tests.kernel.test_a::test_{number}", f"no {number}") for number in range(suite.MOST_RERUNS + 1)
    ]
    assert suite.once_more(kernel, _report(failures=many)).failures == many
    assert len(asked) == 1
    suite.once_more(kernel, _report(failures=[(test, "the agent did not start") for test, _ in many]))
    assert len(asked) == 2
