# SPDX-License-Identifier: Apache-2.0
"""What `ringfence agent --uninstall` removes of the state that agents write, and what it leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence.config import Config, load
from ringfence.daemon.startup import handover
from ringfence.daemon.startup.lock import Lock
from ringfence.daemon.startup.uninstall import uninstall
from ringfence.daemon.tracking.enrolment_store import EnrolmentStore
from ringfence.errors import AlreadyRunningError, NotPermittedError
from ringfence.export.sinks.outbox import outbox_of
from ringfence.policy import rulebook


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of an agent; the user of the test counts as root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path / "state"


def configured(state: Path, **words: str) -> Config:
    """No bpffs is mounted where this one has its pins."""
    file = state.parent / "agent.yaml"
    file.write_text("{}\n")
    chosen = {
        "socket": str(state / "agent.sock"),
        "state_dir": str(state),
        "pins": str(state.parent / "pins"),
        "alerts.file": str(state.parent / "alerts.jsonl"),
        **words,
    }
    return load(file, {}, {key: [value] for key, value in chosen.items()})


def fill(config: Config) -> None:
    """Leave what an agent leaves that was killed at its work."""
    state = config.state_dir
    state.mkdir()
    for path in (config.socket, config.enroll_socket, state / handover.FILE, state / rulebook.FILE):
        path.touch()
    (state / f"{handover.FILE}.new").touch()
    (state / f"{rulebook.FILE}.new").touch()
    EnrolmentStore(config.enrolments_dir).keep_file("a:b", "policy", b"text")
    (config.workshop_dir / "headers").mkdir(parents=True)
    outbox_of(config, lambda name, text: None).close()
    assert config.enrolments_dir.is_dir()
    assert list(config.queue_dir.iterdir())


def test_nothing_stays(state: Path) -> None:
    """Not even the directory. Twice is once."""
    config = configured(state)
    fill(config)
    assert uninstall(config) == ["nothing was pinned", "sockets and state removed"]
    assert not state.exists()
    assert uninstall(config) == ["nothing was pinned", "sockets and state removed"]


def test_what_is_not_ours_stays(state: Path, tmp_path: Path) -> None:
    """A foreign file beside the state, and a queue in a directory that the operator
    chose.
    """
    config = configured(state, **{"alerts.queue_dir": str(tmp_path / "queue")})
    fill(config)
    (state / "mine").touch()
    assert f"{tmp_path}/queue was kept: alerts may wait in it" in uninstall(config)
    assert [path.name for path in state.iterdir()] == ["mine"]
    assert list((tmp_path / "queue").iterdir())


def test_a_running_agent_refuses(state: Path) -> None:
    """What it uses stays."""
    config = configured(state)
    fill(config)
    lock = Lock(state)
    with pytest.raises(AlreadyRunningError):
        uninstall(config)
    lock.close()
    assert config.enroll_socket.exists()


def test_it_is_for_root(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others could remove half of it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotPermittedError):
        uninstall(configured(state))
