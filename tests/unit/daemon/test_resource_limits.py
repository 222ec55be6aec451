# SPDX-License-Identifier: Apache-2.0
"""The agent's own limits, as its cgroup and those above it say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.daemon.startup.resource_limits import Load, ResourceLimits, lower_priority

GIB = 1 << 30


def files(directory: Path, **content: str) -> None:
    """Files of a cgroup; `__` stands for a dot."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (directory / name.replace("__", ".")).write_text(text)


def proc(tmp_path: Path, mounts: str, cgroup: str) -> Path:
    """A /proc/self of its own."""
    files(tmp_path / "proc", mountinfo=mounts, cgroup=cgroup)
    return tmp_path / "proc"


def test_version_2_takes_the_lowest_of_the_lineage(tmp_path: Path) -> None:
    """Limits of the pod count for the container; file cache is not counted as used."""
    mount = tmp_path / "unified"
    seen = proc(tmp_path, f"30 23 0:26 / {mount} rw - cgroup2 cgroup2 rw\n", "0::/pod/agent\n")
    files(mount / "pod", memory__max=f"{GIB}", memory__current=f"{GIB // 2}", cpu__max="50000 100000")
    files(mount / "pod/agent", memory__max="max", cpu__max="max 100000", cpu__stat="throttled_usec 2000000\n")
    files(mount / "pod", memory__stat=f"anon 5\ninactive_file {GIB // 4}\n")
    limits = ResourceLimits(proc=seen)
    assert (limits.memory_limit, limits.cpus, limits.throttled_seconds) == (GIB, 0.5, 2.0)
    assert limits.memory_used() == 0.25


def test_version_1_has_its_own_files(tmp_path: Path) -> None:
    """No limit is a number near 2**63, or -1."""
    memory, cpu = tmp_path / "memory", tmp_path / "cpu"
    mounts = "".join(
        f"3{n} 31 0:3{n} / {path} rw - cgroup cgroup rw,{path.name}\n" for n, path in enumerate((memory, cpu))
    )
    seen = proc(tmp_path, mounts, "4:memory:/a\n3:cpu,cpuacct:/a\n")
    files(memory / "a", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="1")
    files(cpu / "a", cpu__cfs_quota_us="20000", cpu__cfs_period_us="100000", cpu__stat="throttled_time 5\n")
    limits = ResourceLimits(proc=seen)
    assert (limits.memory_limit, limits.cpus, limits.memory_used()) == (0, 0.2, 0.0)
    files(memory / "a", memory__limit_in_bytes="1000", memory__usage_in_bytes="950", memory__stat="x 1\n")
    assert (limits.memory_limit, limits.memory_used()) == (1000, 0.95)


@pytest.mark.parametrize(
    ("limit", "share"), [("max", 0), (f"{GIB // 4}", 41527), (f"{128 << 20}", 13842), (f"{32 << 20}", 8192)]
)
def test_the_share_of_a_container_is_half_of_what_the_limit_leaves(
    tmp_path: Path, limit: str, share: int
) -> None:
    """Beside 64 MiB for the agent, 2,424 bytes a task; never so few that honest work would notice."""
    mount = tmp_path / "unified"
    seen = proc(tmp_path, f"30 23 0:26 / {mount} rw - cgroup2 cgroup2 rw\n", "0::/agent\n")
    files(mount / "agent", memory__max=limit)
    assert ResourceLimits(proc=seen).task_share == share


def test_in_a_cgroup_namespace_the_place_that_was_found_counts(tmp_path: Path) -> None:
    """There /proc/self/cgroup says "/"."""
    mount = tmp_path / "unified"
    seen = proc(tmp_path, f"30 23 0:26 /../.. {mount} rw - cgroup2 cgroup2 rw\n", "0::/\n")
    files(mount / "pods/agent", memory__max="4096")
    assert ResourceLimits(proc=seen).memory_limit == 0
    assert ResourceLimits("/pods/agent", proc=seen).memory_limit == 4096


def test_throttling_is_that_since_the_last_look(tmp_path: Path) -> None:
    """Half a second held in two is a quarter."""
    mount, now = tmp_path / "unified", [0.0]
    seen = proc(tmp_path, f"30 23 0:26 / {mount} rw - cgroup2 cgroup2 rw\n", "0::/a\n")
    files(mount / "a", cpu__stat="throttled_usec 1000000\n")
    limits = ResourceLimits(proc=seen, clock=lambda: now[0])
    files(mount / "a", cpu__stat="throttled_usec 1500000\n")
    now[0] = 2.0
    assert limits.load() == Load(0.0, 0.25)
    now[0] = 3.0
    assert limits.load() == Load()


def test_without_cgroups_nothing_is_known_and_nothing_fails(tmp_path: Path) -> None:
    """A host without limits."""
    limits = ResourceLimits(proc=proc(tmp_path, "", ""))
    assert (limits.memory_limit, limits.cpus, limits.throttled_seconds, limits.load()) == (
        0,
        0.0,
        0.0,
        Load(),
    )


@pytest.mark.parametrize(("before", "after"), [("0", "-900"), ("-950", "-950"), ("nonsense", "nonsense")])
def test_the_kernel_is_asked_to_end_others_first(tmp_path: Path, before: str, after: str) -> None:
    """Never less than it was, and no error where that is not allowed."""
    path = tmp_path / "oom_score_adj"
    path.write_text(before)
    assert lower_priority(path) is (before != "nonsense")
    assert path.read_text() == after
    assert not lower_priority(tmp_path / "absent")


def test_free_memory_is_that_of_the_nearest_limit_and_page_cache_is_not_free(tmp_path: Path) -> None:
    """Dirty pages, and those being written, cannot be given up at once."""
    mount = tmp_path / "unified"
    seen = proc(tmp_path, f"30 23 0:26 / {mount} rw - cgroup2 cgroup2 rw\n", "0::/pod/agent\n")
    files(
        mount / "pod", memory__max=f"{GIB}", memory__current=f"{GIB // 2}", memory__stat="inactive_file 1\n"
    )
    files(mount / "pod/agent", memory__max="1000", memory__current="900")
    files(
        mount / "pod/agent",
        memory__stat="inactive_file 300\nactive_file 200\nfile_dirty 50\nfile_writeback 10\n",
    )
    limits = ResourceLimits(proc=seen)
    assert (limits.memory_free, limits.memory_cache) == (100, 440)


def test_free_memory_of_version_1(tmp_path: Path) -> None:
    """Its statistics have other names."""
    memory = tmp_path / "memory"
    seen = proc(tmp_path, f"30 31 0:30 / {memory} rw - cgroup cgroup rw,memory\n", "4:memory:/a\n")
    assert (ResourceLimits(proc=seen).memory_free, ResourceLimits(proc=seen).memory_cache) == (0, 0)
    files(memory / "a", memory__limit_in_bytes="1000", memory__usage_in_bytes="950")
    files(memory / "a", memory__stat="inactive_file 1\ntotal_inactive_file 90\ntotal_dirty 20\n")
    limits = ResourceLimits(proc=seen)
    assert (limits.memory_free, limits.memory_cache) == (50, 70)
