# SPDX-License-Identifier: Apache-2.0
"""The table of defects in the probes: `table/*.toml`, one `[[mutant]]` per defect.

A defect replaces a text that occurs exactly once in its file, so it survives changes around it. A
text that no longer occurs once makes the entry stale, which `check` and the lint tests report.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["HOST", "ROOT", "Mutant", "load", "problems"]

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).parent / "table"
HOST = "host"
#: where tests run: on this machine's kernel, or in a guest of that name
PLACES = (HOST, "6.12", "newest", "6.1")


class Mutant(NamedTuple):
    """One defect. `tests` are pytest's node ids; at least one of them must fail."""

    id: str
    file: str
    find: str
    replace: str
    why: str
    where: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """Returns the file's text with the defect. Raises ValueError if the place is not unique."""
        found = text.count(self.find)
        if found != 1:
            raise ValueError(f"{self.id}: the text occurs {found} times in {self.file}, expected once")
        return text.replace(self.find, self.replace)


def load(directory: Path = TABLE) -> list[Mutant]:
    """Returns all defects, in the order of files and entries. Raises ValueError for a wrong entry."""
    return [mutant for path in sorted(directory.glob("*.toml")) for mutant in _read(path)]


def _read(path: Path) -> list[Mutant]:
    document = tomllib.loads(path.read_text())
    defaults = {key: value for key, value in document.items() if key != "mutant"}
    return [_mutant(path, defaults | entry) for entry in document["mutant"]]


def _mutant(path: Path, entry: dict[str, Any]) -> Mutant:
    missing = set(Mutant._fields) - set(entry)
    unknown = set(entry) - set(Mutant._fields)
    if missing or unknown:
        name = entry.get("id", "an entry")
        raise ValueError(f"{path.name}: {name}: missing {sorted(missing)}, unknown {sorted(unknown)}")
    if entry["where"] not in PLACES:
        raise ValueError(f"{path.name}: {entry['id']}: 'where' is {entry['where']!r}, not one of {PLACES}")
    return Mutant(**{**entry, "tests": tuple(entry["tests"])})


def problems(mutants: Sequence[Mutant], root: Path = ROOT) -> list[str]:
    """Returns what is wrong with these entries in that tree: one line for each stale or double one."""
    ids = Counter(mutant.id for mutant in mutants)
    found = [f"{name}: used {count} times" for name, count in ids.items() if count > 1]
    for mutant in mutants:
        found += _problems_of(mutant, root)
    return found


def _problems_of(mutant: Mutant, root: Path) -> list[str]:
    path = root / mutant.file
    if not path.is_file():
        return [f"{mutant.id}: no file {mutant.file}"]
    found = []
    try:
        if mutant.applied(path.read_text()) == path.read_text():
            found.append(f"{mutant.id}: changes nothing")
    except ValueError as error:
        found.append(str(error))
    for test in mutant.tests:
        found += _problems_of_test(mutant, test, root)
    return found or ([] if mutant.tests else [f"{mutant.id}: names no test"])


def _problems_of_test(mutant: Mutant, test: str, root: Path) -> list[str]:
    file, _, name = test.partition("::")
    path = root / file
    if not path.is_file():
        return [f"{mutant.id}: no file {file}"]
    function = name.partition("[")[0]
    if function and f"def {function}(" not in path.read_text():
        return [f"{mutant.id}: {file} has no test {function}"]
    return []
