# SPDX-License-Identifier: Apache-2.0
"""Counts of hit limits, from files as kernels write them."""

from __future__ import annotations

from pathlib import Path

from ringfence.containers.limits import LimitReader


def line(fstype: str, point: Path, options: str) -> str:
    """Returns a line of mountinfo for a whole hierarchy."""
    return f"30 20 0:29 / {point} rw,relatime - {fstype} none rw,{options}\n"


def reader(directory: Path, *mounts: str) -> LimitReader:
    """Returns a reader for a process that sees these mounts."""
    (directory / "mountinfo").write_text("".join(mounts))
    return LimitReader(directory)


def test_version_2(tmp_path: Path) -> None:
    """pids.events and memory.events of the container's directory."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/pids.events").write_text("max 3\n")
    (tmp_path / "a/b/memory.events").write_text("low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\n")
    limits = reader(tmp_path, line("cgroup2", tmp_path, "nsdelegate"))
    assert limits.read("/a/b") == {"processes": 3, "memory": 1}


def test_version_1(tmp_path: Path) -> None:
    """Each controller has its own hierarchy; an additional unified one has no files for it."""
    for name, file, text in (
        ("pids", "pids.events", "max 7\n"),
        ("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ):
        (tmp_path / name / "c").mkdir(parents=True)
        (tmp_path / name / "c" / file).write_text(text)
    mounts = [line("cgroup", tmp_path / name, name) for name in ("pids", "memory")]
    limits = reader(tmp_path, *mounts, line("cgroup2", tmp_path / "unified", "nsdelegate"))
    assert limits.read("/c") == {"processes": 7, "memory": 2}


def test_a_missing_file_counts_as_zero(tmp_path: Path) -> None:
    """A container that is gone, a disabled controller, a file with other keys."""
    (tmp_path / "c").mkdir()
    (tmp_path / "c/pids.events").write_text("garbage\nmax many\n")
    limits = reader(tmp_path, line("cgroup2", tmp_path, "nsdelegate"))
    assert limits.read("/gone") == {"processes": 0, "memory": 0}
    assert limits.read("/c") == {"processes": 0, "memory": 0}
