# SPDX-License-Identifier: Apache-2.0
"""Programs of the kernel tests, compiled once per
run, and the real probes, loaded once per module.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.probes import LABEL, Probes, running
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup


@pytest.fixture(scope="module")
def probes(request: pytest.FixtureRequest) -> Iterator[Probes]:
    """Probes without a rule. A module's PROBES, or a parameter, are the arguments of `running`."""
    with running(**getattr(request.module, "PROBES", {}), **getattr(request, "param", {})) as made:
        yield made


@pytest.fixture
def cgroup(probes: Probes) -> Iterator[Cgroup]:
    """A container that the probes enroll."""
    with new_cgroup(LABEL) as made:
        yield made


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


@pytest.fixture(scope="session")
def act(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of fixtures/act.c, compiled: what the probe tests do inside of containers."""
    return _compiled(tmp_path_factory, "act")


@pytest.fixture(scope="session")
def evade(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of fixtures/evade.c, compiled: ways to a file other than by its name."""
    return _compiled(tmp_path_factory, "evade")


@pytest.fixture(scope="session")
def dodge(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of fixtures/dodge.c, compiled: calls whose arguments the probes could misread."""
    return _compiled(tmp_path_factory, "dodge", "-static")


@pytest.fixture(scope="session")
def tamper(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of fixtures/tamper.c, compiled: what containers try against the agent."""
    return _compiled(tmp_path_factory, "tamper")


@pytest.fixture(scope="session")
def names(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of fixtures/names.c, compiled: what can be done to the names of files."""
    return _compiled(tmp_path_factory, "names")


@pytest.fixture(scope="session")
def probe_act(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of fixtures/probe_act.c, compiled: what the tests of custom probes do inside of containers."""
    return _compiled(tmp_path_factory, "probe_act", "-static")


def _compiled(factory: pytest.TempPathFactory, name: str, *options: str) -> str:
    source = Path(__file__).parent / "fixtures" / f"{name}.c"
    program = factory.mktemp(name) / name
    words = ["-O1", "-Wall", *options, "-o", str(program), str(source), "-lpthread"]
    subprocess.run([force.need_program("gcc"), *words], check=True)
    return str(program)
