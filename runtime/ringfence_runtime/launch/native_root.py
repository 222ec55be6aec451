# SPDX-License-Identifier: Apache-2.0
"""The container's view of files as steps of a `Program`: what rootfs.py, mounts.py, devices.py and
cgroupmount.py do, laid out beforehand.
"""

from __future__ import annotations

import errno
import os
import stat
from _struct import pack

from ringfence_runtime import _sys
from ringfence_runtime.launch.devices import LINKS, default_devices
from ringfence_runtime.launch.mounts import HARD, NEEDS_REAL_DIRECTORY, may_cover
from ringfence_runtime.launch.plan import early_propagation, late_propagation
from ringfence_runtime.launch.program import Program, Slot
from ringfence_runtime.spec.linux import DEVICE_TYPES
from ringfence_runtime.spec.mounts import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ringfence_runtime.cgroup.group import Cgroup
    from ringfence_runtime.launch.plan import Plan
    from ringfence_runtime.spec.config import Config
    from ringfence_runtime.spec.mounts import Mount

__all__ = ["furnish", "leave_host"]

_RESOLVE = _sys.RESOLVE_IN_ROOT | _sys.RESOLVE_NO_MAGICLINKS
_STRICT = _RESOLVE | _sys.RESOLVE_NO_SYMLINKS
_O_PATH = os.O_PATH | os.O_CLOEXEC
_TO_FD = 0x04 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
_MODE_TEXT = 8
_NOT_MADE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


class _Builder:
    """Shared words of the steps below."""

    def __init__(self, program: Program, root: Slot) -> None:
        self.program = program
        self.root = root
        self.directories: dict[str, Slot] = {}

    def filesystem(self, fstype: str, options: Iterable[tuple[str, str | Slot | None]], attr: int) -> Slot:
        """A detached mount of a new filesystem; an option's value may be data that a step writes."""
        program = self.program
        context, tree = program.slot(), program.slot()
        program.call("fsopen", _text(fstype), 1, into=context)
        for key, value in options:
            if value is None:
                program.call("fsconfig", context, 0, _text(key), 0, 0)
            else:
                program.call(
                    "fsconfig", context, 1, _text(key), value if isinstance(value, Slot) else _text(value), 0
                )
        program.call("fsconfig", context, 6, 0, 0, 0)
        program.call("fsmount", context, 1, attr, into=tree)
        return tree

    def set_attributes(
        self, tree: Slot, *, on: int = 0, off: int = 0, propagation: int = 0, recursive: bool = False
    ) -> None:
        flags = _sys.AT_EMPTY_PATH | (_sys.AT_RECURSIVE if recursive else 0)
        data = _sys.mount_attributes(on, off, propagation)
        self.program.call(
            "mount_setattr", tree, b"", flags, self.program.at(self.program.data(data)), len(data)
        )

    def ensure(
        self,
        path: str,
        *,
        directory: bool,
        follow: bool,
        root: Slot | None = None,
        errors: tuple[int, ...] = (),
    ) -> Slot:
        found, resolve = self.program.slot(), _RESOLVE if follow else _STRICT
        self.program.add(
            "ensure", root or self.root, _text(path), int(directory), resolve, into=found, errors=errors
        )
        return found

    def open_at(self, root: Slot, path: str, flags: int, resolve: int) -> Slot:
        found = self.program.slot()
        how = pack("<QQQ", flags, 0, resolve)
        self.program.call(
            "openat2", root, _text(path), self.program.at(self.program.data(how)), 24, into=found
        )
        return found

    def open_below(self, path: str, found: Slot) -> int:
        """Open what may be absent; the place of the step, to be told how far to skip then."""
        how = self.program.at(self.program.data(pack("<QQQ", _O_PATH, 0, _RESOLVE)))
        absent = (errno.ENOENT, errno.ENOTDIR)
        name = _text(path.lstrip("/") or ".")
        return self.program.call("openat2", self.root, name, how, 24, into=found, errors=absent)

    def move(self, tree: Slot, target: Slot) -> None:
        self.program.call("move_mount", tree, b"", target, b"", _TO_FD)

    def directory(self, path: str) -> Slot:
        """The directory of a node, opened once: no symlink on the way."""
        if path not in self.directories:
            self.directories[path] = self.ensure(path or "/", directory=True, follow=False)
        return self.directories[path]


def furnish(program: Program, plan: Plan, group: Cgroup) -> bool:
    """All of rootfs.enter, rootfs.furnish and what follows until the root is left; False where it cannot
    be.
    """
    config = plan.config
    program.call("umask", 0)
    root = program.fd("rootfs")
    build = _Builder(program, root)
    null = _enter(build, plan)
    procfs = build.filesystem("proc", (("source", "proc"),), 0)
    program.add("check_magic", procfs, _sys.PROC_SUPER_MAGIC)
    devpts: Slot | None = None
    for index, mount in enumerate(config.mounts):
        tree = _mount(build, plan, group, index, mount)
        if tree is None:
            return False
        if mount.type == "devpts" and mount.destination.rstrip("/") == "/dev/pts":
            devpts = tree
    if not _devices(build, config, devpts):
        return False
    if config.hostname:
        program.call("sethostname", _text(config.hostname), len(_text(config.hostname)))
    if config.domainname:
        program.call("setdomainname", _text(config.domainname), len(_text(config.domainname)))
    _sysctls(build, config, procfs)
    _seal(build, config, null)
    return True


def _enter(build: _Builder, plan: Plan) -> Slot:
    program = build.program
    program.call("mount", 0, b"/", 0, _sys.MS_PRIVATE | _sys.MS_REC, 0)
    place, null = program.slot(), program.slot()
    program.call("openat", _sys.AT_FDCWD, _text(plan.rootfs), _O_PATH | os.O_DIRECTORY, 0, into=place)
    program.call("openat", _sys.AT_FDCWD, b"/dev/null", _O_PATH, 0, into=null)
    program.add("check_device", null, stat.S_IFCHR, os.makedev(1, 3))
    build.move(build.root, place)
    if kind := early_propagation(plan):
        build.set_attributes(build.root, propagation=kind, recursive=True)
    return null


def _mount(build: _Builder, plan: Plan, group: Cgroup, index: int, mount: Mount) -> Slot | None:
    if mount.copy_up or mount.copy_symlink or mount.dest_nofollow or mount.destination.strip("/") == "":
        return None
    if mount.own_propagation and late_propagation(plan):
        return None
    if mount.type == "cgroup" or (mount.type == "cgroup2" and not mount.bind):
        return _cgroup(build, plan, group, mount)
    if mount.bind:
        tree = build.program.fd(f"mount {index}")
        directory = os.path.isdir(f"/proc/self/fd/{plan.mount_fds[index]}")
        if (kind := early_propagation(plan)) and not mount.own_propagation:
            build.set_attributes(tree, propagation=kind, recursive=True)
        if mount.attr_set or mount.attr_clr:
            build.set_attributes(tree, on=mount.attr_set, off=mount.attr_clr)
    else:
        if mount.attr_set & _sys.MOUNT_ATTR_RDONLY and mount.source.startswith("/"):
            return None  # a block device
        tree, directory = build.filesystem(mount.type, _options(build, mount), mount.attr_set), True
    if mount.rattr_set or mount.rattr_clr:
        build.set_attributes(tree, on=mount.rattr_set, off=mount.rattr_clr, recursive=True)
    _attach(build, mount, tree, directory=directory)
    return tree


def _options(build: _Builder, mount: Mount) -> Iterable[tuple[str, str | Slot | None]]:
    yield "source", mount.source or mount.type
    yield from words(mount)
    if mount.type == "tmpfs" and not any(option.startswith("mode=") for option in mount.data):
        mode = build.program.at(build.program.data(bytes(_MODE_TEXT), own=True))
        build.program.add("existing_mode", build.root, _text(mount.destination), _RESOLVE, mode)
        yield "mode", mode


def _attach(build: _Builder, mount: Mount, tree: Slot, *, directory: bool) -> None:
    follow = mount.type not in NEEDS_REAL_DIRECTORY
    target = build.ensure(mount.destination, directory=directory, follow=follow)
    if not may_cover(mount):
        build.program.add("check_not_magic", target, _sys.PROC_SUPER_MAGIC)
    build.move(tree, target)
    if mount.rpropagation:
        build.set_attributes(tree, propagation=mount.rpropagation, recursive=True)
    if mount.propagation:
        build.set_attributes(tree, propagation=mount.propagation)


def _cgroup(build: _Builder, plan: Plan, group: Cgroup, mount: Mount) -> Slot | None:
    """See cgroupmount.py."""
    own = "cgroup" in plan.config.linux.namespaces
    if group.is_v2 or mount.type == "cgroup2":
        if not own:
            return None
        tree = build.filesystem("cgroup2", (("source", "cgroup2"),), mount.attr_set)
        _attach(build, mount, tree, directory=True)
        return tree
    hard = HARD & ~_sys.MOUNT_ATTR_RDONLY
    base = build.filesystem("tmpfs", (("source", "tmpfs"), ("mode", "755")), hard)
    _attach(build, mount, base, directory=True)
    for index, (key, directory) in enumerate(group.dirs.items()):
        name = os.path.basename(directory[: -len(group.path)]) if key else "unified"
        tree = _hierarchy(build, key, mount) if own else _bind_cgroup(build, index, mount)
        build.move(tree, build.ensure(name, directory=True, follow=True, root=base))
        for controller in key.split(","):
            if key != controller and controller != name:
                build.program.call("symlinkat", _text(name), base, _text(controller))
    if mount.attr_set & _sys.MOUNT_ATTR_RDONLY:
        build.set_attributes(base, on=_sys.MOUNT_ATTR_RDONLY)
    return base


def _hierarchy(build: _Builder, key: str, mount: Mount) -> Slot:
    fstype = "cgroup" if key else "cgroup2"
    options: list[tuple[str, str | None]] = [("source", fstype)]
    for word in key.split(",") if key else ():
        name, equals, value = word.partition("=")
        options += [("none", None), (name, value)] if equals else [(name, None)]
    return build.filesystem(fstype, options, mount.attr_set)


def _bind_cgroup(build: _Builder, index: int, mount: Mount) -> Slot:
    tree = build.program.fd(f"cgroup mount {index}")
    if mount.attr_set or mount.attr_clr:
        build.set_attributes(tree, on=mount.attr_set, off=mount.attr_clr)
    if mount.rattr_set or mount.rattr_clr:
        build.set_attributes(tree, on=mount.rattr_set, off=mount.rattr_clr, recursive=True)
    return tree


def _devices(build: _Builder, config: Config, devpts: Slot | None) -> bool:
    if any(mount.bind and mount.destination.rstrip("/") == "/dev" for mount in config.mounts):
        return False
    wanted = {device.path: device for device in default_devices()}
    wanted.update({device.path: device for device in config.linux.devices})
    program = build.program
    for device in wanted.values():
        if device.path.rstrip("/") == "/dev/ptmx" and devpts is not None:
            continue
        parent, _, name = device.path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            return False
        directory, node = build.directory(parent), program.slot()
        kind, number = DEVICE_TYPES[device.type], os.makedev(device.major, device.minor)
        program.call("mknodat", directory, _text(name), kind | device.mode, number)
        if device.uid or device.gid:
            program.call("openat", directory, _text(name), _O_PATH | os.O_NOFOLLOW, 0, into=node)
            program.call("fchownat", node, b"", device.uid, device.gid, _sys.AT_EMPTY_PATH)
    _links(build, devpts)
    return True


def _links(build: _Builder, devpts: Slot | None) -> None:
    program, directory = build.program, build.directory("/dev")
    for target, name in LINKS:
        program.call("symlinkat", _text(target), directory, _text(name), errors=(errno.EEXIST,))
    if devpts is not None:
        # Where the image has something that cannot go away, that stays.
        errors = (errno.EBUSY, errno.EISDIR, errno.EROFS, errno.ENOENT)
        program.call("unlinkat", directory, b"ptmx", 0, errors=errors)
        program.call("symlinkat", b"pts/ptmx", directory, b"ptmx", errors=(errno.EEXIST,))


def _sysctls(build: _Builder, config: Config, procfs: Slot) -> None:
    resolve = _sys.RESOLVE_BENEATH | _sys.RESOLVE_NO_SYMLINKS | _sys.RESOLVE_NO_XDEV
    for name, value in config.linux.sysctls.items():
        file = build.open_at(procfs, f"sys/{name}", os.O_WRONLY | os.O_CLOEXEC, resolve)
        build.program.add("check_magic", file, _sys.PROC_SUPER_MAGIC)
        build.program.call("write", file, value.encode(), len(value.encode()))


def _seal(build: _Builder, config: Config, null: Slot) -> None:
    """Working directory, read-only and masked paths and, last, the root itself."""
    if config.process is not None:
        # Where it cannot be made, entering it says so; an image's read-only one is there already.
        build.ensure(config.process.cwd, directory=True, follow=True, errors=_NOT_MADE)
    for path in config.linux.readonly:
        _readonly(build, path)
    for path in config.linux.masked:
        _mask(build, path, null)
    if config.root_readonly:
        build.set_attributes(build.root, on=_sys.MOUNT_ATTR_RDONLY)


def _readonly(build: _Builder, path: str) -> None:
    program, target, tree = build.program, build.program.slot(), build.program.slot()
    absent = build.open_below(path, target)
    flags = _sys.OPEN_TREE_CLONE | _sys.AT_EMPTY_PATH | _sys.AT_RECURSIVE | os.O_CLOEXEC
    program.call("open_tree", target, b"", flags, into=tree)
    build.set_attributes(tree, on=_sys.MOUNT_ATTR_RDONLY, recursive=True)
    build.move(tree, target)
    program.skip(absent)


def _mask(build: _Builder, path: str, null: Slot) -> None:
    program, target, node = build.program, build.program.slot(), build.program.slot()
    absent = build.open_below(path, target)
    other = program.add("skip_unless_directory", target)
    options = (("source", "tmpfs"), ("size", "0"), ("nr_inodes", "1"), ("mode", "0"))
    build.move(build.filesystem("tmpfs", options, HARD), target)
    done = program.add("skip")
    program.skip(other)
    flags = _sys.OPEN_TREE_CLONE | _sys.AT_EMPTY_PATH | os.O_CLOEXEC
    program.call("open_tree", null, b"", flags, into=node)
    build.set_attributes(node, on=_sys.MOUNT_ATTR_NOSUID | _sys.MOUNT_ATTR_NOEXEC)
    build.move(node, target)
    program.skip(done)
    program.skip(absent)


def leave_host(program: Program, plan: Plan) -> None:
    """pivot_root, and what follows it: see rootfs.pivot."""
    program.call("fchdir", program.fd("rootfs"))
    program.call("pivot_root", b".", b".")
    program.call("umount2", b".", _sys.MNT_DETACH)
    program.call("chdir", b"/")
    if kind := late_propagation(plan):
        program.call("mount", 0, b"/", 0, kind, 0)
