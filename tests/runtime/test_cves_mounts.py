# SPDX-License-Identifier: Apache-2.0
"""Regression tests named after CVEs of mounts redirected
out of the root by a link (checklist rows 33 and 44).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.runtime.hostile import bind, outside, swapping

__all__ = ["outside"]
pytestmark = pytest.mark.root
BOTH_INITS = True


@pytest.mark.parametrize("link", ["{outside}", "../../../../../../../..{outside}", "/a/../..{outside}"])
def test_cve_2021_30465_mount_through_a_symlink(box: Box, outside: Path, tmp_path: Path, link: str) -> None:
    """Row 33: a volume whose mount point is a symlink out of the root; it is resolved inside."""
    (box.rootfs / "mnt").rmdir() if (box.rootfs / "mnt").exists() else None
    (box.rootfs / "mnt").symlink_to(link.format(outside=outside))
    source = tmp_path / "volume"
    source.mkdir()
    (source / "planted").write_text("x")
    bind(box, source, "/mnt/deep")
    assert box.args("/bin/cat", "/mnt/deep/planted").output() == "x"
    assert sorted(os.listdir(outside)) == ["victim"]


def test_cve_2017_1002101_symlink_in_the_middle(box: Box, outside: Path, tmp_path: Path) -> None:
    """Row 33: the directory before the last is the link."""
    (box.rootfs / "data").symlink_to(str(outside.parent))
    source = tmp_path / "volume"
    source.mkdir()
    bind(box, source, "/data/outside/made")
    assert box.args("/bin/true").run().returncode == 0
    assert sorted(os.listdir(outside)) == ["victim"]


def test_cve_2021_25741_a_volume_whose_directory_is_swapped(box: Box, outside: Path, tmp_path: Path) -> None:
    """Row 33: a second container swaps a directory of a shared volume for a link during the mount."""
    shared, source = tmp_path / "shared", tmp_path / "volume"
    (shared / "a").mkdir(parents=True)
    (shared / "b").symlink_to(str(outside))
    source.mkdir()
    bind(box, shared, "/shared")
    bind(box, source, "/shared/a/deep")
    box.args("/bin/true")
    with swapping(shared / "a", shared / "b"):
        for _ in range(15):
            box.run()
            assert sorted(os.listdir(outside)) == ["victim"]
    assert box.run().returncode == 0, "with either name: without the swaps, it is mounted"
    assert sorted(os.listdir(outside)) == ["victim"]


@pytest.mark.parametrize("link", ["{outside}", "../../../../../../../../../..{outside}"])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_cve_2024_0133_nothing_empty_is_made_outside(
    box: Box, outside: Path, tmp_path: Path, link: str, kind: str
) -> None:
    """Row 44: a missing mount point is created, and a link of the image redirects it to the host."""
    source = tmp_path / "source"
    source.write_text("x") if kind == "file" else source.mkdir()
    (box.rootfs / "lib64").symlink_to(link.format(outside=outside))
    box.config["mounts"].append(
        {"destination": "/lib64/made/driver", "type": "bind", "source": str(source), "options": ["bind"]}
    )
    assert box.args("/bin/ls", "/lib64/made/driver").run().returncode == 0
    assert sorted(os.listdir(outside)) == ["victim"]


def test_cve_2024_0132_a_link_swapped_during_the_launch(box: Box, outside: Path, tmp_path: Path) -> None:
    """Rows 33 and 44: a host process keeps swapping
    a directory and a link; no mount lands outside.
    """
    source = tmp_path / "volume"
    source.mkdir()
    (source / "planted").write_text("x")
    (box.rootfs / "a").mkdir()
    (box.rootfs / "b").symlink_to(str(outside))
    bind(box, source, "/a/deep/er")
    box.args("/bin/true")
    with swapping(box.rootfs / "a", box.rootfs / "b"):
        for _ in range(15):
            box.run()
            assert sorted(os.listdir(outside)) == ["victim"]
    assert box.run().returncode == 0, "with either name: without the swaps, it is mounted"
    assert sorted(os.listdir(outside)) == ["victim"]
