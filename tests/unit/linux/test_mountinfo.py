# SPDX-License-Identifier: Apache-2.0
"""Mount tables as the kernel writes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_linux.mountinfo import parse, read, unescape


def test_escapes_and_broken_lines() -> None:
    """A mount point may hold a newline (\\012); a line that does not parse is skipped."""
    lines = list(parse("nonsense\n1 2 8:1 / /a\\012b rw - ext4 /dev/x rw\n1 2 3 - x\n"))
    assert [(line.id, line.device, line.target) for line in lines] == [("1", "8:1", "/a\nb")]


def test_optional_fields_are_passed_over() -> None:
    """Between the options and the dash: any number of them."""
    (line,) = parse(
        "36 35 98:0 /m /n rw,noatime shared:1 master:2 - ext3 /dev/my\\040root rw,errors=continue"
    )
    assert (line.root, line.target, line.fstype, line.source) == ("/m", "/n", "ext3", "/dev/my root")
    assert set(line.options) == {"rw", "noatime"}
    assert set(line.super_options) == {"rw", "errors=continue"}


@pytest.mark.parametrize("text", ["1 2 8:1 / / ro - ext4 x rw", "1 2 8:1 / / rw - ext4 x ro"])
def test_a_mount_or_its_superblock_can_be_read_only(text: str) -> None:
    """Either is enough."""
    (line,) = parse(text)
    assert not line.writable


@pytest.mark.parametrize(("root", "whole"), [("/", True), ("/..", True), ("/../../..", True), ("/a", False)])
def test_a_cgroup_namespace_shows_roots_above_its_own(root: str, whole: bool) -> None:
    """They are complete, too."""
    (line,) = parse(f"1 2 0:30 {root} /sys/fs/cgroup rw - cgroup2 cgroup rw")
    assert line.whole is whole


@given(st.text(alphabet="\\01237 89a", max_size=20))
def test_unescaping_is_that_of_a_regular_expression(text: str) -> None:
    """Three octal digits after a backslash; anything else stays."""
    assert unescape(text) == re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def test_a_mount_point_may_hold_a_carriage_return(tmp_path: Path) -> None:
    """The kernel does not escape it, and it ends no line; bytes that are not UTF-8 are surrogates."""
    (tmp_path / "mountinfo").write_bytes(b"1 2 8:1 / /a\rb\xff rw - ext4 x rw\n")
    (line,) = read(tmp_path)
    assert line.target == "/a\rb\udcff"
