# SPDX-License-Identifier: Apache-2.0
"""Hierarchies from a mount table, and cgroups of a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence_linux.cgroups import hierarchies, paths_of

HYBRID = """\
25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
28 25 0:25 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw,nsdelegate
"""


def test_hierarchies_of_a_hybrid_host() -> None:
    """Controllers sharing a hierarchy, a named one, and an escaped mount point."""
    found = hierarchies(HYBRID)
    assert found.kind == "hybrid"
    assert found.unified == "/sys/fs/cgroup/uni fied"
    assert found.v1 == {
        "cpu,cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "name=systemd": "/sys/fs/cgroup/systemd",
    }
    assert found.mount_of("cpuacct") == "/sys/fs/cgroup/cpu,cpuacct"


def test_a_mount_point_may_have_letters_of_any_language() -> None:
    """The kernel writes them as they are beside what it escapes; a digit after an escape is no part of it."""
    line = "28 25 0:25 / /mnt/gr\u00fc\\0401\\134x rw - cgroup2 cgroup2 rw\n"
    assert hierarchies(line).unified == "/mnt/gr\u00fc 1\\x"


def test_a_hierarchy_counts_from_its_root_if_that_is_asked_for() -> None:
    """The bind mount of one cgroup shows a part of the hierarchy."""
    part = "25 24 0:22 /a /elsewhere rw - cgroup cgroup rw,pids\n"
    text = part + "26 24 0:22 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
    assert hierarchies(text).mount_of("pids") == "/elsewhere"
    assert hierarchies(text, whole=True).mount_of("pids") == "/sys/fs/cgroup/pids"
    assert hierarchies(part, whole=True).kind == "v2"


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3 - cgroup", "1 - cgroup2 - x"])
def test_a_table_without_hierarchies_has_none(text: str) -> None:
    """Lines that cannot be parsed are skipped."""
    found = hierarchies(text)
    assert (found.v1, found.unified) == ({}, "")


def test_a_process_is_in_one_cgroup_of_each_hierarchy(tmp_path: Path) -> None:
    """A path may hold a colon."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text("4:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/d\n")
    assert paths_of(7, tmp_path) == {"cpu,cpuacct": "/a", "name=systemd": "/b:c", "": "/d"}
    with pytest.raises(FileNotFoundError):
        paths_of(8, tmp_path)
