# SPDX-License-Identifier: Apache-2.0
"""The attempts of the demonstration, and the event that must report each."""

from __future__ import annotations

from typing import NamedTuple

from tests.escape.attack_target import BESIDE, HELPER, LEAKED

__all__ = ["ATTEMPTS", "Attempt"]


class Attempt(NamedTuple):
    """One escape attempt. `attack` is a command of tests/escape/attacks; any of `events` can report it."""

    technique: str
    attack: tuple[str, ...]
    events: tuple[str, ...]
    stop: bool = True  # False: often benign, so the pack only alerts
    host_pid: bool = False  # from the container that shares the host's pid namespace
    earlier: tuple[str, ...] = ()  # events that may stop it before its call, where programs decide at hooks


CORE_PATTERN = "/proc/sys/kernel/core_pattern"
ROOT_OF_HELPER = f"/proc/{HELPER}/root/etc/hosts"

ATTEMPTS = (
    Attempt("mount a disk of the host", ("mount", "ext4", "/dev/vda1"), ("mount",)),
    Attempt("a second procfs, by the new mount API", ("fsopen", "proc"), ("fsopen",)),
    Attempt("clone a mount tree by descriptor", ("open_tree", "/etc"), ("open_tree",)),
    Attempt("unmask: clear read-only by mount_setattr", ("mount_setattr", "/tmp"), ("mount_setattr",)),
    Attempt("write kernel.core_pattern", ("rewrite", CORE_PATTERN), ("sysctl.access", "file.open")),
    Attempt("make a node of a raw disk", ("mknod", "b", "259", "1048575"), ("device.access", "mknod")),
    Attempt("enter a namespace outside (nsenter)", ("setns", "/run/ns-host-uts"), ("setns",)),
    Attempt("nsenter -m into a service of the host", ("setns", f"/proc/{HELPER}/ns/mnt"), ("setns",), host_pid=True, earlier=("file.open",)),
    Attempt("a new user namespace, for more capabilities", ("unshare", "0x10000000"), ("unshare",)),
    Attempt("trace a process of the host", ("ptrace", HELPER), ("ptrace",), host_pid=True),
    Attempt("steal a descriptor of a host process", ("getfd", HELPER, "1"), ("pidfd_getfd",), host_pid=True),
    Attempt("a file of the host, by a leaked descriptor", ("openat", LEAKED, "secret"), ("file.open",)),
    Attempt("a file of the host, by /proc/PID/root", ("open", ROOT_OF_HELPER), ("file.open",), host_pid=True),
    Attempt("open by file handle (shocker)", ("handle", "/tmp"), ("open_by_handle_at",)),
    Attempt("load a kernel module", ("init_module",), ("module_load",)),
    Attempt("load a BPF program", ("bpf",), ("bpf",)),
    Attempt("load another kernel by kexec", ("kexec",), ("kexec",)),
    Attempt("AF_ALG socket by the 32-bit socketcall", ("socketcall", "38", "5"), ("socket",)),
    Attempt("the cloud's metadata service", ("connect", "169.254.169.254", "80"), ("network.connect",)),
    Attempt("the container runtime's socket", ("unix", "/run/docker.sock"), ("unix.connect",)),
    Attempt("run a program from memory, without a file", ("memfd", "/bin/busybox"), ("process.exec",)),
    Attempt("io_uring, a way around seccomp", ("io_uring",), ("io_uring_setup",), stop=False),
    Attempt("leave the container's cgroup", ("leave", BESIDE), ("cgroup.attach",)),
)  # fmt: skip
