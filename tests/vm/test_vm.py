# SPDX-License-Identifier: Apache-2.0
"""The kernel and escape tests on the kernels of the catalogue, and the harness's own promises."""

from __future__ import annotations

import os

import pytest

from tests.support import force
from tests.vm.catalogue import DEFAULT, Prepared, prepared
from tests.vm.cpio import Archive
from tests.vm.fetch import fetch
from tests.vm.machine import Job, run
from tests.vm.suite import failure_lines, run_suite


def kernel_or_skip(name: str) -> Prepared:
    """A kernel of the cache; where virtual machines are forced it is fetched."""
    if os.environ.get("RINGFENCE_VM"):
        force.elsewhere("this is a virtual machine already")
    force.need_root()
    if prepared(name) is None and not force.forced("vm"):
        force.missing("vm", "kernels are not in the cache: `make vm-fetch` gets them")
    fetch([name])
    kernel = prepared(name)
    assert kernel is not None
    return kernel


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.parametrize("name", DEFAULT)
def test_the_kernel_tests_pass_on(name: str) -> None:
    """tests/kernel and tests/escape in one boot of a distribution's kernel, with pure cgroup v2."""
    report = run_suite(kernel_or_skip(name))
    failures = "\n".join(failure_lines(report))
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
