# SPDX-License-Identifier: Apache-2.0
"""The seccomp profile of containers that come without one: Docker's default in meaning, and narrower.

Everything that an ordinary program does is allowed. What reaches beyond its own process needs the capability
that the kernel asks for, too. The rest fails with EPERM, and calls newer than this table with ENOSYS (see
`seccomp`). Beyond Docker's default there is no io_uring (operations of a ring pass no filter), no socket of
the families AF_KEY, AF_RXRPC, AF_ALG and AF_VSOCK, no socketcall(2), whose families no filter can see, and no
namespace of any kind by clone, CLONE_NEWTIME included. These are rows 57, 49, 50 and 58 of the escape
checklist (policies/README.md).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

__all__ = ["FAMILIES_REFUSED", "profile"]

_EPERM, _ENOSYS = 1, 38
_WORD = 0xFFFFFFFF  # the kernel takes these arguments as 32 bits: what stands above must not hide them

# What every program may call, by what it is for. One word stands for all the forms of a call that some
# architecture has: `+32` with 32-bit ids, `+64` with large files, `+_time64` with times after 2038.
_FILES = """
    access faccessat faccessat2 open openat openat2 creat close close_range read write readv writev
    pread64 pwrite64 preadv preadv2 pwritev pwritev2 lseek _llseek readahead copy_file_range sendfile+64
    splice tee vmsplice truncate+64 ftruncate+64 fallocate fadvise64+_64 sync syncfs fsync fdatasync
    sync_file_range cachestat stat+64 lstat+64 fstat+64 fstatat64 newfstatat statx statfs+64 fstatfs+64
    getdents+64 name_to_handle_at mkdir mkdirat rmdir link linkat symlink symlinkat readlink readlinkat
    unlink unlinkat rename renameat renameat2 mknod mknodat chmod fchmod fchmodat fchmodat2 chown+32
    fchown+32 lchown+32 fchownat umask utime utimes futimesat utimensat+_time64 chdir fchdir getcwd dup
    dup2 dup3 fcntl fcntl64 flock ioctl pipe pipe2 getxattr lgetxattr fgetxattr setxattr lsetxattr
    fsetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr getxattrat
    setxattrat listxattrat removexattrat inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
    fanotify_mark
"""
_MEMORY = """
    brk mmap mmap2 munmap mremap mprotect msync madvise mincore mlock mlock2 mlockall munlock munlockall
    mseal memfd_create memfd_secret remap_file_pages pkey_alloc pkey_free pkey_mprotect membarrier
    map_shadow_stack shmget shmat shmdt shmctl semget semop semtimedop+_time64 semctl msgget msgsnd
    msgrcv msgctl ipc mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend+_time64
    mq_timedreceive+_time64
"""
_WAITING = """
    select _newselect pselect6+_time64 poll ppoll+_time64 epoll_create epoll_create1 epoll_ctl
    epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4
    timerfd_create timerfd_settime+64 timerfd_gettime+64 futex+_time64 futex_waitv futex_wait futex_wake
    futex_requeue io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents+_time64
"""
_NETWORK = """
    socketpair bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt shutdown
    send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg+_time64
"""
_PROCESSES = """
    fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid
    getpgrp getsid setpgid setsid kill tkill tgkill pause pidfd_open pidfd_send_signal process_mrelease
    prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self capget capset rseq
    uretprobe set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area
    restart_syscall sigaltstack sigprocmask sigreturn rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait+_time64 rt_tgsigqueueinfo ptrace
    process_vm_readv process_vm_writev sched_yield sched_getaffinity sched_setaffinity sched_getattr
    sched_setattr sched_getparam sched_setparam sched_getscheduler sched_setscheduler
    sched_get_priority_max sched_get_priority_min sched_rr_get_interval+_time64 getpriority setpriority
    ioprio_get ioprio_set getcpu getrlimit setrlimit ugetrlimit prlimit64 getrusage times
"""
_IDENTITY = """
    getuid+32 geteuid+32 getgid+32 getegid+32 getresuid+32 getresgid+32 getgroups+32 setuid+32 setgid+32
    setreuid+32 setregid+32 setresuid+32 setresgid+32 setfsuid+32 setfsgid+32 setgroups+32
"""
_TIME = """
    time gettimeofday clock_gettime+64 clock_getres+_time64 clock_nanosleep+_time64 nanosleep adjtimex
    clock_adjtime+64 alarm getitimer setitimer timer_create timer_delete timer_getoverrun
    timer_gettime+64 timer_settime+64 uname sysinfo getrandom
"""
_BY_MACHINE = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
}
_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
# What the kernel asks a capability for, and is of no use without it.
_BY_CAPABILITY = {
    "CAP_SYS_ADMIN": """
        bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
        open_tree open_tree_attr statmount listmount perf_event_open quotactl quotactl_fd setdomainname
        sethostname setns syslog umount umount2 unshare
    """,
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}
# personality(2): the ordinary domain, UNAME26, both with ADDR_COMPAT_LAYOUT's 32-bit form, and asking.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
# Every CLONE_NEW* flag. CLONE_NEWTIME lies where clone(2) has the signal of its end: no signal has that bit.
_NEW_NAMESPACES = 0x7E020000 | 0x80
_LAST_FAMILY = 45  # AF_MCTP; what is newer is unknown to the kernels of this table
#: AF_KEY, AF_RXRPC, AF_ALG, AF_VSOCK
FAMILIES_REFUSED = (15, 33, 38, 40)


def _words(text: str) -> list[str]:
    """The names in a table, with the other forms of those that have some."""
    names: list[str] = []
    for word in text.split():
        name, _, form = word.partition("+")
        names.append(name)
        if form:
            names.append(name + (form if form.startswith("_") or form.isdecimal() else f"_{form}"))
    return names


def _when(value: int, mask: int = _WORD) -> list[dict[str, Any]]:
    """A condition on the first argument: what `mask` leaves of it is `value`."""
    return [{"index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}]


def _allow(names: list[str], args: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ALLOW", **({"args": args} if args else {})}


def _hide(name: str) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS}


def profile(capabilities: Collection[str], machine: str = "") -> dict[str, Any]:
    """`linux.seccomp` for a container with these capabilities in its bounding set."""
    machine = machine or os.uname().machine
    tables = (_FILES, _MEMORY, _WAITING, _NETWORK, _PROCESSES, _IDENTITY, _TIME, _BY_MACHINE.get(machine, ""))
    granted = [name for name in _BY_CAPABILITY if name in capabilities]
    names = [*_words(" ".join(tables)), *_words(" ".join(_BY_CAPABILITY[name] for name in granted))]
    rules = [_allow(list(dict.fromkeys(names)))]
    rules += [_allow(["personality"], _when(value)) for value in _PERSONALITIES]
    rules += [
        _allow(["socket"], _when(family))
        for family in range(_LAST_FAMILY + 1)
        if family not in FAMILIES_REFUSED
    ]
    if "CAP_SYS_ADMIN" in capabilities:
        rules.append(_allow(["clone"]))
    else:
        rules.append(_allow(["clone"], _when(0, _NEW_NAMESPACES)))
        # Its flags lie in memory, where no filter looks: C libraries that get ENOSYS take clone instead.
        rules.append(_hide("clone3"))
    if machine == "x86_64":
        rules.append(_hide("socketcall"))
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": list(_ARCHITECTURES.get(machine, ())),
        "syscalls": rules,
    }
