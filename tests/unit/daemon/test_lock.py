# SPDX-License-Identifier: Apache-2.0
"""One agent a node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence.daemon.startup.lock import Lock
from ringfence.errors import AlreadyRunningError, Error


def test_the_second_agent_gets_the_holders_pid(tmp_path: Path) -> None:
    """The error names the pid, and its exit code is 5."""
    lock = Lock(tmp_path / "state")
    lock.sign()
    with pytest.raises(AlreadyRunningError, match=f"pid {os.getpid()}") as caught:
        Lock(tmp_path / "state")
    assert caught.value.exit_code == 5
    lock.close()


def test_it_is_free_again_after_close(tmp_path: Path) -> None:
    """Also where the old pid is longer than the new one's text."""
    Lock(tmp_path).close()
    (tmp_path / "agent.lock").write_text("4194304999999\n")
    lock = Lock(tmp_path)
    lock.sign()
    assert (tmp_path / "agent.lock").read_text() == f"{os.getpid()}\n"
    lock.close()


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    """A lock file that points elsewhere would have that file overwritten."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "agent.lock").symlink_to(victim)
    with pytest.raises(Error):
        Lock(tmp_path)
    assert victim.read_text() == "precious"
