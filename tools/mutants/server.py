# SPDX-License-Identifier: Apache-2.0
"""Runs pytest for one defect after the other, in children of a process that has imported its libraries.

`python -m tools.mutants.server`, in a copy of the tree. Each line of the input is JSON: [arguments of pytest,
seconds]; each line of the output is an Outcome. Nothing that a defect can be in is imported here.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from tools.mutants.forked import Outcome, Watch, forked, run_pytest

__all__ = ["Server"]

_LIBRARIES = (
    "asyncio", "hypothesis", "hypothesis.strategies", "jsonschema", "prometheus_client", "unittest.mock",
    "xml.etree.ElementTree", "yaml",
)  # fmt: skip


class Server:
    """The other end: a process in a copy of the tree."""

    def __init__(self, root: Path, variables: Mapping[str, str]) -> None:
        self.root = root
        argv = [sys.executable, "-m", "tools.mutants.server"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, cwd=root, env=variables, stdin=pipe, stdout=pipe, text=True)

    def run(self, words: Sequence[str], seconds: float) -> Outcome:
        """Runs pytest with these arguments."""
        entry, answers = self._process.stdin, self._process.stdout
        assert entry is not None
        assert answers is not None
        entry.write(json.dumps([words, seconds]) + "\n")
        entry.flush()
        return Outcome(*json.loads(answers.readline()))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def _tests(words: Sequence[str]) -> tuple[int | str, str, int]:
    sys.dont_write_bytecode = "tools.mutants.touched" not in words  # what has a defect has none
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    watch = Watch()
    return run_pytest([*words, "--tb=no"], watch), watch.failed, watch.ran


def main() -> int:
    """Serves until the end of the input. Returns 0."""
    for library in _LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(library)
    for line in sys.stdin:
        words, seconds = json.loads(line)
        print(json.dumps(forked(partial(_tests, words), seconds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
