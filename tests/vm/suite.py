# SPDX-License-Identifier: Apache-2.0
"""The project's kernel and escape tests inside one boot of a kernel, and what came of them."""

from __future__ import annotations

import json
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tests.vm.catalogue import Prepared
from tests.vm.headers import build_module
from tests.vm.machine import ENVIRONMENT, Job, run

__all__ = ["ROOT", "SUITE", "Report", "failure_lines", "run_suite"]

ROOT = Path(__file__).resolve().parents[2]
# What the kernel has a say in. The rest of tests/kernel (the agent's process, container engines) and the
# other modes of tests/escape are the same on every kernel, and take a guest far longer: ask for them by name.
SUITE = (
    "tests/kernel/test_bpf_*.py",
    "tests/kernel/test_probes_*.py",
    "tests/kernel/test_lsm_*.py",
    "tests/kernel/test_attribution.py",
    "tests/runtime/test_network.py::test_ipvlan_shares_the_parents_address",
    "tests/escape/test_pack.py::test_an_attack_is_met_and_its_twin_passes",
    "tests/escape/test_pack.py::test_an_optional_rule_is_met_and_its_twin_passes",
    "tests/benign/test_systemd.py",
)
SLOWDOWN = 12  # how much slower than the host a guest may be
FORCED = "root,runc,busybox"  # what the guest must be able to run


class Report(NamedTuple):
    """Results of one kernel. `failures` are (test, first line of why)."""

    kernel: str
    release: str
    passed: int
    skipped: int
    failures: list[tuple[str, str]]
    seconds: float
    broken: str  # why there are no results, or empty

    @property
    def ok(self) -> bool:
        """True where tests ran and none failed."""
        return not self.broken and not self.failures and self.passed > 0

    def line(self) -> str:
        """One line for people."""
        said = self.broken or f"{self.passed} passed, {len(self.failures)} failed, {self.skipped} skipped"
        return f"{self.release:32} {said} in {self.seconds:.0f} s"


def failure_lines(report: Report) -> list[str]:
    """One line for each different reason, with the first test that gave it."""
    reasons: dict[str, list[str]] = {}
    for test, why in report.failures:
        reasons.setdefault(why, []).append(test)
    return [
        f"{tests[0]}{f' and {len(tests) - 1} more' if len(tests) > 1 else ''}: {why}"
        for why, tests in reasons.items()
    ]


def run_suite(
    kernel: Prepared,
    tests: Sequence[str] = (),
    *,
    results: Path | None = None,
    echo: IO[bytes] | None = None,
    timeout: float = 2400.0,
) -> Report:
    """Boot `kernel`, run pytest on `tests` (default: SUITE) there, and read its JUnit file back.

    Leaves KERNEL.xml, KERNEL.json and KERNEL.log in `results` (default: tests/results/vm).
    """
    directory = results or ROOT / "tests/results/vm"
    directory.mkdir(parents=True, exist_ok=True)
    junit = directory / f"{kernel.name}.xml"
    junit.unlink(missing_ok=True)
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--color=no",
        f"--junitxml={junit}",
    ]
    environment = {
        **ENVIRONMENT,
        "RINGFENCE_FORCE": FORCED,
        "RINGFENCE_TEST_SLOWDOWN": str(SLOWDOWN),
        "PYTHONDONTWRITEBYTECODE": "1",
        "RINGFENCE_VM": kernel.name,
        **_module(kernel),
    }
    where = list(tests) or _expand(SUITE)
    job = Job([*argv, *where], ROOT, environment, [directory], timeout)
    started = time.monotonic()
    outcome = run(kernel, job, echo=echo)
    (directory / f"{kernel.name}.log").write_text(outcome.console)
    report = _read(kernel, junit, outcome.status, outcome.reason, time.monotonic() - started)
    (directory / f"{kernel.name}.json").write_text(json.dumps(report._asdict(), indent=1) + "\n")
    return report


def _module(kernel: Prepared) -> dict[str, str]:
    """The stand-in for a kernel exploit; a kernel whose headers are gone says so, and its tests skip."""
    try:
        return {"RINGFENCE_VM_MODULE": str(build_module(kernel))}
    except RuntimeError as error:
        return {"RINGFENCE_VM_NO_MODULE": str(error).splitlines()[0]}


def _expand(patterns: Sequence[str]) -> list[str]:
    """Files for the patterns, below ROOT; what names a test is left as it is."""
    found: list[str] = []
    for pattern in patterns:
        files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))
        found += files or [pattern]
    return found


def _read(kernel: Prepared, junit: Path, status: int | None, reason: str, seconds: float) -> Report:
    nothing = Report(kernel.name, kernel.release, 0, 0, [], seconds, "")
    if status is None:
        return nothing._replace(broken=f"the machine {reason}")
    try:
        cases = list(ElementTree.parse(junit).iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        return nothing._replace(broken=f"pytest ended with status {status} and left no results: {error}")
    failures, skipped = [], 0
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = [child for child in case if child.tag in ("failure", "error")]
        if bad:
            failures.append((name, (bad[0].get("message") or "").split("\n")[0][:300]))
        elif case.find("skipped") is not None:
            skipped += 1
    passed = len(cases) - len(failures) - skipped
    if status != 0 and not failures:
        return nothing._replace(broken=f"pytest ended with status {status} although no test failed")
    return nothing._replace(passed=passed, skipped=skipped, failures=failures)
