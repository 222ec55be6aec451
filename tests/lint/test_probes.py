# SPDX-License-Identifier: Apache-2.0
"""The rules of probes/README.md that a reader relies on and that no compiler checks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.lint.files import ROOT, files
from tests.lint.test_tools import check
from tests.support import force

PROBES = ROOT / "probes"
SOURCES = [ROOT / path for path in files(".c") if path.parts[0] == "probes"]
HEADERS = [ROOT / path for path in files(".h") if path.parts[0] == "probes"]
MAPS = PROBES / "maps.bpf.c"
#: parts of vmlinux.h and compat.h, which include them
PARTS = {"uapi.h", "x86.h", "arm64.h"}
MOST_COLUMNS = 100
TAB = 8


def code(path: Path) -> str:
    """A file without its comments."""
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.S)


def declared(path: Path) -> set[str]:
    """Functions that a header declares and does not define."""
    return set(re.findall(r"^(?:int|__u32|__u64) (rf_\w+)\([^;{]*\);", code(path), re.M))


def defined(path: Path) -> set[str]:
    """Global functions of a source."""
    return set(re.findall(r"^__noinline \w+ (rf_\w+)\(", code(path), re.M))


def included(path: Path) -> set[str]:
    """Names of the project's headers that a file includes."""
    return {Path(name).name for name in re.findall(r'^#include "([^"]+)"', path.read_text(), re.M)}


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_a_header_declares_only_what_its_source_defines(header: Path) -> None:
    """X.h declares functions of X.bpf.c alone, so a reader knows where each is."""
    source = PROBES / f"{header.stem}.bpf.c"
    assert declared(header) <= (defined(source) if source.exists() else set())


def test_functions_of_more_than_one_file_are_declared() -> None:
    """A source declares nothing of another source by itself. Kernel functions are exempt."""
    wrong = []
    for path in SOURCES:
        text = code(path)
        wrong += [f"{path.name}: {name}" for name in declared(path)]
        externs = re.findall(r"^extern [^;]*;", text, re.M)
        wrong += [f"{path.name}: {line}" for line in externs if "__ksym" not in line]
    assert not wrong


def test_every_map_of_a_header_is_defined_in_one_place() -> None:
    """Headers have `extern` alone, maps.bpf.c the definition; other maps are of one source."""
    text = "".join(map(code, HEADERS))
    externs = set(re.findall(r'^extern struct map_\w+ (\w+) SEC\("\.maps"\);', text, re.M))
    found = re.findall(r'^struct map_(\w+) (\w+) SEC\("\.maps"\);', code(MAPS), re.M)
    assert {name for name, _ in found} == externs
    assert all(shape == name for shape, name in found)
    assert not re.search(r'^\} \w+ (?:__weak )?SEC\("\.maps"\)', text, re.M)


def test_headers_include_no_circle() -> None:
    """A header that is reached from itself depends on the order in which it is included."""
    graph = {path.name: included(path) for path in HEADERS}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in graph.get(name, set()):
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("header", [path for path in HEADERS if path.name not in PARTS], ids=lambda p: p.name)
def test_a_header_needs_no_other_before_it(header: Path) -> None:
    """It compiles alone."""
    argv = ["-x", "c", "-fsyntax-only", "-O2", "-target", "bpf", "-D__TARGET_ARCH_x86", "-std=gnu11"]
    check(force.need_program("clang"), *argv, "-Wall", str(header))


@pytest.mark.parametrize("path", [*SOURCES, *HEADERS], ids=lambda path: path.name)
def test_files_begin_with_what_they_are_for(path: Path) -> None:
    """After the licence, a comment; then the code."""
    assert path.read_text().split("\n")[1].startswith("/*"), "no comment below the licence"


@pytest.mark.parametrize("path", [*SOURCES, *HEADERS], ids=lambda path: path.name)
def test_lines_fit_a_review_side_by_side(path: Path) -> None:
    """No line, of code or of a comment, has more than 100 columns."""
    lines = path.read_text().expandtabs(TAB).split("\n")
    assert [f"{number}: {line}" for number, line in enumerate(lines, 1) if len(line) > MOST_COLUMNS] == []
