# SPDX-License-Identifier: Apache-2.0
"""The LSM hooks that decide events: the table used by loading, attaching, tiers and explanations.

A hook's program is `SEC("lsm/HOOK")` in probes/lsm_*.bpf.c; a test compares. probes/include/lsm.h
explains how to write one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ringfence.abi import EventKind
from ringfence.bpf import guard_calls

__all__ = [
    "CHECKPOINT_HOOKS",
    "DECIDED",
    "FOLLOW_HOOKS",
    "HELPER_HOOK",
    "HOOKS",
    "SETNS_PROGRAMS",
    "VOID_HOOKS",
    "Decided",
    "backstop_of",
    "decided_by",
    "function_of",
    "hook_program",
    "hooks_for",
]


class Decided(NamedTuple):
    """How an event is decided: by all hooks of `needs`, or not at all; also by available ones of `also`.

    `also` describes what is not decided if a hook is missing; empty: the others see it, later. `less`
    describes cases in which weaker tiers would see more; empty: none. `text`: the string is the kernel's
    copy, which the caller cannot change any more.
    """

    needs: tuple[str, ...]
    also: Mapping[str, str] = MappingProxyType({})
    less: str = ""
    text: bool = False


#: where helpers of the kernel are decided; without it, when they have become the program
HELPER_HOOK = "bprm_creds_for_exec"
_K = EventKind
_UNPRIVILEGED = "an attempt that fails for lack of a capability reaches no hook: it is not seen"

DECIDED: Mapping[EventKind, Decided] = {
    # ---- invariants: lsm_invariants.bpf.c
    _K.KERNEL_HELPER: Decided((HELPER_HOOK,)),
    _K.TASK_DRIFT: Decided((HELPER_HOOK,), also={"file_open": "a check at each open"}),
    # ---- files: lsm_file.bpf.c
    _K.FILE_OPEN: Decided(
        ("file_open",),
        also={
            "path_link": "hard links",
            "path_rename": "renames",
            "path_unlink": "removal",
            "path_rmdir": "removal of directories",
            "path_mkdir": "new directories",
            "path_mknod": "new files: O_CREAT still creates an empty one",
            "path_symlink": "new symbolic links",
            "path_truncate": "truncate",
            "path_chmod": "changes of mode",
            "path_chown": "changes of owner",
            "file_fcntl": "leases",
        },
        less="an open with O_PATH, which gives no access, reaches no hook: it is not seen",
    ),
    _K.FILE_MAP: Decided(("mmap_file", "file_mprotect")),
    _K.FILE_RECEIVE: Decided(("file_receive",)),
    _K.FILE_LINK: Decided(
        ("path_symlink",), also={"path_rename": "links that are moved", "path_link": "hard links of links"}
    ),
    _K.HOST_MAP: Decided(("mmap_file",), also={"file_mprotect": ""}),
    _K.SYS_IOCTL: Decided(("file_ioctl",), also={"file_ioctl_compat": ""}),
    # ---- programs: lsm_program.bpf.c
    _K.PROCESS_EXEC: Decided(
        ("bprm_check_security",),
        less="the first program of a container is killed before its first instruction, not denied",
    ),
    # ---- directories and modes: lsm_path.bpf.c
    _K.SYS_MKNOD: Decided(("path_mknod",)),
    _K.SYS_SYMLINK: Decided(("path_symlink",), text=True),
    _K.SYS_CHMOD: Decided(("path_chmod", "path_mknod"), also={"file_open": "files created without a name"}),
    _K.SYS_SETXATTR: Decided(
        ("inode_setxattr",),
        also={
            "inode_removexattr": "removal",
            "inode_set_acl": "access lists, from 6.2 on",
            "inode_remove_acl": "their removal, from 6.2 on",
            "inode_file_setattr": "inode flags by file_setattr, from 6.17 on",
            "inode_setattr": "times",
        },
        text=True,
    ),
    _K.SYS_CHROOT: Decided(("path_chroot",), less=_UNPRIVILEGED, text=True),
    _K.SYS_RENAME: Decided(("path_rename",), text=True),
    # ---- mounts: lsm_mount.bpf.c
    _K.SYS_MOUNT: Decided(("sb_mount", "sb_kern_mount", "sb_remount"), text=True),
    _K.SYS_UMOUNT: Decided(("sb_umount",), less=_UNPRIVILEGED),
    _K.SYS_PIVOT_ROOT: Decided(("sb_pivotroot",), less=_UNPRIVILEGED),
    _K.SYS_FSCONFIG: Decided(
        ("fs_context_parse_param",),
        less="only parameters are seen; the final creation or change is the event mount",
        text=True,
    ),
    _K.SYS_MOVE_MOUNT: Decided(("move_mount",), less=_UNPRIVILEGED),
    _K.SYS_FSOPEN: Decided(("capable",), less=_UNPRIVILEGED),
    _K.SYS_FSMOUNT: Decided(("capable",), less=_UNPRIVILEGED),
    _K.SYS_FSPICK: Decided(("capable",), less=_UNPRIVILEGED),
    _K.SYS_OPEN_TREE: Decided(
        ("capable",), less="only clones of a tree reach a hook: a call without OPEN_TREE_CLONE is not seen"
    ),
    _K.SYS_MOUNT_SETATTR: Decided(("capable",), less=_UNPRIVILEGED),
    # ---- tasks: lsm_task.bpf.c, lsm_call.bpf.c
    _K.SYS_CLONE: Decided(("task_alloc",), also={"userns_create": ""}),
    _K.SYS_UNSHARE: Decided(("capable", "userns_create"), less=_UNPRIVILEGED),
    _K.SYS_SETNS: Decided(("capable", "ptrace_access_check"), less=_UNPRIVILEGED),
    _K.SYS_PTRACE: Decided(
        ("ptrace_access_check", "ptrace_traceme"),
        less="requests to an already traced process reach no hook: they are not seen",
    ),
    _K.SYS_PROCESS_VM: Decided(("ptrace_access_check",), less="a process can do this to itself unseen"),
    _K.SYS_PIDFD_GETFD: Decided(("ptrace_access_check",), less="a process can do this to itself unseen"),
    # lsm_look.bpf.c
    _K.PROCESS_LOOK: Decided(
        ("ptrace_access_check",),
        also={
            "task_setrlimit": "changes of limits",
            "task_setnice": "changes of priority",
            "task_setioprio": "changes of I/O priority",
            "task_setscheduler": "changes of scheduling",
            "task_movememory": "memory moved between nodes",
        },
    ),
    _K.SYS_SIGNAL: Decided(
        ("task_kill",),
        also={
            "file_fcntl": "F_SETOWN",
            "file_set_fowner": "F_SETOWN_EX and ioctls that another thread changes",
            "file_send_sigiotask": "",
        },
        less="a process can signal itself unseen",
    ),
    _K.SYS_CAPSET: Decided(("capset",)),
    _K.SYS_SETUID: Decided(("task_fix_setuid",), less=_UNPRIVILEGED),
    _K.SYS_SETGID: Decided(("task_fix_setgid", "task_fix_setgroups"), less=_UNPRIVILEGED),
    _K.SYS_OPEN_BY_HANDLE_AT: Decided(("capable",), less=_UNPRIVILEGED),
    # ---- the kernel itself: lsm_kernel.bpf.c, lsm_call.bpf.c
    _K.SYS_BPF: Decided(("bpf",), less=_UNPRIVILEGED),
    _K.SYS_PERF_EVENT_OPEN: Decided(("perf_event_open",), less=_UNPRIVILEGED),
    _K.SYS_MODULE_LOAD: Decided(
        ("capable", "kernel_read_file", "kernel_load_data"), {"locked_down": ""}, less=_UNPRIVILEGED
    ),
    _K.SYS_MODULE_UNLOAD: Decided(("capable",), less=_UNPRIVILEGED),
    _K.SYS_KEXEC: Decided(
        ("capable", "kernel_read_file", "kernel_load_data"), {"locked_down": ""}, less=_UNPRIVILEGED
    ),
    _K.SYS_USERFAULTFD: Decided(("inode_init_security_anon",), less=_UNPRIVILEGED),
    _K.SYS_IO_URING_SETUP: Decided(("inode_init_security_anon",), {"uring_allowed": "", "uring_sqpoll": ""}),
    _K.SYS_KEYCTL: Decided(
        ("key_alloc", "key_permission"), less="a call that finds no key reaches no hook: it is not seen"
    ),
    _K.MODULE_REQUEST: Decided(("kernel_module_request",), text=True),
    _K.SYS_IOPL: Decided(("capable",), {"locked_down": ""}, less=_UNPRIVILEGED),
    _K.SYS_SYSLOG: Decided(("syslog",), less=_UNPRIVILEGED),
    _K.SYS_REBOOT: Decided(("capable",), less=_UNPRIVILEGED),
    _K.SYS_SWAP: Decided(("capable",), less=_UNPRIVILEGED),
    _K.SYS_SETTIME: Decided(("capable",), less=_UNPRIVILEGED),
    _K.SYS_ACCT: Decided(("capable",), less=_UNPRIVILEGED),
    _K.SYS_QUOTACTL: Decided(("quotactl",), {"capable": ""}, less=_UNPRIVILEGED),
    _K.SYS_SETDOMAIN: Decided(("capable",), less=_UNPRIVILEGED),
    _K.SYS_FANOTIFY_INIT: Decided(("capable",), less=_UNPRIVILEGED),
    # ---- network: lsm_network.bpf.c
    _K.SYS_SOCKET: Decided(("socket_create",)),
    _K.SETSOCKOPT: Decided(("socket_setsockopt",)),
    _K.UEVENT_SEND: Decided(("netlink_send",)),  # lsm_netlink.bpf.c
    _K.UNIX_CONNECT: Decided(("unix_stream_connect", "unix_may_send")),
}

#: hooks at which tasks are followed (probes/lsm_follow.bpf.c), whatever rules there are
FOLLOW_HOOKS = frozenset(("task_alloc", "bprm_committed_creds"))
#: hooks at which a task's namespaces and credentials are checked besides opens and execs
#: (probes/lsm_checkpoint.bpf.c), if any rule is on drift or setns
CHECKPOINT_HOOKS = frozenset(
    (
        *("path_link", "path_rename", "path_unlink", "path_rmdir", "path_mkdir", "path_mknod"),
        *("path_symlink", "path_truncate", "path_chmod", "path_chown", "path_chroot", "inode_setxattr"),
        *("sb_mount", "sb_umount", "sb_pivotroot", "move_mount"),
        *("socket_create", "socket_bind", "socket_connect", "unix_stream_connect", "unix_may_send"),
        *("task_alloc", "userns_create", "task_kill", "ptrace_access_check"),
        *("bpf", "file_ioctl", "capable"),
    )
)
#: programs that know which namespace setns enters (probes/setns.bpf.c), one for each kind
SETNS_PROGRAMS = frozenset(
    f"setns_{kind}" for kind in ("mnt", "pid", "net", "user", "uts", "ipc", "cgroup", "time")
)
#: every hook with a program in the probes
HOOKS = (
    guard_calls.LSM_HOOKS
    | FOLLOW_HOOKS
    | CHECKPOINT_HOOKS
    | {hook for way in DECIDED.values() for hook in (*way.needs, *way.also)}
)
#: hooks without a result: they only follow
VOID_HOOKS = frozenset(("bprm_committed_creds", "file_set_fowner"))
#: the functions that are not named `security_HOOK`
_FUNCTIONS = {"userns_create": "security_create_user_ns", "bprm_check_security": "security_bprm_check"}


_BACKSTOP = "backstop_"


def function_of(hook: str) -> str:
    """Returns the kernel's function that calls this hook, and nothing else does."""
    return _FUNCTIONS.get(hook, f"security_{hook}")


def hook_program(program: str) -> str:
    """Returns the program whose backstop this is (probes/include/backstop.h); of others, the name itself."""
    return program.removeprefix(_BACKSTOP)


def backstop_of(program: str) -> str:
    """Returns the name of the backstop of a program at a hook."""
    return f"{_BACKSTOP}{program}"


def decided_by(available: Collection[str]) -> dict[EventKind, tuple[str, ...]]:
    """Returns the events that these hooks decide, each with the hooks that it uses."""
    return {
        kind: (*way.needs, *(hook for hook in way.also if hook in available))
        for kind, way in DECIDED.items()
        if all(hook in available for hook in way.needs)
    }


def hooks_for(kinds: Iterable[EventKind], decided: Mapping[EventKind, Iterable[str]]) -> frozenset[str]:
    """Returns the hooks to attach for these events, from a result of `decided_by`."""
    return frozenset(hook for kind in kinds for hook in decided.get(kind, ()))
