# SPDX-License-Identifier: Apache-2.0
"""The C programs of the kernel tests, compiled once per run, and the probes, loaded per module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.enforcer import Enforcer
from tests.kernel.looks import Holder, holding
from tests.kernel.probes import LABEL, Probes, running
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.scenes import program_fixture


class _Kept:
    """Probes that stay loaded for the next module: loading them takes a minute in a guest."""

    def __init__(self) -> None:
        self.next_item: pytest.Item | None = None
        self._stack = contextlib.ExitStack()
        self._made: Probes | None = None
        self._arguments: dict[str, Any] = {}

    def take(self, arguments: dict[str, Any]) -> Probes:
        """Probes that were loaded with these arguments of `running`."""
        if self._made is None or arguments != self._arguments:
            self.close()
            self._made, self._arguments = self._stack.enter_context(running(**arguments)), arguments
        return self._made

    def release(self) -> None:
        """Unload them, but if the next test needs the same."""
        if self.next_item is None or _arguments_of(self.next_item) != self._arguments:
            self.close()

    def close(self) -> None:
        """Unload them."""
        self._stack.close()
        self._made = None


_KEPT = _Kept()


def _arguments_of(item: pytest.Item) -> dict[str, Any] | None:
    """The arguments of its `probes`; None: it has none, or its module has a fixture of that name."""
    if not isinstance(item, pytest.Function) or "probes" not in item.fixturenames:
        return None
    if hasattr(item.module, "probes") or Path(__file__).parent != item.path.parent:
        return None
    callspec = getattr(item, "callspec", None)
    given = callspec.params.get("probes", {}) if callspec else {}
    return {**getattr(item.module, "PROBES", {}), **given}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Known before fixtures are torn down."""
    _KEPT.next_item = nextitem


@pytest.fixture(scope="module")
def probes(request: pytest.FixtureRequest) -> Iterator[Probes]:
    """Probes without a rule. A module's PROBES, or a parameter, are the arguments of `running`."""
    made = _KEPT.take({**getattr(request.module, "PROBES", {}), **getattr(request, "param", {})})
    try:
        made.calm()
        yield made
    finally:
        _KEPT.release()


@pytest.fixture(scope="module")
def enforcer() -> Iterator[Enforcer]:
    """One set of probes for the module; each test puts its own policies in force."""
    with running() as probes:
        yield Enforcer(probes)


@pytest.fixture
def cgroup(probes: Probes) -> Iterator[Cgroup]:
    """A container that the probes enroll."""
    with new_cgroup(LABEL) as made:
        assert probes.is_enrolled(made), "no slot is free"
        yield made


@pytest.fixture(scope="module")
def stranger() -> Iterator[Holder]:
    """A process of the host."""
    with holding() as made:
        yield made


@pytest.fixture
def by_hook(request: pytest.FixtureRequest) -> bool:
    """True if hooks of BPF-LSM decide: for tests that run both ways."""
    return bool(request.node.callspec.params["probes"].get("lsm"))


@pytest.fixture(autouse=True)
def _reset_probes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reset rules and observation after each test."""
    yield
    if "probes" in request.fixturenames and isinstance(made := request.getfixturevalue("probes"), Probes):
        made.calm()


@pytest.fixture(scope="module")
def in_a_machine() -> None:
    """For tests that change the whole kernel."""
    if not force.in_guest():
        force.elsewhere("changes the kernel itself: in virtual machines only")


_FIXTURES = Path(__file__).parent / "fixtures"
#: the actions of the probe tests in containers
act = program_fixture(_FIXTURES / "act.c")
#: ways to a file other than by its name
evade = program_fixture(_FIXTURES / "evade.c")
#: takes what a killed caller has opened
heir = program_fixture(_FIXTURES / "heir.c")
#: calls with arguments that the probes could misread
dodge = program_fixture(_FIXTURES / "dodge.c", "-static")
#: any 32-bit system call of a 64-bit program
narrow = program_fixture(_FIXTURES / "narrow.c")
#: attacks of a container on the agent
tamper = program_fixture(_FIXTURES / "tamper.c")
#: operations on the names of files
names = program_fixture(_FIXTURES / "names.c", "-static")
#: the actions of the custom probes' tests in containers
probe_act = program_fixture(_FIXTURES / "probe_act.c", "-static")
