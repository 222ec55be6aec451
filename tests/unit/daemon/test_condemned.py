# SPDX-License-Identifier: Apache-2.0
"""What is left of a condemned container is killed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.daemon.defence.condemned import kill_cgroup


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process."""
    with subprocess.Popen(["sleep", "60"]) as made:
        yield made
        made.kill()


def test_a_cgroup_of_version_2_is_killed_as_a_whole(tmp_path: Path) -> None:
    """By the kernel: no process is looked for."""
    (tmp_path / "cgroup.kill").write_text("")
    kill_cgroup(tmp_path)
    assert (tmp_path / "cgroup.kill").read_text() == "1"


def test_elsewhere_each_process_is_killed(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """Also those below; numbers without a process are passed over."""
    (tmp_path / "cgroup.kill").mkdir()  # cannot be written
    (tmp_path / "below").mkdir()
    (tmp_path / "cgroup.procs").write_text("4194304\n")
    (tmp_path / "below" / "cgroup.procs").write_text(f"{sleeper.pid}\n")
    kill_cgroup(tmp_path)
    assert sleeper.wait(10) == -9


def test_a_cgroup_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """Nothing is left to be killed."""
    kill_cgroup(tmp_path / "gone")
