# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: which tests execute which lines of some source files.

`python -m pytest -p tools.mutants.touched`: the sources are separated by colons, and the file is written
at the end: JSON, file -> line -> tests. What runs at an import has the test IMPORT as well.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

__all__ = ["IMPORT", "Lines", "pytest_addoption", "pytest_load_initial_conftests", "read"]

IMPORT = "import"

Lines = dict[str, dict[int, list[str]]]

#: calls of a function that one test is watched for: a line that comes later is not noted
_CALLS = 64


class _Touched:
    def __init__(self, sources: str, file: Path) -> None:
        self._sources, self._file = tuple(sources.split(":")), file
        self._lines: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._failed: set[str] = set()
        self._left: dict[CodeType, set[int]] = {}  # lines that this test has not executed
        self._calls: Counter[CodeType] = Counter()

    def _global(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(self._sources):
            return None
        left = self._left.get(code)
        if left is None:
            left = self._left[code] = {line for *_, line in code.co_lines() if line}
        left.discard(frame.f_lineno)
        self._calls[code] += 1
        # What was seen whole, or often enough, costs no more time.
        return self._local if left and self._calls[code] <= _CALLS else None

    def _local(self, frame: FrameType, event: str, argument: object) -> Any:
        left = self._left[frame.f_code]
        left.discard(frame.f_lineno)
        return self._local if left else None

    def _executed(self) -> set[tuple[str, int]]:
        return {
            (code.co_filename, line)
            for code, left in self._left.items()
            for *_, line in code.co_lines()
            if line and line not in left
        }

    def start(self) -> None:
        """Begin to note lines."""
        self._left = {}
        self._calls.clear()
        threading.settrace(self._global)
        sys.settrace(self._global)

    def stop(self, test: str) -> None:
        """Note the lines since the beginning as a test's."""
        sys.settrace(None)
        threading.settrace(None)
        for file, line in self._executed():
            self._lines[file][line].append(test)

    def pytest_collection_finish(self) -> None:
        """All modules are imported."""
        self.stop(IMPORT)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """One test, with its fixtures."""
        self.start()
        try:
            return (yield)
        finally:
            self.stop(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure: tests of time fail where they are watched, and judge nothing."""
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write what was seen."""
        for lines in self._lines.values():
            for line, tests in lines.items():
                lines[line] = [test for test in tests if test not in self._failed]
        self._file.write_text(json.dumps(self._lines))


def pytest_addoption(parser: pytest.Parser) -> None:
    """What is noted, and where."""
    parser.addoption("--touched-sources", required=True)
    parser.addoption("--touched-file", type=Path, required=True)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Begin before anything is imported."""
    words = early_config.known_args_namespace
    touched = _Touched(words.touched_sources, words.touched_file)
    early_config.pluginmanager.register(touched)
    touched.start()


def read(file: Path, root: Path) -> Lines:
    """Returns the tests by file, relative to `root`, and line."""
    found = json.loads(file.read_text())
    return {
        str(Path(name).relative_to(root)): {int(line): tests for line, tests in lines.items()}
        for name, lines in found.items()
    }
