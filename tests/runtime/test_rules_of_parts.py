# SPDX-License-Identifier: Apache-2.0
"""Parts of the runtime that only some kernels and hosts reach, with the kernel's answers given."""

from __future__ import annotations

import copy
import errno
import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from ringfence_linux import syscalls
from ringfence_runtime.cgroup import limits_v2
from ringfence_runtime.errors import Error, SpecError
from ringfence_runtime.images import mounting
from ringfence_runtime.launch import idmap, moveroot
from ringfence_runtime.launch.operations import sequence
from ringfence_runtime.launch.operations.cgroups import MountLegacyCgroups, MountUnifiedCgroup
from ringfence_runtime.security import landlock
from ringfence_runtime.spec.linux import Landlock
from tests.runtime.conftest import CONFIG
from tests.runtime.test_config import changed, parse


def parsed(path: str, value: Any) -> Any:
    """Returns CONFIG with one member changed."""
    return parse(changed(path, value))


# ---- Landlock: what is handed to each kernel


class Asked(NamedTuple):
    """The ruleset that the kernel was asked for."""

    size: int
    filesystem: int
    network: int
    scoped: int


def ruleset(monkeypatch: pytest.MonkeyPatch, abi: int, **rules: Any) -> Asked:
    """Returns what `build` asks a kernel of that ABI for."""
    asked: list[bytes] = []

    def create(attributes: bytes) -> int:
        asked.append(attributes)
        return -1

    monkeypatch.setattr(syscalls, "landlock_abi", lambda: abi)
    monkeypatch.setattr(syscalls, "landlock_create_ruleset", create)
    monkeypatch.setattr(syscalls, "landlock_add_rule", lambda *words: None)
    config = copy.deepcopy(CONFIG)
    config["linux"]["landlock"] = {"derive": False, **rules}
    made = parse(config)
    landlock.build(cast(Landlock, made.linux.landlock), made)
    (attributes,) = asked
    return Asked(len(attributes), *struct.unpack("QQQ", attributes.ljust(24, b"\0")))


@pytest.mark.parametrize(("abi", "size"), [(1, 8), (3, 8), (4, 16), (5, 16), (6, 24), (7, 24)])
def test_each_kernel_gets_the_members_that_it_knows(
    monkeypatch: pytest.MonkeyPatch, abi: int, size: int
) -> None:
    """An older one refuses more, and a newer one must not get less: then nothing would be scoped."""
    asked = ruleset(monkeypatch, abi, scope=True)
    assert asked.size == size
    assert asked.scoped == (3 if abi >= 6 else 0)
    assert asked.filesystem


# ---- user ids, mounts, limits


def test_a_mapping_in_a_mount_option_has_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """crun's form: users and groups, several ranges."""
    option = "idmap=uids=0-1000-10#5-2000-1;gids=0-3000-4"
    mount = {"destination": "/x", "type": "bind", "source": "/tmp", "options": ["bind", option]}
    uids, gids = idmap._option_ranges(parsed("mounts.4", mount).mounts[4])
    assert [tuple(one) for one in map(_numbers, uids)] == [(0, 1000, 10), (5, 2000, 1)]
    assert [tuple(one) for one in map(_numbers, gids)] == [(0, 3000, 4)]
    wrong = mount | {"options": ["bind", "idmap=users=0-1-1"]}
    with pytest.raises(SpecError):
        idmap._option_ranges(parsed("mounts.4", wrong).mounts[4])


def _numbers(mapping: Any) -> tuple[int, int, int]:
    return mapping.container, mapping.host, mapping.size


def with_ids(rows: list[dict[str, int]]) -> dict[str, Any]:
    """Returns CONFIG with a user namespace that has these ranges of users and of groups."""
    config = changed("linux.uidMappings", rows)
    config["linux"]["gidMappings"] = rows
    config["linux"]["namespaces"].append({"type": "user"})
    return config


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (((0, 1000, 10), (9, 2000, 5)), "earlier range"),
        (((0, 1000, 10), (10, 1009, 5)), "earlier range"),
        (((0, 1 << 32, 1),), "hostID"),
        (((0, (1 << 32) - 1, 2),), "uidMappings"),
    ],
    ids=["of the container", "of the host", "beyond 32 bits", "ends beyond 32 bits"],
)
def test_ranges_of_ids_neither_overlap_nor_leave_their_space(
    ranges: tuple[tuple[int, int, int], ...], message: str
) -> None:
    """On either side."""
    rows = [{"containerID": one, "hostID": other, "size": size} for one, other, size in ranges]
    config = with_ids(rows)
    with pytest.raises(SpecError, match=message):
        parse(config)


def test_ranges_that_touch_are_accepted() -> None:
    """The control."""
    rows = [
        {"containerID": 0, "hostID": 1000, "size": 10},
        {"containerID": 10, "hostID": 1010, "size": 5},
    ]
    assert len(parse(with_ids(rows)).linux.uid_map) == 2


DEADLINE = {"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 2048, "period": 4096}


@pytest.mark.parametrize(
    "but",
    [
        {"runtime": 1023},
        {"runtime": 1 << 63},
        {"runtime": 2049},
        {"deadline": 4097},
        {"policy": "SCHED_FIFO"},
    ],
    ids=str,
)
def test_a_deadline_that_the_kernel_refuses_is_named(but: dict[str, Any]) -> None:
    """Its own answer would be EINVAL."""
    assert parsed("process.scheduler", DEADLINE).process.scheduler.runtime == 1024
    with pytest.raises(SpecError):
        parsed("process.scheduler", DEADLINE | but)


def test_an_io_priority_is_between_0_and_7() -> None:
    """Both ends are levels."""
    for level in (0, 7):
        given = {"class": "IOPRIO_CLASS_BE", "priority": level}
        assert parsed("process.ioPriority", given).process.io_priority.level == level
    with pytest.raises(SpecError):
        parsed("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8})


def test_a_reservation_of_memory_is_written() -> None:
    """As memory.low; -1 is `max`."""
    for given, written in ((4096, "4096"), (-1, "max")):
        resources = parsed("linux.resources", {"memory": {"reservation": given}}).linux.resources
        assert limits_v2.values(resources) == [("memory.reservation", "memory.low", written)]


class Group:
    """A cgroup of version 2, as a plain directory."""

    def __init__(self, directory: Path | None, *, is_v2: bool = True) -> None:
        self.unified, self.is_v2, self.dirs = str(directory), is_v2, {"memory": "/x"}


def test_limits_of_version_2_are_written_to_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each to the file of its name; a failure names the member of the configuration."""
    monkeypatch.setattr(limits_v2, "_devices", lambda directory, resources: None)
    limits = {"memory": {"limit": 8192, "reservation": 4096}, "pids": {"limit": 7}}
    for name in ("memory.max", "memory.low", "pids.max"):
        (tmp_path / name).write_text("")
    resources = parsed("linux.resources", limits).linux.resources
    limits_v2.apply(Group(tmp_path), resources)  # type: ignore[arg-type]
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {"memory.max": "8192", "memory.low": "4096", "pids.max": "7"}
    (tmp_path / "pids.max").unlink()
    (tmp_path / "pids.max").mkdir()
    with pytest.raises(Error, match=r"pids\.limit: cannot write 7"):
        limits_v2.apply(Group(tmp_path), resources)  # type: ignore[arg-type]


@pytest.mark.parametrize(("usage", "refused"), [(8193, True), (8192, False)])
def test_a_limit_below_the_usage_is_refused_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usage: int, *, refused: bool
) -> None:
    """`checkBeforeUpdate`: the kernel would kill."""
    monkeypatch.setattr(limits_v2, "_devices", lambda directory, resources: None)
    (tmp_path / "memory.current").write_text(f"{usage}\n")
    (tmp_path / "memory.max").write_text("")
    given = {"memory": {"limit": 8192, "checkBeforeUpdate": True}}
    resources = parsed("linux.resources", given).linux.resources
    if refused:
        with pytest.raises(Error, match="below what is in use"):
            limits_v2.apply(Group(tmp_path), resources)  # type: ignore[arg-type]
    else:
        limits_v2.apply(Group(tmp_path), resources)  # type: ignore[arg-type]
    assert (tmp_path / "memory.max").read_text() == ("" if refused else "8192")


@pytest.mark.parametrize(
    ("is_v2", "kind", "operation"),
    [
        (True, "cgroup", MountUnifiedCgroup),
        (False, "cgroup2", MountUnifiedCgroup),
        (False, "cgroup", MountLegacyCgroups),
    ],
)
def test_a_cgroup_mount_is_that_of_the_hosts_version(
    tmp_path: Path, kind: str, operation: type, *, is_v2: bool
) -> None:
    """On a host of version 2, an engine still writes `cgroup`."""
    mount = parsed("mounts.4", {"destination": "/sys/fs/cgroup", "type": kind, "source": kind}).mounts[4]
    group: Any = Group(tmp_path, is_v2=is_v2)
    assert type(sequence._cgroup_mount(mount, group, own=True)) is operation


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOENT, errno.EACCES])
def test_a_mount_that_cannot_be_taken_away_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Only a locked one is covered instead: EINVAL and EPERM."""

    def refuse(path: str, flags: int) -> None:
        raise OSError(number, "refused", path)

    monkeypatch.setattr(syscalls, "umount2", refuse)
    monkeypatch.setattr(moveroot, "new_filesystem", lambda *words: pytest.fail("it is covered"))
    with pytest.raises(OSError, match="refused"):
        moveroot._take_away(str(tmp_path))


def test_an_overlay_is_mounted_from_its_own_context(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the calls of new kernels: any other descriptor fails, and mount(2) would hide it."""
    context = os.open(tmp_path, os.O_PATH)
    mounted: list[tuple[int, int]] = []
    given: list[tuple[int, str, str]] = []

    def fsmount(fd: int, attributes: int) -> int:
        mounted.append((fd, attributes))
        return 99

    monkeypatch.setattr(syscalls, "fsopen", lambda kind: context)
    monkeypatch.setattr(syscalls, "fsconfig_string", lambda *words: given.append(words))
    monkeypatch.setattr(syscalls, "fsconfig_flag", lambda *words: None)
    monkeypatch.setattr(syscalls, "fsconfig_create", lambda fd: None)
    monkeypatch.setattr(syscalls, "fsmount", fsmount)
    rootfs: Any = SimpleNamespace(upper="/u", work="/w", userxattr=False)
    assert mounting._overlay_by_parts(rootfs, ("/a", "/b")) == 99
    assert mounted == [(context, 0)]
    assert [words[1:] for words in given[:4]] == [
        ("lowerdir+", "/a"),
        ("lowerdir+", "/b"),
        ("upperdir", "/u"),
        ("workdir", "/w"),
    ]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(context)
