# SPDX-License-Identifier: Apache-2.0
"""Shared by tests of hostile bundles: a directory
that no container may reach, names that are swapped.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.conftest import Box

__all__ = ["bind", "outside", "swapping"]


def bind(box: Box, source: Path, destination: str, *options: str) -> None:
    """Add a bind mount."""
    box.config["mounts"].append(
        {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}
    )


@contextlib.contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """A process that keeps exchanging two names."""
    swap = (
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\nprint(flush=True)\n"
        "while True: libc.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2)\n"
    )
    command = ["/usr/bin/python3", "-c", swap, str(one), str(other)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        try:
            yield
        finally:
            swapper.kill()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that no container may reach."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "victim").write_text("untouched")
    return path
