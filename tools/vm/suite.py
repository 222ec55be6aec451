# SPDX-License-Identifier: Apache-2.0
"""Runs the project's kernel and escape tests in one boot of a kernel, and reads the results."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tools.vm.catalogue import CATALOGUE, NATIVE, Prepared
from tools.vm.headers import build_module
from tools.vm.machine import ENVIRONMENT, Job, Outcome, run

__all__ = [
    "FULL",
    "FULL_TIMEOUT",
    "LATE_BREAKPOINT",
    "MORE",
    "ROOT",
    "SHARES",
    "SUITE",
    "TIMEOUT",
    "Report",
    "bad_lines",
    "boot",
    "guest_environment",
    "once_more",
    "report_file",
    "run_suite",
    "shares",
]

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests/results/vm"
# What every check runs in a guest of each kernel: that hooks decide.
SUITE = ("tests/kernel/test_lsm_decides.py",)
# What every check runs on one of the kernels only: an emulated guest needs about ten times as long as the
# machine itself. Files that load the same programs stand together: they are loaded once.
SHARES: Mapping[str, tuple[str, ...]] = {
    "6.1": (
        "tests/kernel/test_lsm_agent.py",
        "tests/kernel/test_lsm_files.py",
        "tests/kernel/test_lsm_names.py",
        "tests/kernel/test_lsm_look.py",
        "tests/kernel/test_lsm_variants.py",
        "tests/kernel/test_lsm_trees.py",
        "tests/kernel/test_lsm_given.py",
        "tests/kernel/test_lsm_own_root.py",
        "tests/kernel/test_lsm_helpers.py",
        "tests/kernel/test_lsm_borrowed.py",
        "tests/kernel/test_lsm_starved.py",
        "tests/kernel/test_hook_mechanism.py",
        "tests/kernel/test_narrow_calls.py",
        "tests/kernel/test_bpf_kernel.py::test_the_verifier_processes_few_instructions",
    ),
    "newest": (
        "tests/escape/test_pack.py::test_an_attack_matches_and_its_twin_does_not",
        "tests/kernel/test_backstop.py",
        "tests/kernel/test_lsm_calls.py",
        "tests/kernel/test_lsm_evasions.py",
        "tests/kernel/test_lsm_invariants.py",
        "tests/kernel/test_self_defence.py",
        "tests/kernel/test_bpf_kernel.py::test_unix_programs_are_loaded_exactly_where_the_kernel_has_them",
    ),
}
# What `make test-vm` runs beside all of that, on each of its kernels. `--full` runs what takes longer still:
# tests that start many agents, engines or workloads.
MORE = (
    "tests/escape/test_pack.py::test_an_optional_rule_matches_its_attack_and_not_its_twin",
    "tests/kernel/test_attribution.py",
    "tests/kernel/test_bpf_*.py",
    "tests/kernel/test_following.py",
    "tests/kernel/test_host_attributes.py",
    "tests/kernel/test_probes_*.py",
    "tests/kernel/test_self_defence_*.py",
    "tests/kernel/test_watchdog.py",
    "tests/adversary/test_[dnpstu]*.py",
    "tests/runtime/test_cves.py::test_cve_2025_52881_labels_go_to_the_runtimes_procfs",
    "tests/runtime/test_landlock.py",
    "tests/runtime/test_network.py::test_ipvlan_shares_the_parents_address",
    "tests/runtime/test_resources.py",
)
# All tests that can run in a guest (hours).
FULL = ("tests/kernel", "tests/escape", "tests/benign", "tests/runtime", "tests/adversary")
#: how much slower than the host a guest may be; more on a machine that others use at the same time
SLOWDOWN = int(os.environ.get("RINGFENCE_VM_SLOWDOWN", "12"))
#: Where tests fail for more reasons than this, something is broken, and running them once more would take
#: too long. (A campaign that could not be run fails all of its tests for one reason.)
MOST_RERUNS = 20
FORCED = "root,runc,busybox"  # what the guest must be able to run
# environment variables passed to the guest
_HANDED_ON = ("PYTHONPATH", "RINGFENCE_ADVERSARY", "RINGFENCE_ADVERSARY_TRIES", "RINGFENCE_KILLS")
TIMEOUT, FULL_TIMEOUT = 3600.0, 4 * 3600.0  # seconds, from power-on
#: seconds from power-on to the first line of pytest, more with a longer TIMEOUT: its tests may take as long;
#: one machine of some hundred does not boot
SILENCE = 600.0
MEMORY = 4096  # MiB; browsers and databases want it


#: The kernel patches its own text by way of breakpoints (jump labels). An emulated processor may
#: run one that is gone from memory already. The kernel does not know it any more then, and panics.
LATE_BREAKPOINT = "Oops: int3:"


class Skip(NamedTuple):
    """Why a test may be skipped in a guest: a pattern, and on which kernels alone (none: all)."""

    why: str
    kernels: tuple[str, ...] = ()


_V1 = r"(\{release\}|\S*devices\.allow)"
_UNBUILT = r"(/sys/kernel/uevent_helper|/run/binfmt_misc/register)"
#: all other skips are failures: a test that runs in no guest would pass in all of them
SKIPS = (
    # guests have version 2 of cgroups only; the machine's own kernel has the other
    Skip(r"elsewhere: needs a hybrid cgroup host"),
    Skip(r"elsewhere: version 1 has the freezer that this is about"),
    Skip(r"elsewhere: no version 1 hierarchy is mounted"),
    Skip(rf"elsewhere: this kernel has no openat of `open {_V1} w`"),
    # how distributions build their kernels
    Skip(rf"elsewhere: this kernel has no openat of `open {_UNBUILT} w`"),
    Skip(r"elsewhere: this kernel has no uevent_helper"),
    # what nothing but a hook shows
    Skip(r"elsewhere: calls are not seen for this event"),
    # guests have tests' files on a filesystem of their own
    Skip(r"elsewhere: the program is on another filesystem, which a mount on / hides"),
    # x32 calls are off in them
    Skip(r"elsewhere: this kernel refuses x32 calls, and no program is at every call", ("6.1", "6.12")),
    # what came later
    Skip(r"elsewhere: this kernel has no open_tree of `open_tree /etc 2`", ("6.1", "6.12", "6.18")),
    Skip(r"elsewhere: this kernel has no hook for unix sockets \(6\.7 has\)", ("6.1",)),
    Skip(r"elsewhere: this kernel has no hook cgroup/(connect|sendmsg)_unix", ("6.1",)),
    Skip(r"elsewhere: this kernel has no file_setattr \(from 6\.17 on\)", ("6.1", "6.12")),
    Skip(r"elsewhere: this kernel has no pidfd of a thread \(6\.9\)", ("6.1",)),
    Skip(r"elsewhere: this kernel cannot id-map the filesystem of the temporary directory.*", ("6.1",)),
    Skip(r"elsewhere: no kprobe where this kernel dispatches 32-bit calls", ("6.18", "testing", "newest")),
    # no headers of it can be had
    Skip(r"no module for this kernel", ("6.18",)),
    Skip(r"elsewhere: the headers of this kernel are not installed", ("6.18",)),
)


class Report(NamedTuple):
    """Results of one kernel. `failures` and `skips` are (test, first line of why)."""

    kernel: str
    release: str
    passed: int
    skips: list[tuple[str, str]]
    failures: list[tuple[str, str]]
    seconds: float
    broken: str  # why there are no results, or empty
    flaky: Sequence[tuple[str, str]] = ()  # failed, and passed in another boot; not among `failures`

    @property
    def ok(self) -> bool:
        """True where tests ran and none failed, nor was skipped for a reason that is not among SKIPS."""
        return not self.broken and not self.bad and self.passed > 0

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Failures, and skips that are not allowed."""
        unknown = [(test, f"skipped: {why}") for test, why in self.skips if not self._allowed(why)]
        return self.failures + unknown

    def _allowed(self, why: str) -> bool:
        return any(
            re.fullmatch(skip.why, why) and (not skip.kernels or self.kernel in skip.kernels)
            for skip in SKIPS
        )

    def line(self) -> str:
        """A line for the output."""
        said = f"{self.passed} passed, {len(self.bad)} failed, {len(self.skips)} skipped"
        return f"{self.release:32} {self.broken or said} in {self.seconds:.0f} s"


def bad_lines(report: Report) -> list[str]:
    """One line for each different reason, with the first test that gave it."""
    reasons: dict[str, list[str]] = {}
    for test, why in report.bad:
        reasons.setdefault(why, []).append(test)
    return [
        f"{tests[0]}{f' and {len(tests) - 1} more' if len(tests) > 1 else ''}: {why}"
        for why, tests in reasons.items()
    ]


def report_file(name: str) -> Path:
    """Where the report of a kernel is left."""
    return RESULTS / f"{name}.json"


def run_suite(
    kernel: Prepared,
    tests: Sequence[str] = (),
    *,
    echo: IO[bytes] | None = None,
    timeout: float = TIMEOUT,
) -> Report:
    """Boot `kernel`, run pytest on `tests` there, read its JUnit file back.

    By default the tests are SUITE, all SHARES and MORE. Leaves KERNEL.xml, KERNEL.json and KERNEL.log
    in tests/results/vm. Raises RuntimeError where the stand-in for a kernel exploit cannot be built.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    junit = RESULTS / f"{kernel.name}.xml"
    junit.unlink(missing_ok=True)
    plugins = ["-p", "no:cacheprovider", "-p", "tools.vm.progress"]
    argv = [sys.executable, "-m", "pytest", "-q", *plugins, "--color=no"]
    where = _expand(tests or (*SUITE, *(one for share in SHARES.values() for one in share), *MORE))
    argv += [f"--junitxml={junit}", *where]
    environment = {**guest_environment(kernel), "RINGFENCE_FORCE": FORCED}
    warm(where)
    silence = SILENCE * max(1.0, timeout / TIMEOUT)
    job = Job(argv, ROOT, environment, shares(kernel, RESULTS), timeout, MEMORY, silence)
    started = time.monotonic()
    outcome = boot(kernel, job, echo)
    (RESULTS / f"{kernel.name}.log").write_text(outcome.console)
    report = _read(kernel, junit, outcome.status, outcome.reason, time.monotonic() - started)
    report_file(kernel.name).write_text(json.dumps(report._asdict(), indent=1) + "\n")
    return report


def once_more(kernel: Prepared, report: Report) -> Report:
    """Runs the failed tests of a report in another boot. Those that pass there are flaky, and do not fail."""
    failures = report.failures
    if report.broken or not 0 < len({why for _, why in failures}) <= MOST_RERUNS:
        return report
    again = run_suite(kernel, [_node_id(test) for test, _ in failures])
    if again.passed + len(again.failures) + len(again.skips) != len(failures):
        return report
    twice = {test for test, _ in again.failures}
    skipped = {test for test, _ in again.skips}
    return report._replace(
        passed=report.passed + again.passed,
        skips=report.skips + again.skips,
        failures=[(test, why) for test, why in failures if test in twice],
        flaky=[(test, why) for test, why in failures if test not in twice | skipped],
    )


def _node_id(test: str) -> str:
    """pytest's name for a test of a report (JUnit has the module with dots)."""
    module, _, name = test.partition("::")
    return f"{module.replace('.', '/')}.py::{name}"


def boot(kernel: Prepared, job: Job, echo: IO[bytes] | None = None) -> Outcome:
    """Runs the job; once more if the emulator itself, and not a program, ended it or did not begin."""
    outcome = run(kernel, job, echo=echo)
    if outcome.status is None and not outcome.console:
        print(f"{kernel.release}: the machine did not boot; once more", file=sys.stderr)
        outcome = run(kernel, job, echo=echo)
    elif outcome.status is None and LATE_BREAKPOINT in outcome.console:
        print(f"{kernel.release}: a breakpoint was run that was no longer there; once more", file=sys.stderr)
        outcome = run(kernel, job, echo=echo)
    return outcome


def warm(tests: Sequence[str]) -> None:
    """Compile what the guest imports: it would compile all of it again in each process, at its own speed."""
    compiled = [sys.executable, "-m", "compileall", "-q", "agent", "runtime", "tests", "tools"]
    subprocess.run(compiled, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
    if tests:  # which pytest compiles in a way of its own
        collected = [sys.executable, "-m", "pytest", "-q", "--collect-only", *tests]
        subprocess.run(collected, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)


def shares(kernel: Prepared, results: Path) -> list[Path]:
    """What a guest needs to see: of its own root, the results alone; else the whole tree."""
    return [results] if kernel.userland == Path("/") else [ROOT]


def guest_environment(kernel: Prepared) -> dict[str, str]:
    """Returns the variables for tests in a guest: that it is one, and the simulated exploit's module."""
    found = {
        **ENVIRONMENT,
        "PYTHONDONTWRITEBYTECODE": "1",
        "RINGFENCE_TEST_SLOWDOWN": str(SLOWDOWN),
        "RINGFENCE_VM": kernel.name,
    }
    if kernel.machine != "amd64":
        found["PYTHONPATH"] = str(NATIVE)
    if CATALOGUE[kernel.name].headers:
        found["RINGFENCE_VM_MODULE"] = str(build_module(kernel))
    return found | {name: os.environ[name] for name in _HANDED_ON if name in os.environ}


def _expand(patterns: Sequence[str]) -> list[str]:
    """Files for the patterns, below ROOT; what names a test is left as it is."""
    found: dict[str, None] = {}
    for pattern in patterns:
        files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))
        found |= dict.fromkeys(files or [pattern])
    return [name for name in found if "::" not in name or name.partition("::")[0] not in found]


def _read(kernel: Prepared, junit: Path, status: int | None, reason: str, seconds: float) -> Report:
    nothing = Report(kernel.name, kernel.release, 0, [], [], seconds, "")
    if status is None:
        return nothing._replace(broken=f"the machine {reason}")
    try:
        cases = list(ElementTree.parse(junit).iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        return nothing._replace(broken=f"pytest ended with status {status} and left no results: {error}")
    failures, skips = [], []
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = [child for child in case if child.tag in ("failure", "error")]
        skip = case.find("skipped")
        if bad:
            failures.append((name, (bad[0].get("message") or "").split("\n")[0][:300]))
        elif skip is not None:
            skips.append((name, (skip.get("message") or "").split("\n")[0]))
    passed = len(cases) - len(failures) - len(skips)
    if status != 0 and not failures:
        return nothing._replace(broken=f"pytest ended with status {status} although no test failed")
    return nothing._replace(passed=passed, skips=skips, failures=failures)
