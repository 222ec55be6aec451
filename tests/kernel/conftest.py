# SPDX-License-Identifier: Apache-2.0
"""The C programs of the kernel tests, compiled once per run, and the probes, loaded per module."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.enforcer import Enforcer
from tests.kernel.probes import LABEL, Probes, running
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup


@pytest.fixture(scope="module")
def probes(request: pytest.FixtureRequest) -> Iterator[Probes]:
    """Probes without a rule. A module's PROBES, or a parameter, are the arguments of `running`."""
    with running(**getattr(request.module, "PROBES", {}), **getattr(request, "param", {})) as made:
        yield made


@pytest.fixture(scope="module")
def enforcer() -> Iterator[Enforcer]:
    """One set of probes for the module; each test puts its own policies in force."""
    with running() as probes:
        yield Enforcer(probes)


@pytest.fixture
def cgroup(probes: Probes) -> Iterator[Cgroup]:
    """A container that the probes enroll."""
    with new_cgroup(LABEL) as made:
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


def _program(name: str, *options: str) -> Any:
    """Returns a fixture: the path of fixtures/NAME.c, compiled once per run."""

    @pytest.fixture(scope="session", name=name)
    def program(tmp_path_factory: pytest.TempPathFactory) -> str:
        source = Path(__file__).parent / "fixtures" / f"{name}.c"
        made = tmp_path_factory.mktemp(name) / name
        words = ["-O1", "-Wall", *options, "-o", str(made), str(source), "-lpthread"]
        subprocess.run([force.need_program("gcc"), *words], check=True)
        return str(made)

    return program


#: the actions of the probe tests in containers
act = _program("act")
#: ways to a file other than by its name
evade = _program("evade")
#: calls with arguments that the probes could misread
dodge = _program("dodge", "-static")
#: any 32-bit system call of a 64-bit program
narrow = _program("narrow")
#: attacks of a container on the agent
tamper = _program("tamper")
#: operations on the names of files
names = _program("names")
#: the actions of the custom probes' tests in containers
probe_act = _program("probe_act", "-static")
