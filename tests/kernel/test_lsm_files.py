# SPDX-License-Identifier: Apache-2.0
"""Files at LSM hooks: refused before the effect, with the record that the weaker tiers write.

Each refusal has its control: the same act without the rule.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import Action, EventKind, Mechanism
from tests.kernel.probes import LABEL, Probes, results, running
from tests.kernel.rules import Rule, name_hash
from tests.support.cgroups import Cgroup, new_cgroup

pytestmark = pytest.mark.root
K = EventKind
NAME = 3  # operand of file.open


@pytest.fixture(scope="module")
def probes() -> Iterator[Probes]:
    """Probes at every LSM hook, without a rule."""
    with running(lsm=True) as made:
        yield made


@pytest.fixture(autouse=True)
def quiet_again(probes: Probes) -> Iterator[None]:
    """What one test enforces and observes ends with it."""
    yield
    probes.enforce()
    probes.observe()


@pytest.fixture
def cgroup(probes: Probes) -> Iterator[Cgroup]:
    """A container that the probes enroll."""
    with new_cgroup(LABEL) as made:
        yield made


def run(cgroup: Cgroup, act: str, *commands: str) -> dict[str, int]:
    """What the commands of act.c came to, armed in the container. They end by themselves."""
    done: subprocess.CompletedProcess[bytes] = cgroup.run([act, *commands], capture_output=True)
    assert done.returncode == 0, done
    return results(done)


def named(name: str, action: str = "deny") -> Rule:
    """A rule on opens of files of that name."""
    return Rule(K.FILE_OPEN, action, {NAME: {name_hash(name.encode())}})


def test_an_open_is_refused_before_its_effect(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """EPERM, the process lives on, O_TRUNC has emptied nothing; the record says what was refused, by what."""
    secret = tmp_path / "secret"
    secret.write_text("kept")
    command = f"open:{secret}:{os.O_WRONLY | os.O_TRUNC}"
    probes.enforce(named("secret"))
    assert run(cgroup, act, command) == {"open": -errno.EPERM}
    assert secret.read_text() == "kept"
    (event,) = probes.wait(cgroup, K.FILE_OPEN)
    assert (event.action, event.mechanism) == (Action.DENY, Mechanism.LSM)
    assert (event.inode, event.path.endswith(b"/secret")) == (secret.stat().st_ino, True)
    probes.enforce()
    assert run(cgroup, act, command)["open"] >= 0
    assert secret.read_text() == ""


def test_a_host_process_is_never_refused(probes: Probes, tmp_path: Path) -> None:
    """The rules are about containers."""
    (tmp_path / "secret").write_text("x")
    probes.enforce(named("secret"))
    assert (tmp_path / "secret").read_text() == "x"
