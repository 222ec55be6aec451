# SPDX-License-Identifier: Apache-2.0
"""Which LSM hooks decide which events: the table behind loading, attaching, tiers and what is said of them.

A hook's program is `SEC("lsm/HOOK")` of probes/lsm_*.bpf.c; a test compares. How such a program is written
is said in probes/include/lsm.h.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from ringfence.abi import EventKind

__all__ = ["DECIDED", "HELPER_HOOK", "HOOKS", "Decided", "decided_by", "hooks_for"]


class Decided(NamedTuple):
    """How an event is decided: by every hook of `needs`, or not at all; by those of `also` that are there.

    `less` says in which cases the weaker tiers would have seen more; empty: in none.
    """

    needs: tuple[str, ...]
    also: tuple[str, ...] = ()
    less: str = ""


#: where helpers of the kernel are decided; without it, when they have become the program
HELPER_HOOK = "bprm_creds_for_exec"
_K = EventKind
_UNPRIVILEGED = "what the kernel refuses for want of a capability asks no hook: such an attempt is not seen"

DECIDED: Mapping[EventKind, Decided] = {
    # ---- invariants: lsm_invariants.bpf.c
    _K.KERNEL_HELPER: Decided((HELPER_HOOK,)),
    _K.TASK_DRIFT: Decided((HELPER_HOOK,), also=("file_open",)),
    # ---- files: lsm_file.bpf.c
    _K.FILE_OPEN: Decided(
        ("file_open",),
        also=("path_link", "path_rename"),
        less="an open with O_PATH, which gives no access, asks no hook: it is not seen",
    ),
    _K.FILE_MAP: Decided(("mmap_file", "file_mprotect")),
    _K.FILE_RECEIVE: Decided(("file_receive",)),
    _K.SYS_IOCTL: Decided(("file_ioctl",), also=("file_ioctl_compat",)),
    # ---- programs: lsm_program.bpf.c
    _K.PROCESS_EXEC: Decided(
        ("bprm_check_security",),
        less="the first program of a container is killed before its first instruction, not denied",
    ),
    # ---- directories and modes: lsm_path.bpf.c
    _K.SYS_MKNOD: Decided(("path_mknod",)),
    _K.SYS_SYMLINK: Decided(("path_symlink",)),
    _K.SYS_CHMOD: Decided(("path_chmod", "path_mknod")),
    _K.SYS_CHROOT: Decided(("path_chroot",), less=_UNPRIVILEGED),
    # ---- mounts: lsm_mount.bpf.c
    _K.SYS_MOUNT: Decided(("sb_mount", "sb_kern_mount", "sb_remount")),
    _K.SYS_UMOUNT: Decided(("sb_umount",), less=_UNPRIVILEGED),
    _K.SYS_PIVOT_ROOT: Decided(("sb_pivotroot",), less=_UNPRIVILEGED),
    _K.SYS_MOVE_MOUNT: Decided(("move_mount",), less=_UNPRIVILEGED),
    # ---- tasks: lsm_task.bpf.c
    # ---- the kernel itself: lsm_kernel.bpf.c
    # ---- network: lsm_network.bpf.c
}

#: every hook that the probes have a program for
HOOKS = frozenset(hook for way in DECIDED.values() for hook in (*way.needs, *way.also))


def decided_by(available: Collection[str]) -> dict[EventKind, tuple[str, ...]]:
    """The events that these hooks decide, each with those of them that it takes."""
    return {
        kind: (*way.needs, *(hook for hook in way.also if hook in available))
        for kind, way in DECIDED.items()
        if all(hook in available for hook in way.needs)
    }


def hooks_for(kinds: Iterable[EventKind], decided: Mapping[EventKind, Iterable[str]]) -> frozenset[str]:
    """The hooks that must be attached for these events, of what `decided_by` gave."""
    return frozenset(hook for kind in kinds for hook in decided.get(kind, ()))
