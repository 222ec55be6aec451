# SPDX-License-Identifier: Apache-2.0
"""User-id mappings: written for a new user namespace, and user namespaces made only to carry one."""

from __future__ import annotations

import os

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error, SpecError
from ringfence_runtime.spec.mounts import IdMapping, Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringfence_runtime.spec.config import Config

__all__ = ["make_userns", "userns_for", "write_maps"]


def _write(pid: int, name: str, text: str) -> None:
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def write_maps(pid: int, uids: Sequence[IdMapping], gids: Sequence[IdMapping]) -> None:
    """Map the ids of the user namespace of `pid`, with newuidmap where this process is not root."""
    for name, ranges in (("uid_map", uids), ("gid_map", gids)):
        text = "".join(item.line() for item in ranges)
        try:
            if os.geteuid() == 0:
                _write(pid, name, text)
            else:
                _rootless(pid, name, ranges, text)
        except OSError as error:
            raise Error(f"config: linux.{name[:3]}Mappings: cannot write {name}: {error.strerror}") from None


def _rootless(pid: int, name: str, ranges: Sequence[IdMapping], text: str) -> None:
    own = os.geteuid() if name == "uid_map" else os.getegid()
    if len(ranges) == 1 and ranges[0].size == 1 and ranges[0].host == own:
        if name == "gid_map":
            _write(pid, "setgroups", "deny")
        return _write(pid, name, text)
    helper = "newuidmap" if name == "uid_map" else "newgidmap"
    words = [str(word) for item in ranges for word in (item.container, item.host, item.size)]
    for directory in ("/usr/bin", "/bin", "/usr/sbin"):
        if os.access(f"{directory}/{helper}", os.X_OK):
            child = os.posix_spawn(
                f"{directory}/{helper}", [helper, str(pid), *words], {"PATH": "/usr/bin:/bin"}
            )
            if os.waitpid(child, 0)[1]:
                raise Error(f"{helper} refused the mapping", hint="see /etc/subuid and /etc/subgid")
            return None
    raise Error(f"{helper} is not installed", hint="a user who is not root needs it (package uidmap)")


def _option_ranges(mount: Mount) -> tuple[list[IdMapping], list[IdMapping]]:
    """`idmap=uids=0-1000-10#5-2000-1;gids=...`, crun's form of a mapping in an option."""
    text = mount.idmap.partition("=")[2]
    found: dict[str, list[IdMapping]] = {"uids": [], "gids": []}
    for part in text.split(";"):
        key, _, ranges = part.partition("=")
        if key not in found:
            raise SpecError(f"{mount.path}.options", f"{mount.idmap!r} is not idmap=uids=A-B-N;gids=A-B-N")
        for item in ranges.split("#"):
            numbers = item.lstrip("@+").split("-")
            if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
                raise SpecError(f"{mount.path}.options", f"{item!r} is not a range A-B-N")
            found[key].append(IdMapping(int(numbers[0]), int(numbers[1]), int(numbers[2])))
    return found["uids"], found["gids"]


def userns_for(mount: Mount, config: Config, joined: int) -> int:
    """A descriptor of a user namespace with the mount's mapping; the process that made it is gone again.

    `joined`: the user namespace that the container joins, whose mapping holds where none is given; -1: none.
    """
    uids: Sequence[IdMapping] = mount.uid_map
    gids: Sequence[IdMapping] = mount.gid_map
    if not uids and "=" in mount.idmap:
        uids, gids = _option_ranges(mount)
    if not uids:
        uids, gids = config.linux.uid_map, config.linux.gid_map
    if not uids and joined >= 0:
        return os.dup(joined)
    if not uids or not gids:
        raise SpecError(f"{mount.path}.options", "idmap needs uidMappings here or in linux")
    return make_userns(uids, gids)


def make_userns(uids: Sequence[IdMapping], gids: Sequence[IdMapping]) -> int:
    """A descriptor of a new user namespace with this mapping, which holds no process."""
    read, write = os.pipe()
    pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWUSER)
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    try:
        write_maps(pid, uids, gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(read)
        os.close(write)
        os.close(pidfd)
        os.waitpid(pid, 0)
