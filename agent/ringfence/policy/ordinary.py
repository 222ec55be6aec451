# SPDX-License-Identifier: Apache-2.0
"""Sample events of ordinary container behaviour, for `ringfence policy check`.

A rule that stops one of these stops containers, and a rule that reports one reports nothing useful.
"""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.abi import EventKind
from ringfence.policy.model import Rule
from ringfence.policy.operand import fnv1a
from ringfence.policy.samples import Sample, device_sample, file_sample, rule_matches, sample

__all__ = ["ORDINARY", "VITAL", "matched"]

_K = EventKind
_TCGETS = 0x5401  # what isatty() asks
VITAL: tuple[Sample, ...] = (
    sample(_K.CONTAINER_START, "the start of an ordinary container", vital=True, seccomp="filter"),
    file_sample(_K.PROCESS_EXEC, "overlay", b"/usr/bin/sh", "the start of a shell of the image"),
    file_sample(_K.FILE_OPEN, "overlay", b"/usr/lib/libc.so.6", "the opening of a library of the image",
                access="read", type="file"),
    file_sample(_K.FILE_OPEN, "overlay", b"/etc/ld.so.cache", "the opening of /etc/ld.so.cache by the loader",
                access="read", type="file"),
    file_sample(_K.FILE_OPEN, "overlay", b"/var/lib/app/data", "the writing of a file of the container",
                access="write", type="file"),
    file_sample(_K.FILE_OPEN, "tmpfs", b"/null", "the opening of /dev/null", access="write",
                type="character-device"),
    file_sample(_K.FILE_OPEN, "proc", b"/self/status", "the opening of /proc/self/status", access="read",
                type="file"),
    file_sample(_K.FILE_OPEN, "devpts", b"/0", "the opening of the container's terminal", access="write",
                type="character-device"),
    file_sample(_K.FILE_MAP, "overlay", b"/usr/lib/libc.so.6", "the loading of a library of the image",
                access="read", type="file"),
    device_sample("the opening of /dev/null", 1, 3, "write"),
    device_sample("the opening of /dev/urandom", 1, 9, "read"),
    device_sample("the opening of the container's terminal", 136, 0, "write"),
    sample(_K.SYS_CLONE, "the start of a process", vital=True, flags=0),
    sample(_K.SYS_CLONE, "the start of a thread", vital=True, flags=0x3D0F00),
    sample(_K.SYS_SOCKET, "a TCP socket", vital=True, family="AF_INET", type="SOCK_STREAM"),
    sample(_K.SYS_SOCKET, "a unix socket", vital=True, family="AF_UNIX", type="SOCK_STREAM"),
    sample(_K.SYS_IOCTL, "the test whether output is a terminal", vital=True, request=_TCGETS),
    sample(_K.NET_CONNECT, "a connection to another service", vital=True, port=5432, family="AF_INET",
           protocol="tcp"),
    sample(_K.NET_CONNECT, "a DNS query over a connected socket", vital=True, port=53,
           family="AF_INET", protocol="udp"),
    sample(_K.NET_SENDMSG, "a DNS query", vital=True, port=53, family="AF_INET", protocol="udp"),
    sample(_K.NET_BIND, "a server that binds its port", vital=True, port=8080, family="AF_INET",
           protocol="tcp", address=bytes(4)),
    sample(_K.UNIX_CONNECT, "a connection to a database in the container", vital=True, server="container",
           text=b"/var/run/postgresql/.s.PGSQL.5432"),
    sample(_K.SYSCTL_ACCESS, "reading the host name", vital=True, access="read", text=b"kernel/hostname"),
)  # fmt: skip
#: legitimate, but containers can run without it
ORDINARY: tuple[Sample, ...] = (
    *VITAL,
    sample(_K.KERNEL_HELPER, "modprobe, when the node loads a module", text=b"/usr/bin/modprobe",
           filesystem="disk", known="yes", name=fnv1a(b"modprobe")),
    file_sample(_K.FILE_RECEIVE, "sockfs", b"/socket:[1]", "receiving a connection from its own server",
                vital=False, mount="none", type="socket"),
    file_sample(_K.FILE_LINK, "overlay", b"/usr/lib/libx.so", "a link inside the image", vital=False),
    sample(_K.SYS_UNSHARE, "`unshare -u`", flags="CLONE_NEWUTS"),
    sample(_K.SYS_SETNS, "a return to its own namespace", nstype="CLONE_NEWNET", target="self"),
    sample(_K.SYS_PTRACE, "strace of a child process", request="PTRACE_SEIZE", target="container"),
    sample(_K.SYS_PROCESS_VM, "a debugger of a child process", call="process_vm_readv", target="container"),
    sample(_K.SYS_PIDFD_GETFD, "a copy of its own descriptor", target="self"),
    sample(_K.SYS_PERF_EVENT_OPEN, "a program that measures itself", target="self"),
    sample(_K.SYS_CHMOD, "`chmod 755`", mode="execute"),
    sample(_K.SYS_CHROOT, "a service that confines itself by chroot", chrooted="no", target="other"),
    sample(_K.SYS_MEMFD_CREATE, "a buffer in memory", flags="MFD_CLOEXEC", call="memfd_create"),
    sample(_K.SYS_SETUID, "a service that drops its privileges", uid=1000, call="setuid"),
    sample(_K.SYS_SETGID, "a service that drops its groups", gid=1000, call="setgid"),
    sample(_K.SYS_CAPSET, "a service that drops its capabilities"),
    sample(_K.SYS_SECCOMP, "a program that sets its own filter", operation="SECCOMP_SET_MODE_FILTER"),
    sample(_K.SYS_SPLICE, "a proxy that moves bytes from socket to socket", call="splice", source="other"),
    sample(_K.SYS_RENAME, "`mv -n`", flags="RENAME_NOREPLACE"),
    sample(_K.SYS_SYMLINK, "a link inside the image", text=b"libx.so.1"),
    sample(_K.SYS_KEYCTL, "`su`, which creates a session keyring", operation="KEYCTL_JOIN_SESSION_KEYRING",
           call="keyctl"),
)  # fmt: skip


def matched(rule: Rule) -> Iterator[Sample]:
    """Returns the ordinary events that a rule, with its exceptions, matches."""
    return (one for one in ORDINARY if rule_matches(rule, one))
