# SPDX-License-Identifier: Apache-2.0
"""The skip policy (see tests/support/force.py) and the fixtures that every test may ask for."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything reads it: agents of one worker must not act on the containers of another.
if _worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["RINGFENCE_TEST_PREFIX"] = f"{os.environ.get('RINGFENCE_TEST_PREFIX', 'rftest-')}{_worker}-"

from tests.support import force
from tests.support.agent import INVALID, Agent, running_agent
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.container import Bundle, Container, make_rootfs, new_container

ROOT = Path(__file__).resolve().parents[1]
# Examples are judged by what they do: by the clock, a busy machine would fail them.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


def pytest_collection_finish() -> None:
    """Thousands of tests stay until the end: looking through them again and again cost pauses of 0.3 s, which
    tests of time took for the product's."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check what a test's markers ask for, before any fixture runs."""
    if item.get_closest_marker("root"):
        force.need_root()
    for marker in item.iter_markers("needs"):
        for part in marker.args:
            force.need_program(part)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With everything forced, no other skip passes unseen either."""
    report = yield
    if report.skipped and force.forced("all") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if force.ELSEWHERE not in reason and not hasattr(report, "wasxfail"):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: {reason} (and {force.VARIABLE}=all allows no skip)"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason that something was skipped for."""
    reasons: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    if not reasons:
        return
    terminalreporter.section("skipped, and why")
    for reason, tests in sorted(reasons.items()):
        more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
        terminalreporter.write_line(f"{len(tests):4}  {reason}: {tests[0]}{more}")


@pytest.fixture(autouse=True)
def _lines_as_published() -> Iterator[None]:
    """What agents wrote is as docs/reference/alert.schema.json says."""
    yield
    found = INVALID.copy()
    INVALID.clear()
    assert not found, found[:5]


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    """A cgroup of the test's own."""
    force.need_root()
    with new_cgroup() as made:
        yield made


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox root filesystem, shared by the containers of a run (they may write to it)."""
    return make_rootfs(tmp_path_factory.mktemp("rootfs"), busybox=force.need_program("busybox"))


@pytest.fixture
def bundle(rootfs: Path, tmp_path: Path) -> Bundle:
    """An OCI bundle that allows everything: what stops an attack is then Ringfence, not the runtime."""
    return Bundle(tmp_path / "bundle", rootfs)


@pytest.fixture
def container(bundle: Bundle) -> Iterator[Container]:
    """A running runc container, idle, in cgroup `/rftest-...`."""
    force.need_root()
    force.need_program("runc")
    with new_container(bundle) as made:
        yield made


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent with the project's own policies, enforcing, for containers named `rftest-...` only."""
    force.need_root()
    with running_agent(tmp_path / "agent", policies=[ROOT / "policies"]) as made:
        yield made
