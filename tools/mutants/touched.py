# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: which tests execute which lines of some source files.

`python -m pytest -p tools.mutants.touched`; TOUCHED_SOURCES has the directories, separated by colons,
and TOUCHED_FILE is written at the end: JSON, file -> line -> tests.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

__all__ = ["Lines", "pytest_configure", "read"]

Lines = dict[str, dict[int, list[str]]]


class _Touched:
    def __init__(self, sources: str, file: Path) -> None:
        self._sources, self._file = tuple(sources.split(":")), file
        self._lines: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._seen: set[tuple[str, int]] = set()

    def _global(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename.startswith(self._sources):
            self._seen.add((frame.f_code.co_filename, frame.f_lineno))
            return self._local
        return None

    def _local(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self._seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self._local

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """One test, with its fixtures."""
        self._seen = set()
        threading.settrace(self._global)
        sys.settrace(self._global)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            for file, line in self._seen:
                self._lines[file][line].append(item.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write what was seen."""
        self._file.write_text(json.dumps(self._lines))


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin if it was asked for."""
    if sources := os.environ.get("TOUCHED_SOURCES"):
        config.pluginmanager.register(_Touched(sources, Path(os.environ["TOUCHED_FILE"])))


def read(file: Path, root: Path) -> Lines:
    """Returns the tests by file, relative to `root`, and line."""
    found = json.loads(file.read_text())
    return {
        str(Path(name).relative_to(root)): {int(line): tests for line, tests in lines.items()}
        for name, lines in found.items()
    }
