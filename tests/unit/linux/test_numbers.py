# SPDX-License-Identifier: Apache-2.0
"""The numbers of system calls are those of the kernel's headers and of the C sources."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ringfence_linux.numbers import NUMBERS, number
from tests.support import force

RUNTIME = Path(__file__).resolve().parents[3] / "runtime"
#: header -> (column of NUMBERS, what makes the generic header show everything)
HEADERS = {
    "asm/unistd_64.h": (0, ()),
    "asm/unistd_32.h": (1, ()),
    "asm-generic/unistd.h": (2, ("-D__ARCH_WANT_SYS_CLONE3", "-D__ARCH_WANT_MEMFD_SECRET")),
}
IN_HEADER = {"oldumount": "umount"}


def header_numbers(header: str, flags: tuple[str, ...]) -> dict[str, int]:
    """The __NR_ macros of a header, with those resolved that name another."""
    compiler = shutil.which("cpp") or shutil.which("clang-cpp")
    if compiler is None:
        force.missing("cpp", "needs a C preprocessor")
    source = f"#include <{header}>\n"
    done = subprocess.run([compiler, "-dM", "-P", *flags], input=source, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"elsewhere: this machine does not have {header}")
    macros = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\S+)", done.stdout))
    found = {}
    for name, value in macros.items():
        target = re.fullmatch(r"__NR(?:3264)?_(\w+)", value)
        text = str(macros.get(target[1], value)) if target else str(value)
        if text.isdigit():
            found[name] = int(text)
    return found


@pytest.mark.parametrize("header", HEADERS)
def test_numbers_are_the_headers(header: str) -> None:
    """A number of the table that the header has is that of the header, and most are in it."""
    column, flags = HEADERS[header]
    in_header = header_numbers(header, flags)
    known = 0
    for name, numbers in NUMBERS.items():
        number, asked = numbers[column], IN_HEADER.get(name, name)
        if number is None:
            if name not in IN_HEADER:
                assert asked not in in_header, f"{name} is {in_header.get(asked)}"
        elif asked in in_header:
            assert (name, number) == (name, in_header[asked])
            known += 1
    assert known > 60


def test_native_numbers_are_of_this_machine() -> None:
    """A call that the architecture does not have has no number."""
    column = 0 if platform.machine() == "x86_64" else 2
    assert number("unshare") == NUMBERS["unshare"][column]
    for name in ("oldumount", "no_such_call"):
        with pytest.raises(KeyError):
            number(name)


def test_architectures_share_numbers_since_424() -> None:
    """A new call gets one number for all (kernel 5.1 and later)."""
    for name, row in NUMBERS.items():
        if any(number is not None and number >= 424 for number in row[::2]):
            assert len(set(row)) == 1, name


def test_literals_of_the_c_sources_are_in_the_table() -> None:
    """The C library of an old distribution has no SYS_ macro for them, so the sources have numbers."""
    found = [
        (name, int(number))
        for source in RUNTIME.rglob("*.[ch]")
        for name, number in re.findall(r"#define NR_(\w+) (\d+)", source.read_text())
    ]
    assert {name for name, _ in found} >= {"clone3", "openat2", "open_tree", "mount_setattr"}
    assert all(NUMBERS[name] == (value,) * 3 for name, value in found)
    assert not [
        f"{source.name}: {call}"
        for source in RUNTIME.rglob("*.[ch]")
        for call in re.findall(r"syscall\(\d+", source.read_text())
    ]
