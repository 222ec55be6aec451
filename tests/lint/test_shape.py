# SPDX-License-Identifier: Apache-2.0
"""What no linter checks: sizes, licences, what a package may import."""

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
SOURCE = (".py", ".c", ".h", ".sh", ".js", ".css")
NAMED_TUPLE = ("_asdict", "_fields", "_make", "_replace")  # public in spite of their names
PACKAGES = ("ringfence", "ringfence_linux", "ringfence_runtime")
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


@pytest.mark.parametrize(
    ("package", "others"), [("ringfence_runtime", ("ringfence_linux",)), ("ringfence_linux", ())]
)
def test_the_runtime_needs_only_the_standard_library(package: str, others: tuple[str, ...]) -> None:
    """It must start fast and be easy to audit; the Linux layer is below it."""
    allowed = {*sys.stdlib_module_names, package, *others}
    chosen = [path for path in python_files("runtime") if path.parts[1] == package]
    assert chosen
    wrong = [
        f"{path}:{line}: {name}"
        for path in chosen
        for name, line in imports(path)
        if name.partition(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_no_package_uses_the_private_names_of_another() -> None:
    """`_name` of a package, module or attribute is used only inside the package that has it."""
    wrong = [
        f"{path}:{line}: {name}"
        for path in python_files("agent", "runtime", "tools")
        for name, line in private_uses(path)
    ]
    assert not wrong, "\n".join(wrong)


def private_uses(path: Path) -> Iterator[tuple[str, int]]:
    """Private names of other packages of the project that a file imports, or reads from what it imports."""
    own = ".".join(path.parts[1:-1] if path.parts[0] != "tools" else path.parts[:-1])
    modules: dict[str, str] = {}
    tree = ast.parse((ROOT / path).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES:
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if is_private(f"{node.module}.{alias.name}", own):
                    yield f"{node.module}.{alias.name}", node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{modules.get(node.value.id, '')}.{node.attr}"
            if not name.startswith(".") and is_private(name, own):
                yield name, node.lineno


def is_private(name: str, own: str) -> bool:
    """Returns True if a part of the dotted name is private to a package that `own` is not in."""
    parts = name.split(".")
    private = [
        at
        for at, part in enumerate(parts)
        if part.startswith("_") and not part.startswith("__") and part not in NAMED_TUPLE
    ]
    return any(not f"{own}.".startswith(f"{'.'.join(parts[:at])}.") for at in private)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Names and lines of all that a file imports from outside its own package."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or "", node.lineno


def test_ctypes_stays_in_one_package() -> None:
    """ctypes is imported by ringfence_linux.syscalls, and by the private modules of the agent's bpf/."""
    users = {
        path for path in python_files("agent", "runtime") if "ctypes" in {name for name, _ in imports(path)}
    }
    shared = Path("runtime/ringfence_linux/syscalls.py")
    assert shared in users
    others = [
        path
        for path in users - {shared}
        if path.parts[:3] != ("agent", "ringfence", "bpf") or path.name[0] != "_"
    ]
    assert not others


def test_documents_point_at_files_that_exist() -> None:
    """A relative link of a Markdown file leads to a file of the project."""
    broken = []
    for path in files(".md"):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / path).read_text()):
            if "://" not in target and not (ROOT / path.parent / target).exists():
                broken.append(f"{path}: {target}")
    assert not broken, "\n".join(broken)


def test_documents_point_at_headings_that_exist() -> None:
    """The fragment of a relative link is a heading of that page, spelled as the web view does."""
    broken = []
    for path in files(".md"):
        for target, heading in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", (ROOT / path).read_text()):
            page = ROOT / path.parent / target if target else ROOT / path
            if "://" not in target and heading not in headings(page):
                broken.append(f"{path}: {target}#{heading}")
    assert not broken, "\n".join(broken)


def headings(page: Path) -> set[str]:
    """The anchors of a Markdown file: its headings in small letters, with hyphens for spaces."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
