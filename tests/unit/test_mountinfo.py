# SPDX-License-Identifier: Apache-2.0
"""Mount tables as the kernel writes them."""

from __future__ import annotations

import pytest

from ringfence.bpf.mountinfo import parse


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
