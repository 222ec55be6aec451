# SPDX-License-Identifier: Apache-2.0
"""Usermode helpers: the programs that the kernel may run on this node, as they were set before the
agent started, and those that the configuration adds. Writes only the probes' map.

Rules match all others by `known: no` of the event kernel.helper. A value that was in core_pattern
before the agent started is trusted, because the agent cannot find out which process wrote it. A
later value is not trusted. So the paths are fixed at the start; the files behind them are looked
up regularly, because packages are upgraded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ringfence import log
from ringfence.abi import HELPER_CORE, HELPER_KEY, HELPER_OTHER
from ringfence.bpf.host import identify
from ringfence.bpf.maps import Map
from ringfence.containers.host import host_root
from ringfence.policy.operand import fnv1a
from ringfence_linux import mountinfo
from ringfence_linux.mountinfo import MountLine
from ringfence_linux.syscalls import open_in_root

__all__ = ["Helper", "UsermodeHelpers", "configured", "find", "keys"]

#: files that hold a program's path: core_pattern behind a `|`; of core_pattern and poweroff_cmd
#: the first word
_SETTINGS = {
    "proc/sys/kernel/modprobe": HELPER_OTHER,
    "proc/sys/kernel/core_pattern": HELPER_CORE,
    "proc/sys/kernel/hotplug": HELPER_OTHER,
    "proc/sys/kernel/poweroff_cmd": HELPER_OTHER,
    "sys/kernel/uevent_helper": HELPER_OTHER,
}
#: paths in the kernel's source: kernel/reboot.c, security/keys, net/bridge, fs/nfsd, fs/nfs, drbd
_BUILT_IN = (
    "/sbin/poweroff",
    "/sbin/reboot",
    "/sbin/request-key",
    "/sbin/bridge-stp",
    "/sbin/nfsdcltrack",
    "/sbin/nfs_cache_getent",
    "/sbin/drbdadm",
)
_MOST = 4096  # bytes of a setting: PATH_MAX


class Helper(NamedTuple):
    """A program: its path as the kernel has it, its uses (HELPER_*), and the file that it is.

    device as the kernel packs it; `changed` is the inode's ctime in nanoseconds, as inode numbers
    are reused.
    """

    path: str
    uses: int
    device: int
    inode: int
    changed: int


def configured(root: Path = Path("/")) -> Iterator[tuple[str, int]]:
    """The paths that the kernel is configured to run on the host with this root, with their uses
    (HELPER_*).

    Bytes that are not UTF-8 become lone surrogates: a container may have chosen them.
    """
    for name, use in _SETTINGS.items():
        with suppress(OSError):
            yield from _program(_head(root / name), use)
    for mount in _cgroup_mounts(root):
        with suppress(OSError):
            yield from _program(_head(root / mount.lstrip("/") / "release_agent"), HELPER_OTHER)
    yield from ((path, HELPER_OTHER) for path in _BUILT_IN)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST)


def _program(setting: bytes, use: int) -> Iterator[tuple[str, int]]:
    words = setting.strip().removeprefix(b"|").split()
    if words and words[0].startswith(b"/"):
        yield words[0].decode(errors="surrogateescape"), use


def _cgroup_mounts(root: Path) -> Iterator[str]:
    return (mount.target for mount in _mounts(root) if mount.fstype == "cgroup" and mount.root == "/")


def _mounts(root: Path) -> Iterator[MountLine]:
    with suppress(OSError):
        yield from mountinfo.read(root / "proc/1")


def find(paths: Mapping[str, int], root: Path = Path("/")) -> list[Helper]:
    """The paths (with HELPER_*) that exist, as the host resolves them: absolute links start at its
    root.
    """
    devices = {mount.id: mount.device for mount in _mounts(root)}
    return [
        Helper(path, paths[path], *identify(fd, devices), os.fstat(fd).st_ctime_ns)
        for path, fd in _opened(paths, root)
    ]


def _opened(paths: Iterable[str], root: Path) -> Iterator[tuple[str, int]]:
    """Each path that exists, with a descriptor that is valid until the next one is requested."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in paths:
            try:
                fd = open_in_root(top, path)
            except OSError:
                continue
            try:
                yield path, fd
            finally:
                os.close(fd)
    finally:
        os.close(top)


def keys(helpers: Iterable[Helper]) -> dict[bytes, bytes]:
    """Entries of the map `helpers`: each by path and file, and by path alone, which is all that is
    known of a script.
    """
    found: dict[bytes, int] = {}
    for helper in helpers:
        path = fnv1a(helper.path.encode(errors="surrogateescape"))
        for file in ((helper.device, helper.inode, helper.changed), (0, 0, 0)):
            key = HELPER_KEY.pack(*file, path)
            found[key] = found.get(key, 0) | helper.uses
    return {key: uses.to_bytes(4, "little") for key, uses in found.items()}


class UsermodeHelpers:
    """The trusted paths, fixed at construction, and the probes' map of the files behind them."""

    def __init__(self, table: Map, more: Iterable[Path] = (), root: Path | None = None) -> None:
        """`table` is the map `helpers`; `more` are the helpers of the configuration."""
        self._table, self._root = table, root or host_root()
        self._paths: dict[str, int] = dict.fromkeys(map(str, more), HELPER_CORE | HELPER_OTHER)
        for path, use in configured(self._root):
            self._paths[path] = self._paths.get(path, 0) | use
        self._known: dict[str, Helper] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._fails = False
        self._log = log.get_logger("helpers")
        self.refresh()
        if lost := sorted({str(path) for path in more} - self._known.keys()):
            self._log.warning("configured helpers do not exist", paths=lost)

    def refresh(self) -> None:
        """Look up the files again, and update the map. Called each second."""
        try:
            seen = self._look()
            if seen == self._seen and not self._fails:
                return
            now = {helper.path: helper for helper in find(self._paths, self._root)}
        except OSError as error:
            if not self._fails:
                self._log.error(
                    "the node's usermode helpers cannot be looked up", root=str(self._root), error=str(error)
                )
            self._fails = True
            return  # the known ones stay
        self._seen, self._fails = seen, False
        self._take(now)

    def _look(self) -> dict[str, tuple[int, int, int]]:
        """A cheap fingerprint of each file; it changes when the file is replaced."""
        states = ((path, os.fstat(fd)) for path, fd in _opened(self._paths, self._root))
        return {path: (state.st_dev, state.st_ino, state.st_ctime_ns) for path, state in states}

    def _take(self, now: dict[str, Helper]) -> None:
        for path in sorted(path for path, helper in now.items() if self._known.get(path, helper) != helper):
            self._log.info("a usermode helper is another file now", path=path, inode=now[path].inode)
        wanted = keys(now.values())
        self._table.update_batch(wanted)
        for key in keys(self._known.values()).keys() - wanted.keys():
            self._table.delete(key)
        self._known = now
