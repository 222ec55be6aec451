# SPDX-License-Identifier: Apache-2.0
"""How the parts of the daemon are put together: by constructors, and with few arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lint.files import ROOT, files

DAEMON = Path("agent/ringfence/daemon")
MOST_ARGUMENTS = 7
OWN = ("self", "cls")


def late_assignments(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each assignment to an attribute of another object, setattr included. There are no
    exceptions: an object that has a state changes it in a method of its own.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "setattr":
                yield node.lineno, ast.unparse(node)
            if isinstance(node.func, ast.Attribute) and node.func.attr == "__setattr__":
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            if not (isinstance(node.value, ast.Name) and node.value.id in OWN):
                yield node.lineno, ast.unparse(node)


def wide_constructors(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each class whose constructor has more than MOST_ARGUMENTS arguments beside `self`."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        for made in node.body:
            if isinstance(made, ast.FunctionDef) and made.name == "__init__":
                arguments = made.args
                named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                if len(named) - 1 > MOST_ARGUMENTS or arguments.vararg or arguments.kwarg:
                    yield made.lineno, node.name


def daemon_files() -> list[Path]:
    """The modules of the daemon."""
    return [path for path in files(".py") if path.is_relative_to(DAEMON)]


def test_no_part_is_wired_after_its_construction() -> None:
    """No module of the daemon assigns to an attribute of another object: its constructor takes it."""
    late = [
        f"{path}:{line}: {text}"
        for path in daemon_files()
        for line, text in late_assignments((ROOT / path).read_text())
    ]
    assert not late, "\n".join(late)


def test_constructors_take_few_arguments() -> None:
    """What is passed together is one frozen value (ringfence.daemon.parts)."""
    wide = [
        f"{path}:{line}: {name}"
        for path in daemon_files()
        for line, name in wide_constructors((ROOT / path).read_text())
    ]
    assert not wide, "\n".join(wide)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("self.a = 1", []),
        ("def f(self, desk): desk.emit = self.emit", ["desk.emit"]),
        ("self.desk.emit = print", ["self.desk.emit"]),
        ("a.b, self.c = 1, 2", ["a.b"]),
        ("part.count += 1", ["part.count"]),
        ("del part.count", ["part.count"]),
        ("with open(x) as part.file: pass", ["part.file"]),
        ("setattr(part, 'x', 1)", ["setattr(part, 'x', 1)"]),
        ("object.__setattr__(part, 'x', 1)", ["object.__setattr__(part, 'x', 1)"]),
        ("part[0] = part.x", []),
    ],
)
def test_the_check_finds_late_assignments(source: str, found: list[str]) -> None:
    """Plain, nested, in a tuple, augmented, deleted, in `with`, and by setattr."""
    assert [text for _, text in late_assignments(source)] == found


def test_the_check_finds_wide_constructors() -> None:
    """Keyword-only arguments count, and stars would hide any number; other functions are free."""
    seven, eight = (", ".join(f"a{n}" for n in range(count)) for count in (7, 8))
    for arguments, found in (
        (seven, []),
        (eight, ["A"]),
        (f"*, {eight}", ["A"]),
        ("*parts", ["A"]),
        ("**parts", ["A"]),
    ):
        source = f"class A:\n def __init__(self, {arguments}): ...\n def f(self, {eight}): ..."
        assert [name for _, name in wide_constructors(source)] == found
