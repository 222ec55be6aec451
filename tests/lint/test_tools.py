# SPDX-License-Identifier: Apache-2.0
"""The linters, run as tests: what one of them says is the failure's text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lint.files import ROOT, files, shell_scripts
from tests.support import force

BIN = Path(sys.executable).parent


def tool(name: str) -> str:
    """A tool of the virtual environment, else of the machine."""
    own = BIN / name
    return str(own) if own.exists() else force.need_program(name)


def check(*argv: str) -> None:
    """Run a tool in the project's root; its complaints become the failure."""
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    got = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.fail(f"{' '.join(argv[:4])}:\n{(got.stdout + got.stderr)[-6000:]}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    """ruff check, with the rules of pyproject.toml."""
    check(tool("ruff"), "check", "--quiet", ".")


def test_python_is_formatted() -> None:
    """ruff format would change nothing."""
    check(tool("ruff"), "format", "--check", "--quiet", ".")


def test_types_hold() -> None:
    """mypy --strict over agent, runtime, tests and tools."""
    check(tool("mypy"), "--no-error-summary")


def test_imports_go_one_way() -> None:
    """The contracts of import-linter: the layers, and a runtime that knows nothing of the agent."""
    check(tool("lint-imports"), "--no-cache")


def test_c_is_formatted() -> None:
    """clang-format would change nothing."""
    check(tool("clang-format"), "--dry-run", "-Werror", *map(str, files(".c", ".h")))


def test_shell_scripts_are_sound() -> None:
    """shellcheck has nothing to say."""
    scripts = shell_scripts()
    assert Path("tools/deps") in scripts
    check(force.need_program("shellcheck"), *map(str, scripts))
