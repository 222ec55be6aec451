# SPDX-License-Identifier: Apache-2.0
"""Unit tests need no machine: none may look at the state of the agent or the engines that run on this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ringfence.config  # noqa: F401 (its modules are changed below, before any test module loads a configuration)

for _module in ("ringfence.config.model", "ringfence.config.load"):
    vars(sys.modules[_module])["DEFAULT_FILE"] = Path("/nonexistent/ringfence/agent.yaml")

#: where agents and container engines keep their state
STATE = (
    "/run/",
    "/var/run/",
    "/var/lib/ringfence",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/etc/ringfence",
)
_seen: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what a test opens, lists or connects to below STATE (sys.addaudithook)."""
    if event in ("open", "os.listdir", "os.scandir"):
        path = arguments[0]
    elif event == "socket.connect":
        path = arguments[1]
    else:
        return
    if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(STATE):
        _seen.append(f"{event} {os.fsdecode(path)}")


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def _no_state_of_this_machine() -> Iterator[None]:
    """A test that looks there fails, also where nothing is found."""
    _seen.clear()
    yield
    assert not _seen, "a unit test looks at this machine's state"
