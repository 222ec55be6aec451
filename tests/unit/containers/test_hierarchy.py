# SPDX-License-Identifier: Apache-2.0
"""Which hierarchy identifies a container, on every kind of host."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ringfence.abi import LEVELS
from ringfence.containers import hierarchy, host
from ringfence.containers.hierarchy import (
    CgroupDir,
    Hierarchy,
    HierarchyKind,
    detect,
    hierarchy_mounts,
    host_namespaces,
    own_cgroup,
    own_cgroups,
    own_directories,
    own_lineage,
    walk,
)
from ringfence.errors import KernelError
from ringfence_linux.namespaces import INITIAL_INODES, NAMES

V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
CGROUPS = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"


def v1(controller: str, root: str = "/") -> str:
    """A line of mountinfo for a v1 controller."""
    point = f"/sys/fs/cgroup/{controller}"
    return f"36 31 0:33 {root} {point} rw,relatime shared:9 - cgroup cgroup rw,{controller}\n"


def proc(tmp_path: Path, mountinfo: str, cgroups: str) -> Path:
    """A /proc with these two files."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text("junk\n" + mountinfo)
    (tmp_path / "cgroups").write_text(CGROUPS + cgroups)
    return tmp_path


def test_pure_v2_is_identified_by_the_unified_hierarchy(tmp_path: Path) -> None:
    """Controllers that /proc/cgroups shows with hierarchy 0 belong to v2."""
    found = detect(proc(tmp_path, V2, "devices\t0\t50\t1\npids\t0\t50\t1\n"))
    assert found == Hierarchy(HierarchyKind.V2, "", Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup"))
    assert found.code == 0


def test_hybrid_takes_devices_before_pids(tmp_path: Path) -> None:
    """The order of preference is that of config.h, not that of the mounts."""
    found = detect(proc(tmp_path, v1("pids") + v1("devices") + UNIFIED, "devices\t5\t1\t1\npids\t8\t1\t1\n"))
    assert (found.kind, found.controller, found.code) == (HierarchyKind.HYBRID, "devices", 1)
    assert (found.mount, found.v2_mount) == (
        Path("/sys/fs/cgroup/devices"),
        Path("/sys/fs/cgroup/unified"),
    )


@pytest.mark.parametrize(("controller", "code"), [("pids", 2), ("memory", 3), ("cpu", 4), ("freezer", 5)])
def test_v1_falls_back_along_the_list(tmp_path: Path, controller: str, code: int) -> None:
    """Without the devices controller another one identifies; RF_HIERARCHY_* follows."""
    found = detect(proc(tmp_path, v1(controller), f"devices\t0\t1\t0\n{controller}\t3\t1\t1\n"))
    assert (found.kind, found.controller, found.code, found.v2_mount) == (
        HierarchyKind.V1,
        controller,
        code,
        None,
    )


def test_controllers_mounted_together_are_found(tmp_path: Path) -> None:
    """`cpu,cpuacct` in one mount is the cpu controller."""
    line = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    assert detect(proc(tmp_path, line, "cpu\t2\t1\t1\n")).mount == Path("/sys/fs/cgroup/cpu,cpuacct")


def test_a_mount_of_a_part_of_the_hierarchy_is_not_taken(tmp_path: Path) -> None:
    """A container's own cgroup, bind-mounted, does not show the others'."""
    part = v1("devices", root="/docker/abc").replace("/sys/fs/cgroup/devices", "/elsewhere")
    found = detect(proc(tmp_path, part + v1("devices"), "devices\t5\t1\t1\n"))
    assert found.mount == Path("/sys/fs/cgroup/devices")


def test_the_hosts_mount_seen_from_a_cgroup_namespace_is_whole(tmp_path: Path) -> None:
    """Seen from below, the root of the hierarchy is called /../.."""
    found = detect(proc(tmp_path, v1("devices", root="/../.."), "devices\t5\t1\t1\n"))
    assert found.controller == "devices"


def test_escaped_mount_points_are_read(tmp_path: Path) -> None:
    """mountinfo writes a space as \\040."""
    line = V2.replace("/sys/fs/cgroup", "/mnt/a\\040b")
    assert detect(proc(tmp_path, line, "")).mount == Path("/mnt/a b")


def test_no_hierarchy_is_a_clear_error(tmp_path: Path) -> None:
    """The error names what to mount."""
    with pytest.raises(KernelError) as caught:
        detect(proc(tmp_path, "", ""))
    assert "cgroup2" in caught.value.hint


def test_this_machine_has_a_hierarchy() -> None:
    """The real /proc parses, and the mount is there."""
    assert detect().mount.is_dir()


def tree(tmp_path: Path, *paths: str) -> Hierarchy:
    """A hierarchy made of plain directories."""
    for path in paths:
        (tmp_path / path).mkdir(parents=True)
    return Hierarchy(HierarchyKind.V2, "", tmp_path, tmp_path)


def test_the_own_cgroup_is_where_proc_says_or_where_our_number_is(tmp_path: Path) -> None:
    """In a cgroup namespace /proc/self/cgroup says `/`, whatever it is: then the hierarchy is searched."""
    root, own = tmp_path / "cgroup", tmp_path / "cgroup/pods/agent"
    own.mkdir(parents=True)
    for path, text in ((root, "1\n"), (own, f"7\n{os.getpid()}\n")):
        (path / "cgroup.procs").write_text(text)
    (tmp_path / "self").mkdir()
    layout = Hierarchy(HierarchyKind.HYBRID, "pids", root, None)
    for shown in ("4:pids:/pods/agent\n0::/elsewhere\n", "4:cpu,pids:/\n0::/\n", "0::/pods\n"):
        (tmp_path / "self/cgroup").write_text(shown)
        assert own_cgroup(layout, tmp_path) == own
    assert own_cgroups(layout) == {own.stat().st_ino, own.parent.stat().st_ino}


def test_at_the_root_no_cgroup_is_the_agents_own(tmp_path: Path) -> None:
    """Else all containers were in it."""
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert own_cgroups(Hierarchy(HierarchyKind.V2, "", tmp_path, tmp_path)) == frozenset()


def test_walk_lists_parents_before_children_with_kernel_names(tmp_path: Path) -> None:
    """Ids are inode numbers, and each entry's parent is known when it comes."""
    found = list(walk(tree(tmp_path, "a/b/c", "d")))
    assert {entry.path for entry in found} == {"/a", "/a/b", "/a/b/c", "/d"}
    seen = {hierarchy.cgroup_id(tmp_path)}
    for entry in found:
        assert entry.cgroup_id == (tmp_path / entry.path.lstrip("/")).stat().st_ino
        assert entry.parent_id in seen
        seen.add(entry.cgroup_id)


def test_walk_is_bounded_in_number_and_depth(tmp_path: Path) -> None:
    """Nobody makes the agent walk for ever."""
    deep = "/".join("d" * (LEVELS + 3))
    found, cuts = tree(tmp_path, deep, "e"), list[int]()
    assert len(list(walk(found, limit=3, cut=lambda: cuts.append(1)))) == 3
    assert cuts == [1]
    assert max(entry.path.count("/") for entry in walk(found, cut=lambda: cuts.append(1))) == LEVELS
    assert cuts == [1]


def test_walk_does_not_descend_into_containers(tmp_path: Path) -> None:
    """What lies below a container is not even listed; asked when its directory was looked at."""
    found, looked = tree(tmp_path, "pods/rftest-a/x/y", "b"), list[str]()

    def outside(entry: CgroupDir) -> bool:
        looked.append(entry.path)
        return not entry.name.startswith("rftest-")

    assert {entry.path for entry in walk(found, descend=outside)} == {"/pods", "/b", "/pods/rftest-a"}
    assert set(looked) == {"/pods", "/b", "/pods/rftest-a"}


def test_walk_does_not_follow_links(tmp_path: Path) -> None:
    """A link in the tree is no cgroup."""
    found = tree(tmp_path, "a")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert [entry.path for entry in walk(found)] == ["/a"]


def namespaces(proc: Path, task: str, inums: dict[str, int]) -> None:
    """/proc/PID/ns with these inode numbers."""
    (proc / task / "ns").mkdir(parents=True)
    for name, inum in inums.items():
        (proc / task / "ns" / name).symlink_to(f"{name}:[{inum}]")


ALL = dict.fromkeys(NAMES, 11)


def test_host_namespaces_come_from_pid_1(tmp_path: Path) -> None:
    """What PID 1 has is the host's, also where the agent has its own."""
    namespaces(tmp_path, "self", {**ALL, "pid": INITIAL_INODES["pid"], "mnt": 99})
    namespaces(tmp_path, "1", {**ALL, "mnt": 12})
    found = host_namespaces(tmp_path)
    assert (found.mnt, found.net, found.notes) == (12, 11, ())


def test_an_unreadable_pid_1_is_noted_for_what_had_to_be_assumed(tmp_path: Path) -> None:
    """Fixed numbers need no assumption; mnt and net do, and say so."""
    namespaces(tmp_path, "self", {**ALL, "pid": INITIAL_INODES["pid"], "mnt": 99})
    found = host_namespaces(tmp_path)
    assert (found.mnt, found.uts) == (99, 0xEFFFFFFE)
    assert len(found.notes) == 2


def test_an_agent_in_another_pid_namespace_does_not_take_its_own_pid_1_for_the_hosts(tmp_path: Path) -> None:
    """PID 1 of a container is not the host's."""
    namespaces(tmp_path, "self", ALL)
    namespaces(tmp_path, "1", {**ALL, "mnt": 12})
    found = host_namespaces(tmp_path)
    assert found.mnt == 11
    assert "hostPID" in found.notes[0]


def test_the_mounts_of_all_hierarchies_are_listed(tmp_path: Path) -> None:
    """Only those that are mounted whole."""
    part = v1("memory", root="/docker/abc")
    place = proc(tmp_path, v1("pids") + part + UNIFIED, "")
    assert hierarchy_mounts(place / "self") == ({"pids": "/sys/fs/cgroup/pids"}, "/sys/fs/cgroup/unified")


def test_a_disabled_controller_identifies_nothing(tmp_path: Path) -> None:
    """Nor one of version 2; without /proc/cgroups, what is mounted counts."""
    both = v1("devices") + v1("pids")
    place = proc(tmp_path, both, "devices\t5\t1\t0\npids\t8\t1\t1\n")
    assert detect(place).controller == "pids"
    (place / "cgroups").write_text(CGROUPS + "devices\t5\t1\npids\t8\t1\t1\n")
    assert detect(place).controller == "pids"
    (place / "cgroups").unlink()
    assert detect(place).controller == "devices"


def test_the_own_directories_are_found_in_every_hierarchy(tmp_path: Path) -> None:
    """Those of this process and those above it, where they are mounted whole, and no root."""
    root = tmp_path / "fs"
    numbers = f"{os.getpid()}\n"
    for path, text in (("pids/a/b", numbers), ("pids/a", ""), ("v2/x", numbers), ("memory", "")):
        (root / path).mkdir(parents=True, exist_ok=True)
        (root / path / "cgroup.procs").write_text(text)
    part = v1("cpu", root="/docker/abc")
    lines = (v1("pids") + v1("memory") + part).replace("/sys/fs/cgroup", str(root))
    unified = f"41 31 0:38 / {root}/v2 rw - cgroup2 cgroup2 rw\n42 31 0:39 / {root} rw - tmpfs none rw\n"
    place = proc(tmp_path, lines + unified, "pids\t8\t1\t1\n")
    (place / "self/cgroup").write_text("5:memory:/\n4:pids:/a/b\n0::/x\n")
    found = {one.path: one.own for one in own_directories(place)}
    assert found == {root / "pids/a/b": True, root / "pids/a": False, root / "v2/x": True}


def test_a_cgroup_namespace_does_not_hide_the_own_directories(tmp_path: Path) -> None:
    """There /proc/self/cgroup says `/`: the place in the main hierarchy is tried in the others."""
    root = tmp_path / "fs"
    for controller in ("pids", "memory"):
        (root / controller / "a").mkdir(parents=True)
        (root / controller / "a/cgroup.procs").write_text(f"{os.getpid()}\n")
    lines = (v1("pids") + v1("memory")).replace("/sys/fs/cgroup", str(root))
    place = proc(tmp_path, lines, "pids\t8\t1\t1\nmemory\t9\t1\t1\n")
    (place / "self/cgroup").write_text("5:memory:/\n4:pids:/\n")
    found = {one.path: one.own for one in own_directories(place)}
    assert found == {root / "pids/a": True, root / "memory/a": True}


def test_the_lineage_of_this_process_begins_at_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its parent's id."""
    layout = tree(tmp_path, "a/b")
    monkeypatch.setattr(hierarchy, "own_cgroup", lambda layout: tmp_path / "a/b")
    ids = [path.stat().st_ino for path in (tmp_path, tmp_path / "a", tmp_path / "a/b")]
    assert own_lineage(layout) == [CgroupDir("/a", ids[1], ids[0]), CgroupDir("/a/b", ids[2], ids[1])]
    assert own_lineage(layout)[1].name == "b"


def test_the_hosts_root_is_that_of_process_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is another one than this process's; unreadable, it is taken for the same."""
    inodes = {"/proc/1/ns/mnt": 1, "/proc/self/ns/mnt": 2}
    monkeypatch.setattr(
        "ringfence.containers.host.os.stat", lambda path: SimpleNamespace(st_ino=inodes[path])
    )
    assert host.host_root() == Path("/proc/1/root")
    inodes["/proc/1/ns/mnt"] = 2
    assert host.host_root() == Path("/")

    def refused(path: str) -> None:
        raise PermissionError

    monkeypatch.setattr("ringfence.containers.host.os.stat", refused)
    assert host.host_root() == Path("/")


def test_namespaces_of_kthreadd_are_the_hosts_as_well(tmp_path: Path) -> None:
    """Where PID 1 is hidden."""
    namespaces(tmp_path, "self", {**ALL, "pid": INITIAL_INODES["pid"], "mnt": 99})
    namespaces(tmp_path, "2", {**ALL, "mnt": 12})
    assert (host_namespaces(tmp_path).mnt, host_namespaces(tmp_path).notes) == (12, ())
