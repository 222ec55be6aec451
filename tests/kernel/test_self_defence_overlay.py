# SPDX-License-Identifier: Apache-2.0
"""The self-defence of an agent whose directories are on an overlay."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benign.machine import overlaid
from tests.support.agent import running_agent
from tests.support.cgroups import new_cgroup
from tests.support.policies import USERNS

pytestmark = pytest.mark.root
_FILES, _DIRECTORIES = 64, 24


def test_a_file_is_not_taken_for_a_guarded_directory_of_the_same_number(tmp_path: Path) -> None:
    """An overlay on several filesystems counts its directories, and files have their own layer's numbers."""
    lower, policies = tmp_path / "lower", tmp_path / "policies"
    for path in (lower, policies):
        path.mkdir()
    (policies / "userns.yaml").write_text(USERNS)
    with overlaid(lower, tmp_path / "overlay", "16m", "xino=off") as root:
        files = [root / f"file-{number}" for number in range(_FILES)]
        for file in files:
            file.touch()
        state = root.joinpath(*["directory"] * _DIRECTORIES)
        state.mkdir(parents=True)
        twin = next(file for file in files if file.stat().st_ino == state.stat().st_ino)
        flags = {"state-dir": str(state)}
        with (
            running_agent(tmp_path / "agent", policies=[policies], flags=flags) as agent,
            new_cgroup("overlay") as cgroup,
        ):
            own = next(path for path in state.iterdir() if path.is_file())
            assert cgroup.run(["/bin/sh", "-c", f"echo > {twin}"]).returncode == 0
            assert agent.alerts() == []
            assert cgroup.run(["/bin/sh", "-c", f"echo > {own}"], capture_output=True).returncode != 0
