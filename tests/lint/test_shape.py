# SPDX-License-Identifier: Apache-2.0
"""What no linter checks: sizes, licences, and that the runtime needs nothing beside the standard library."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lint.files import ROOT, files, shell_scripts

MOST_LINES = 600
MOST_FUNCTION_LINES = 40
SOURCE = (".py", ".c", ".h", ".sh")
GENERATED = {Path("agent/ringfence/abi/generated.py"), Path("agent/ringfence/abi/records.py")}  # tools/abi.py
SPDX_PYTHON = "SPDX-License-Identifier: Apache-2.0"
SPDX_PROBES = "SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause"


def python_files(*roots: str) -> list[Path]:
    """Python files below some of the project's directories."""
    return [path for path in files(".py") if path.parts[0] in roots]


def test_files_are_of_one_subject() -> None:
    """No source file that is written by hand has more than 600 lines."""
    lengths = {
        path: len((ROOT / path).read_text().splitlines()) for path in files(*SOURCE) if path not in GENERATED
    }
    assert not [f"{path}: {count}" for path, count in lengths.items() if count > MOST_LINES]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and line count of each function's body, its docstring left out."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) else node.body
            if body:
                yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1


def test_functions_are_short() -> None:
    """No function of the product has a body of more than 40 lines."""
    long = [
        f"{path}: {name}: {lines} lines"
        for path in python_files("agent", "runtime", "tools")
        for name, lines in functions(path)
        if lines > MOST_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("kind", ["python", "probes", "scripts"])
def test_every_file_says_its_licence(kind: str) -> None:
    """The SPDX line comes first, or second after `#!`."""
    expected = SPDX_PROBES if kind == "probes" else SPDX_PYTHON
    chosen = {
        "python": files(".py"),
        "probes": [path for path in files(".c", ".h") if path.parts[0] == "probes"],
        "scripts": shell_scripts(),
    }[kind]
    wrong = [path for path in chosen if expected not in first_lines(path)]
    assert not wrong, f"no line with {expected!r} first in: {', '.join(map(str, wrong))}"


def first_lines(path: Path) -> str:
    """The first line of a file, or its first two where it begins with `#!`."""
    with (ROOT / path).open() as file:
        first = file.readline()
        return first + file.readline() if first.startswith("#!") else first


def test_the_runtime_needs_only_the_standard_library() -> None:
    """It must start fast and be easy to audit: every import is of Python itself or of the runtime."""
    allowed = {*sys.stdlib_module_names, "ringfence_runtime"}
    wrong = [
        f"{path}:{line}: {name}"
        for path in python_files("runtime")
        for name, line in imports(path)
        if name.partition(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Names and lines of all that a file imports from outside its own package."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or "", node.lineno


def test_ctypes_stays_in_one_package() -> None:
    """ctypes is imported only by the agent's private modules below bpf/, whose functions raise OSError."""
    users = [path for path in python_files("agent") if "ctypes" in {name for name, _ in imports(path)}]
    assert users
    strangers = [
        path for path in users if path.parts[:3] != ("agent", "ringfence", "bpf") or path.name[0] != "_"
    ]
    assert not strangers


def test_documents_point_at_files_that_exist() -> None:
    """A relative link of a Markdown file leads to a file of the project."""
    broken = []
    for path in files(".md"):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / path).read_text()):
            if "://" not in target and not (ROOT / path.parent / target).exists():
                broken.append(f"{path}: {target}")
    assert not broken, "\n".join(broken)
