# SPDX-License-Identifier: Apache-2.0
"""The steps of an init as a `Program`, where a launch is of the common shape; None for any other.

What is laid out here is what child.py does, in the same order and with the same checks. That is the rule for
changes, too: child.py first, since it also serves whatever gets None here or goes otherwise than foreseen.
tests/runtime runs with both.
"""

from __future__ import annotations

import errno
import os
from _struct import pack

from ringfence_runtime import _sys
from ringfence_runtime.launch.identity import candidates, latest
from ringfence_runtime.launch.native_root import furnish, leave_host
from ringfence_runtime.launch.program import Program
from ringfence_runtime.security import caps, landlock
from ringfence_runtime.spec.linux import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.cgroup.group import Cgroup
    from ringfence_runtime.launch.plan import Plan
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.spec.config import Config
    from ringfence_runtime.spec.process import Process

__all__ = ["KEYRING", "lay_out"]

#: the data that the name of the session keyring is written to
KEYRING = 512
_RESOLVE = _sys.RESOLVE_IN_ROOT | _sys.RESOLVE_NO_MAGICLINKS
_MOST_PATH = 4096
_JOIN_SESSION, _SETPERM = 1, 5
# What a new session keyring has (security/keys/process_keys.c, join_session_keyring), and search by its user.
_KEYRING_PERMISSIONS = 0x3F1B0000


def is_common(plan: Plan) -> bool:
    """Whether the launch is of the shape that `lay_out` knows."""
    config, options = plan.config, plan.options
    process = config.process
    return (
        process is not None
        and bool(process.args)
        and not process.terminal
        and not (process.apparmor or process.selinux or process.scheduler or process.io_priority)
        and process.user.umask in (None, *range(0o1000))
        and config.linux.new("mount")
        and not plan.staged
        and not plan.deferred
        and plan.options.rootfs_fd < 0
        and "user" not in config.linux.namespaces
        and not any(config.hooks.values())
        and not (config.linux.memory_policy or config.linux.mount_label)
        and not config.linux.net_devices
        and not options.no_pivot
        and not options.output
        and not options.listen_fds
        and not options.handed
        and not (config.linux.landlock or landlock.wanted(config))
    )


def lay_out(
    plan: Plan, group: Cgroup, seccomp: Filter | None, *, listening: bool
) -> tuple[Program, int] | None:
    """The program, and where in its data the keyring's name goes; None where a launch is not a common one."""
    if not is_common(plan) or (seccomp is not None and seccomp.listener):
        return None
    config = plan.config
    assert config.process is not None
    program = Program()
    keyring = program.data(bytes(KEYRING), own=True)
    _settle(program, plan, group, keyring)
    if not furnish(program, plan, group):
        return None
    leave_host(program, plan)
    if not _identity(program, config, config.process, seccomp, listening=listening):
        return None
    return (program, keyring) if program.fits() else None


def _settle(program: Program, plan: Plan, group: Cgroup, keyring: int) -> None:
    if plan.options.streams is not None:
        for number in range(3):
            program.call("dup3", program.fd(f"stream {number}"), number, 0)
    for index, key in enumerate(group.dirs):
        if key:  # of version 2 the init is a member from its birth
            file, flags = program.slot(), os.O_WRONLY | os.O_CLOEXEC
            program.call("openat", program.fd(f"cgroup {index}"), b"tasks", flags, 0, into=file)
            program.call("write", file, b"0", 1)
    linux = plan.config.linux
    for name in plan.namespaces:
        program.call("setns", program.fd(f"join {name}"), NAMESPACES[name])
    if linux.new("cgroup"):
        program.call("unshare", _sys.CLONE_NEWCGROUP)
    if linux.new("network"):
        loopback = program.slot()
        program.call("socket", 2, 2 | os.O_CLOEXEC, 0, into=loopback)
        program.call("ioctl", loopback, 0x8914, program.at(program.data(pack("16sH14x", b"lo", 1))))
    if not plan.options.keep_keyring:
        serial = program.slot()
        lost = (errno.ENOSYS, errno.EPERM)  # see keyring.py
        place = program.call("keyctl", _JOIN_SESSION, program.at(keyring), into=serial, errors=lost)
        program.call("keyctl", _SETPERM, serial, _KEYRING_PERMISSIONS, errors=lost)
        program.skip(place)


def _identity(
    program: Program, config: Config, process: Process, seccomp: Filter | None, *, listening: bool
) -> bool:
    env, home = _environment(program, process)
    if home:
        root = program.slot()
        program.call("openat", _sys.AT_FDCWD, b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, into=root)
        program.add("home", root, _RESOLVE, process.user.uid, program.at(home))
    program.call("umask", 0o022 if process.user.umask is None else process.user.umask)
    if config.linux.personality is not None:
        program.call("personality", config.linux.personality)
    program.add("directory", process.cwd.encode("utf-8", "surrogateescape"))
    program.add("streams", process.user.uid, process.user.gid)
    if not _become(program, process, seccomp=seccomp is not None):
        return False
    if process.no_new_privs:
        program.call("prctl", _sys.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    program.call("prctl", _sys.PR_SET_DUMPABLE, 0, 0, 0, 0)
    arguments = program.vector([os.fsencode(word) for word in process.args])
    paths = [os.fsencode(path) for path in candidates(process.args[0], latest(process).values())]
    program.add("find", b"\0".join([*paths, b""]))
    program.call("close_range", 3, 0xFFFFFFFF, 4)
    program.add("ready", *([program.fd("listener")] if listening else [0]))
    if seccomp is not None:
        code = program.data(seccomp.program)
        filter_ = program.pointing(pack("<HxxxxxxQ", len(seccomp.program) // 8, code), 8)
        program.call("seccomp", 1, seccomp.flags, program.at(filter_))
    program.add("execute", program.at(arguments), program.at(env), os.fsencode(process.args[0]))
    return True


def _environment(program: Program, process: Process) -> tuple[int, int]:
    """(the vector, the offset of HOME or 0 where it is given): see identity.environment."""
    variables = latest(process)
    if variables.get("HOME", "HOME=").partition("=")[2]:
        return program.vector([os.fsencode(item) for item in variables.values()]), 0
    home = program.data(b"HOME=/".ljust(_MOST_PATH + 8, b"\0"), own=True)
    variables["HOME"] = ""
    return program.vector([os.fsencode(item) if item else home for item in variables.values()]), home


def _become(program: Program, process: Process, *, seccomp: bool) -> bool:
    """See identity.become; False where this host cannot grant all of it, which wants a warning."""
    user, sets = process.user, process.capabilities
    available = caps.held()
    if sets is None or (sets["permitted"] | sets["effective"]) & ~available:
        return False
    program.add("drop_bounding", sets["bounding"])
    groups = program.data(pack(f"<{len(user.groups)}I", *user.groups) or bytes(4))
    program.call("setgroups", len(user.groups), program.at(groups))
    program.call("prctl", _sys.PR_SET_KEEPCAPS, 1, 0, 0, 0)
    program.call("setresgid", user.gid, user.gid, user.gid)
    program.call("setresuid", user.uid, user.uid, user.uid)
    keep = caps.SYS_ADMIN & available if seccomp and not process.no_new_privs else 0
    permitted = sets["permitted"]
    effective = sets["effective"] & permitted
    inheritable = sets["inheritable"] & available
    words = [effective | keep, permitted | keep, inheritable]
    data = pack("<6I", *(word & 0xFFFFFFFF for word in words), *(word >> 32 for word in words))
    header = program.data(pack("<Ii", 0x20080522, 0))
    program.call("capset", program.at(header), program.at(program.data(data)))
    program.call("prctl", _sys.PR_CAP_AMBIENT, _sys.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    ambient = sets["ambient"] & permitted & inheritable
    for number in range(64):
        if ambient >> number & 1:
            program.call("prctl", _sys.PR_CAP_AMBIENT, _sys.PR_CAP_AMBIENT_RAISE, number, 0, 0)
    program.call("prctl", _sys.PR_SET_KEEPCAPS, 0, 0, 0, 0)
    return True
