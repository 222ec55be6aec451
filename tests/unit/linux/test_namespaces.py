# SPDX-License-Identifier: Apache-2.0
"""Namespaces by name and number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence_linux import namespaces


def links(proc: Path, pid: str, **found: str) -> None:
    """Make /proc/PID/ns with these links."""
    (proc / pid / "ns").mkdir(parents=True)
    for name, target in found.items():
        (proc / pid / "ns" / name).symlink_to(target)


def test_flags_have_names() -> None:
    """CLONE_NEWNS and CLONE_NEWPID."""
    assert namespaces.names(0x20000 | 0x20000000) == ("mnt", "pid")
    assert sorted(namespaces.CLONE_FLAGS) == sorted(namespaces.NAMES)


def test_the_number_is_that_of_stat() -> None:
    """The link of a namespace holds its inode number."""
    assert namespaces.inode("self", "mnt") == os.stat("/proc/self/ns/mnt").st_ino
    assert namespaces.link(os.getpid(), "mnt") == f"mnt:[{namespaces.inode('self', 'mnt')}]"


@pytest.mark.parametrize("target", ["mnt:[]", "mnt:[7", "mnt:[x]", "elsewhere"])
def test_a_link_of_another_form_has_no_number(tmp_path: Path, target: str) -> None:
    """None, as for one that cannot be read."""
    links(tmp_path, "1", mnt=target)
    assert namespaces.inode(1, "mnt", tmp_path) is None
    assert namespaces.inode(1, "net", tmp_path) is None
    assert namespaces.link(1, "net", tmp_path) == ""


def test_visible_namespaces_fall_back_to_this_process(tmp_path: Path) -> None:
    """Each kind on its own; 0 for a kind that the kernel does not have."""
    links(tmp_path, "1", mnt="mnt:[11]")
    links(tmp_path, "self", mnt="mnt:[21]", net="net:[22]")
    found = namespaces.visible(tmp_path)
    assert (found["mnt"], found["net"], found["time"]) == (11, 22, 0)
    assert tuple(found) == namespaces.NAMES
