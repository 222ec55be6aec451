# SPDX-License-Identifier: Apache-2.0
"""The table of defects fits the sources: an entry that applies nowhere checks nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.mutants.python_mutants import apply, mutants_of
from tools.mutants.table import Mutant, load, problems

LEAST = 120


def test_every_defect_still_applies() -> None:
    """Its text occurs exactly once, and its tests exist. Otherwise adapt it: tools/mutants/table."""
    found = problems(load())
    assert not found, "\n".join(found)


def test_the_table_has_enough_defects() -> None:
    """Of probes only, each with another id."""
    mutants = load()
    assert len(mutants) >= LEAST
    assert all(mutant.file.startswith("probes/") for mutant in mutants)


@pytest.mark.parametrize(
    ("find", "tests", "expected"),
    [
        ("one", ("test_x.py::test_a",), []),
        ("two", ("test_x.py::test_a[x y]",), ["m: the text occurs 2 times in a.c, expected once"]),
        ("none", ("test_x.py",), ["m: the text occurs 0 times in a.c, expected once"]),
        ("one", ("test_x.py::test_b",), ["m: test_x.py has no test test_b"]),
        ("one", ("test_y.py",), ["m: no file test_y.py"]),
        ("one", (), ["m: names no test"]),
    ],
)
def test_an_entry_that_does_not_fit_is_named(
    tmp_path: Path, find: str, tests: tuple[str, ...], expected: list[str]
) -> None:
    """With the reason."""
    (tmp_path / "a.c").write_text("one two two")
    (tmp_path / "test_x.py").write_text("def test_a(): ...")
    mutant = Mutant("m", "a.c", find, "other", "why", "host", tests)
    assert problems([mutant], tmp_path) == expected


SOURCE = '''\
"""Text."""
__all__ = ["f"]


def f(a: int, b: str = "x") -> bool:
    """Says 3 < 4."""
    if a < 3 and b:
        raise ValueError("text")
    return a + 1 == len(b)
'''


def test_a_python_defect_changes_one_node(tmp_path: Path) -> None:
    """Every defect parses and differs; docstrings, annotations and messages are left alone."""
    path = tmp_path / "a.py"
    path.write_text(SOURCE)
    found = list(mutants_of(path, tmp_path))
    changed = {one.what: apply(one, SOURCE) for one in found}
    assert len(changed) == len(found) == len(set(changed.values()))
    for text in changed.values():
        compile(text, "a.py", "exec")
        assert "Says 3 < 4." in text
        assert "'text'" in text or "raise" not in text
    assert {
        "a < 3 -> a <= 3",
        "a + 1 -> a - 1",
        "'x' -> 'xx'",
        "return a + 1 == len(b) -> return None",
    } <= set(changed)


def test_the_wording_of_a_text_is_no_defect(tmp_path: Path) -> None:
    """Three words are a sentence for people; names, keys and patterns are not."""
    path = tmp_path / "a.py"
    path.write_text('a = ["this node cannot deny it", "O_RDONLY O_WRONLY", "agent-tamper", "/proc/%s/exe"]\n')
    changed = {one.what for one in mutants_of(path, tmp_path)}
    assert changed == {
        "'O_RDONLY O_WRONLY' -> 'O_RDONLY O_WRONLYx'",
        "'agent-tamper' -> 'agent-tamperx'",
        "'/proc/%s/exe' -> '/proc/%s/exex'",
    }


def test_a_defect_knows_the_lines_of_its_statement(tmp_path: Path) -> None:
    """A constant in the middle of an expression has no line of its own; a block is judged by its header."""
    path = tmp_path / "a.py"
    path.write_text(
        "def f(x):\n    if x == 1 and (\n        x == 2\n    ):\n        return [\n            3]\n"
    )
    lines = {one.what: one.lines for one in mutants_of(path, tmp_path)}
    assert lines["2 -> 3"] == (2, 4)
    assert lines["3 -> 4"] == (5, 6)
