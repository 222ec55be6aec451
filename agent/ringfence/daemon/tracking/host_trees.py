# SPDX-License-Identifier: Apache-2.0
"""What is the host's or an engine's, for rules with `tree`. Writes the map `host_trees`.

Every filesystem that is mounted on the host is the host's, except where an engine or the kubelet
mounts filesystems for containers. Those are the engine's storage: the root directories of containers,
and what these consist of. On both, everything is the host's or the engine's, except below the
directories that containers are commonly given, and the root of the container that writes. The kernel
compares devices and inodes, so another name, a bind mount or a second mount of the filesystem changes
nothing (probes/trees.bpf.c).
"""

from __future__ import annotations

import fnmatch
import os
import re
import select
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ringfence import log
from ringfence.abi import (
    TREE_ENGINE,
    TREE_GIVEN,
    TREE_HOME,
    TREE_KEY,
    TREE_LOG_DIRECTORY,
    TREE_OF_HOST,
    TREE_OF_LOGS,
    TREE_OF_STORAGE,
    TREE_OF_TERMINALS,
)
from ringfence.bpf.host import identify
from ringfence.bpf.maps import Map
from ringfence.containers.host import host_root
from ringfence_linux import mountinfo
from ringfence_linux.mountinfo import MountLine
from ringfence_linux.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2

__all__ = ["GIVEN", "HostTrees"]

#: what containers are commonly given, by its meaning; `*` is any one component
GIVEN: Mapping[int, tuple[str, ...]] = {
    TREE_GIVEN: (
        # volumes of engines
        "/var/lib/docker/volumes", "/var/lib/containers/storage/volumes",
        "/home/*/.local/share/docker/volumes", "/home/*/.local/share/containers/storage/volumes",
        # the kubelet: volumes, CSI and device plug-ins
        "/var/lib/kubelet/pods", "/var/lib/kubelet/plugins", "/var/lib/kubelet/plugins_registry",
        "/var/lib/kubelet/device-plugins", "/var/lib/kubelet/pod-resources",
        # storage provisioners and the cluster's database
        "/opt/local-path-provisioner", "/var/lib/rancher/k3s/storage", "/var/openebs",
        "/var/lib/longhorn", "/var/lib/rook", "/var/snap/microk8s/common/default-storage",
        "/var/lib/etcd", "/var/lib/csi*",
        # network plug-ins: state, not programs
        "/var/lib/calico", "/var/lib/cni", "/var/lib/cilium", "/run/calico", "/run/cilium",
        "/run/flannel", "/run/xtables.lock", "/run/netns", "/run/lock", "/run/multus",
        # data and logs
        "/var/log", "/mnt", "/media", "/srv", "/data", "/export", "/exports", "/storage",
        "/var/www", "/tmp", "/var/tmp", "/dev/shm", "/run/user",
    ),
    TREE_HOME: ("/home/*", "/root"),
    TREE_ENGINE: (
        "/var/lib/docker/containers", "/var/lib/containers/storage/overlay-containers",
        "/run/containers/storage/overlay-containers", "/run/user/*/containers",
        "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes", "/var/lib/nerdctl",
    ),
}  # fmt: skip
#: of a filesystem, not of a directory
_WHOLE = frozenset((TREE_OF_HOST, TREE_OF_STORAGE, TREE_OF_TERMINALS, TREE_OF_LOGS))
#: below these, mount points belong to containers
_ENGINES = (
    "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet",
    "/var/lib/rancher", "/var/lib/crio", "/var/lib/ringfence", "/var/snap", "/run/containerd",
    "/run/containers", "/run/docker", "/run/k3s", "/run/crio", "/run/netns", "/run/ringfence",
    "/run/runc", "/run/crun", "/run/user",
)  # fmt: skip
#: filesystems of the kernel: other rules name them, or nothing on them outlives a container
_OF_KERNEL = frozenset((
    "autofs", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts",
    "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "resctrl",
    "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
))  # fmt: skip
#: below an engine's directory: what containers share, or are given
_OF_MEMORY = frozenset(("devtmpfs", "ramfs", "tmpfs"))
#: storage that other machines share; a look-up there may wait for them
_REMOTE = re.compile(r"9p|afs|ceph|cifs|fuse\..*|gfs2|glusterfs|lustre|nfs4?|ocfs2|smb3")
#: what runs as root on the host reads files below these, and follows links
_LOGS = re.compile(r".*/var/log(/.*)?", re.DOTALL)
_ROUNDS = 10  # calls of `refresh` between two looks at the directories


class HostTrees:
    """Used by the loop only. Call `refresh` each second."""

    def __init__(self, table: Map, more: Iterable[str] = (), root: Path | None = None) -> None:
        """`table` is the map `host_trees`; `more` are the directories of the configuration."""
        self._table, self._root = table, root or host_root()
        self._given = {**GIVEN, TREE_GIVEN: (*GIVEN[TREE_GIVEN], *more)}
        self._given_places = _at_or_below(self._given[TREE_GIVEN])
        self._written: dict[bytes, int] = {}
        self._round = 0
        self._absent: list[str] = []
        self._fails = False
        self._log = log.get_logger("trees")
        self._mounts = _watched(self._root)
        self.refresh()

    def close(self) -> None:
        """Release the descriptor of the mount table."""
        if self._mounts is not None:
            os.close(self._mounts)
            self._mounts = None

    def refresh(self) -> None:
        """Update the map if the host's mounts have changed, and now and then in any case."""
        due = self._round % _ROUNDS == 0
        self._round += 1
        if not (self._mounts_changed() or due or self._appeared()):
            return
        try:
            self._write(self._find())
        except OSError as error:
            if not self._fails:
                self._log.error("the host's files cannot be identified", error=str(error))
            self._fails = True  # what is known stays
            return
        self._fails = False

    def _appeared(self) -> bool:
        """Returns True if a directory that is given, and did not exist, does now."""
        return any(os.path.lexists(path) for path in self._absent)

    def _mounts_changed(self) -> bool:
        if self._mounts is None:
            return False
        poll = select.poll()
        poll.register(self._mounts, select.POLLPRI)
        return bool(poll.poll(0))

    def _find(self) -> dict[bytes, int]:
        mounts = list(mountinfo.read(self._root / "proc/1"))
        apart = [mount for mount in mounts if self._is_apart(mount)]
        of_host = [mount for mount in mounts if not self._is_apart(mount)]
        storage = self._devices_of_storage(apart)
        found = {_key(_device(mount), 0): TREE_OF_STORAGE for mount in apart if mount.device in storage}
        found |= {_key(_device(mount), 0): TREE_OF_HOST for mount in of_host}
        found |= {_key(_device(mount), 0): TREE_OF_TERMINALS for mount in self._terminals(apart)}
        devices = {mount.id: mount.device for mount in mounts}
        elsewhere = [mount.target for mount in apart if mount.device not in storage]
        self._absent = self._paths_absent(elsewhere)
        roots = self._roots([mount for mount in of_host if mount.whole], devices)
        for kind, path, fd in self._directories(elsewhere):
            key = _key(*identify(fd, devices))
            if kind == TREE_GIVEN and _LOGS.fullmatch(path):
                kind = TREE_LOG_DIRECTORY
            # The root of a filesystem that the host has in another place, too, is not given.
            if roots.get(key, {path}) == {path}:
                found.setdefault(key, kind)
        hosts = set(found)
        for mount in apart:
            if _is_for_logs(mount) and _key(_device(mount), 0) not in hosts:
                found.update(self._filesystem_for_logs(mount, devices))
        return found

    def _filesystem_for_logs(self, mount: MountLine, devices: Mapping[str, str]) -> dict[bytes, int]:
        """Entries for a filesystem that the host has at, or below, a directory of logs only."""
        key = self._at(mount, devices)
        return {key: TREE_LOG_DIRECTORY, _key(_device(mount), 0): TREE_OF_LOGS} if key else {}

    def _roots(self, mounts: Iterable[MountLine], devices: Mapping[str, str]) -> dict[bytes, set[str]]:
        """The directories at which these mounts are, with the places of the mounts."""
        found: dict[bytes, set[str]] = {}
        for mount in mounts:
            key = self._at(mount, devices)
            if key:
                found.setdefault(key, set()).add(mount.target)
        return found

    def _at(self, mount: MountLine, devices: Mapping[str, str]) -> bytes | None:
        """The directory that is at a mount point; None: it cannot be opened."""
        with suppress(OSError):
            fd = os.open(os.path.join(self._root, mount.target.lstrip("/")), os.O_PATH | os.O_CLOEXEC)
            try:
                return _key(*identify(fd, devices))
            finally:
                os.close(fd)
        return None

    def _is_apart(self, mount: MountLine) -> bool:
        """Returns True for a mount that does not make its filesystem the host's."""
        if mount.target == "/":
            return False
        return (
            mount.fstype in _OF_KERNEL
            or _REMOTE.fullmatch(mount.fstype) is not None
            or self._given_places.fullmatch(mount.target) is not None
            or _BELOW_ENGINES.fullmatch(mount.target) is not None
            or _BELOW_HOMES.fullmatch(mount.target) is not None
        )

    def _terminals(self, mounts: Iterable[MountLine]) -> Iterator[MountLine]:
        """The mounts of devpts that are not those of containers."""
        for mount in mounts:
            if mount.fstype == "devpts" and _BELOW_ENGINES.fullmatch(mount.target) is None:
                yield mount

    def _devices_of_storage(self, apart: Iterable[MountLine]) -> set[str]:
        """The filesystems that an engine mounted for containers, and that are nothing they are given."""
        roots: set[str] = set()
        disks: set[str] = set()
        given: set[str] = set()
        for mount in apart:
            if mount.fstype in _OF_KERNEL | _OF_MEMORY or _REMOTE.fullmatch(mount.fstype):
                continue
            if mount.fstype == "overlay" and mount.target.endswith(("/merged", "/rootfs")):
                roots.add(mount.device)  # wherever the engine has its data
            elif self._given_places.fullmatch(mount.target):
                given.add(mount.device)
            elif _BELOW_ENGINES.fullmatch(mount.target):
                disks.add(mount.device)
        return roots | disks - given

    def _directories(self, elsewhere: Sequence[str]) -> Iterator[tuple[int, str, int]]:
        """What containers are given on the host's filesystems: its kind, path and descriptor.

        The next one closes the descriptor.
        """
        top = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for kind, patterns in self._given.items():
                for pattern in patterns:
                    yield from ((kind, path, fd) for path, fd in _opened(top, pattern, elsewhere))
        finally:
            os.close(top)

    def _paths_absent(self, elsewhere: Sequence[str]) -> list[str]:
        """Those that may appear. A look at one on another machine's storage could wait for it."""
        fixed = (path for paths in self._given.values() for path in paths if "*" not in path)
        here = (path for path in fixed if not _is_below(path, elsewhere))
        paths = (os.path.join(self._root, path.lstrip("/")) for path in here)
        return [path for path in paths if not os.path.lexists(path)]

    def _write(self, wanted: dict[bytes, int]) -> None:
        changed = {key: kind for key, kind in wanted.items() if self._written.get(key) != kind}
        # Filesystems last: until then, nothing is the host's that a container was given.
        for key in sorted(changed, key=lambda key: changed[key] in _WHOLE):
            self._table.set(key, changed[key])
        for key in self._written.keys() - wanted.keys():
            self._table.delete(key)
        self._written = wanted


def _watched(root: Path) -> int | None:
    """A descriptor that polls as urgent when the host's mounts have changed; None: none."""
    with suppress(OSError):
        return os.open(root / "proc/1/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    return None


def _opened(top: int, pattern: str, elsewhere: Sequence[str]) -> Iterator[tuple[str, int]]:
    """The paths that match, each with a descriptor, which the next one closes.

    A directory with a variable name is not the host's administrator's. A link there is not followed.
    """
    resolve = RESOLVE_IN_ROOT | (RESOLVE_NO_SYMLINKS if "*" in pattern else 0)
    for path in _expand(top, pattern, elsewhere):
        if _is_below(path, elsewhere):
            continue
        try:
            fd = openat2(top, path, os.O_PATH, resolve=resolve)
        except OSError:
            continue
        try:
            yield path, fd
        finally:
            os.close(fd)


def _expand(top: int, pattern: str, elsewhere: Sequence[str]) -> Iterator[str]:
    """The paths that a pattern may mean: its `*` is any part of one component."""
    head, star, _ = pattern.partition("*")
    directory = head.rpartition("/")[0]
    if not star:
        yield pattern
    if not star or _is_below(directory, elsewhere):
        return
    component, slash, rest = pattern.removeprefix(f"{directory}/").partition("/")
    try:
        fd = openat2(top, directory, os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT)
    except OSError:
        return
    try:
        names = fnmatch.filter(os.listdir(fd), component)
    finally:
        os.close(fd)
    yield from (f"{directory}/{name}{slash}{rest}" for name in sorted(names))


def _is_below(path: str, directories: Iterable[str]) -> bool:
    return any(path == above or path.startswith(f"{above}/") for above in directories)


def _is_for_logs(mount: MountLine) -> bool:
    remote = _REMOTE.fullmatch(mount.fstype) is not None
    return _LOGS.fullmatch(mount.target) is not None and mount.fstype not in _OF_KERNEL and not remote


def _at_or_below(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"{_component_pattern(path)}(/.*)?" for path in patterns), re.DOTALL)


def _below(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"{_component_pattern(path)}/.+" for path in patterns), re.DOTALL)


def _component_pattern(path: str) -> str:
    return re.escape(path).replace(r"\*", "[^/]*")


def _device(mount: MountLine) -> int:
    major, minor = map(int, mount.device.split(":"))
    return major << 20 | minor


def _key(device: int, inode: int) -> bytes:
    return TREE_KEY.pack(device, inode)


_BELOW_ENGINES = _below(_ENGINES)
_BELOW_HOMES = _below(GIVEN[TREE_HOME])
