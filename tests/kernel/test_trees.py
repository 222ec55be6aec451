# SPDX-License-Identifier: Apache-2.0
"""Files of the host where nothing can be refused: the process is killed when the open is done."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import TREE_GIVEN, TREE_HOME
from tests.kernel.probes import Probes
from tests.kernel.trees import host_rule, register
from tests.support.cgroups import Cgroup

pytestmark = pytest.mark.root
READ, WRITE = os.O_RDONLY, os.O_WRONLY


@pytest.fixture(autouse=True)
def reset(probes: Probes) -> Iterator[None]:
    """Remove the trees after each test."""
    yield
    probes.kernel.map("host_trees").delete_all()


def opened(cgroup: Cgroup, act: str, path: Path, flags: int) -> int:
    """Opens the file in the container. Returns the exit code, or the negative signal."""
    return cgroup.run([act, f"open:{path}:{flags}"], stdout=subprocess.DEVNULL).returncode


@pytest.mark.parametrize(
    ("path", "flags", "code"),
    [
        ("etc/passwd", WRITE, -signal.SIGKILL),
        ("etc/passwd", READ, 0),
        ("etc/passwd", READ | os.O_TRUNC, -signal.SIGKILL),
        ("etc/new", WRITE | os.O_CREAT, -signal.SIGKILL),
        ("volumes/data", WRITE, 0),
        ("volumes/deep/er/data", os.O_RDWR, 0),
        ("me/.profile", WRITE, -signal.SIGKILL),
        ("me/project/data", WRITE, 0),
    ],
)
def test_an_open_for_writing_is_killed_among_the_hosts_files(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path, path: str, flags: int, code: int
) -> None:
    """By the directory that the file is in; the control is the same open without the rule."""
    for name in ("etc/passwd", "volumes/data", "volumes/deep/er/data", "me/.profile", "me/project/data"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    register(probes, tmp_path, {tmp_path / "volumes": TREE_GIVEN, tmp_path / "me": TREE_HOME})
    assert opened(cgroup, act, tmp_path / path, flags) == 0
    probes.enforce(host_rule("kill"))
    assert opened(cgroup, act, tmp_path / path, flags) == code
