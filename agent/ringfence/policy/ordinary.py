# SPDX-License-Identifier: Apache-2.0
"""What every container does all day, as events. A rule that stops it stops containers, and one that tells of
it tells of nothing. For `ringfence policy check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ringfence.abi import DIM_EXE, DIM_FACTS, EventKind
from ringfence.policy.lower import TooMany, lower
from ringfence.policy.model import Rule
from ringfence.policy.operand import Conjunction, Networks, Predicate, Texts, fnv1a
from ringfence.policy.vocabulary import EVENTS

__all__ = ["ORDINARY", "VITAL", "Sample", "matched"]


@dataclass(frozen=True)
class Sample:
    """One event. `vital`: a container that cannot do it does not run."""

    kind: EventKind
    what: str
    numbers: Mapping[int, int] = field(default_factory=dict)
    text: bytes = b""
    vital: bool = False

    def meets(self, conjunction: Conjunction) -> bool:
        """Whether all of it holds for this event."""
        return all(self._holds(predicate) for predicate in conjunction)

    def _holds(self, predicate: Predicate) -> bool:
        if isinstance(predicate, Texts):
            return predicate.holds(self.text)
        if isinstance(predicate, Networks):
            return predicate.holds(4, bytes((10, 0, 0, 7)))
        return predicate.holds(self.numbers.get(predicate.dim, 0))


def _sample(
    kind: EventKind, what: str, *, vital: bool = False, text: bytes = b"", **words: str | int
) -> Sample:
    numbers = {DIM_FACTS: 0, DIM_EXE: fnv1a(b"/usr/bin/program")}
    for name, word in words.items():
        operand = EVENTS[kind].operand(name)
        assert operand is not None, (kind, name)
        value = word if isinstance(word, int) else operand.words[word][0]
        numbers[operand.dim] = numbers.get(operand.dim, 0) | value
    return Sample(kind, what, numbers, text, vital)


def _file(kind: EventKind, filesystem: str, path: bytes, what: str, **more: str | int) -> Sample:
    name = fnv1a(path.rpartition(b"/")[2])
    return _sample(kind, what, vital=True, text=path, filesystem=filesystem, name=name, **more)


def _device(what: str, major: int, minor: int, access: str) -> Sample:
    numbers = {0: 2, 1: {"read": 2, "write": 4}[access], 2: major << 20 | minor, 3: major}
    return Sample(EventKind.DEVICE_ACCESS, what, {**numbers, DIM_FACTS: 0}, vital=True)


_K = EventKind
ORDINARY: tuple[Sample, ...] = (
    _sample(_K.CONTAINER_START, "the start of an ordinary container", vital=True, seccomp="filter"),
    _file(_K.PROCESS_EXEC, "overlay", b"/usr/bin/sh", "the start of a shell of the image"),
    _file(_K.FILE_OPEN, "overlay", b"/usr/lib/libc.so.6", "the opening of a library of the image",
          access="read", type="file"),
    _file(_K.FILE_OPEN, "tmpfs", b"/null", "the opening of /dev/null", access="write",
          type="character-device"),
    _file(_K.FILE_OPEN, "proc", b"/self/status", "the opening of /proc/self/status", access="read",
          type="file"),
    _device("the opening of /dev/null", 1, 3, "write"),
    _device("the opening of /dev/urandom", 1, 9, "read"),
    _sample(_K.SYS_CLONE, "the start of a process", vital=True, flags=0),
    _sample(_K.SYS_CLONE, "the start of a thread", vital=True, flags=0x3D0F00),
    _sample(_K.SYS_SOCKET, "a TCP socket", vital=True, family="AF_INET", type="SOCK_STREAM"),
    _sample(_K.SYS_SOCKET, "a unix socket", vital=True, family="AF_UNIX", type="SOCK_STREAM"),
    _sample(_K.KERNEL_HELPER, "modprobe, when the node loads a module", vital=True, text=b"/usr/bin/modprobe",
            filesystem="disk", known="yes", name=fnv1a(b"modprobe")),
    # lawful, and not vital
    _sample(_K.NET_CONNECT, "a connection to another service", port=5432, family="AF_INET", protocol="tcp"),
    _sample(_K.UNIX_CONNECT, "a connection to the image's own database",
            text=b"/var/run/postgresql/.s.PGSQL.5432"),
    _sample(_K.SYS_UNSHARE, "`unshare -u`", flags="CLONE_NEWUTS"),
    _sample(_K.SYS_SETNS, "coming back to one's own namespace", nstype="CLONE_NEWNET", target="self"),
    _sample(_K.SYS_PTRACE, "strace of one's own child", request="PTRACE_SEIZE", target="container"),
    _sample(_K.SYS_PROCESS_VM, "a debugger and its own child", call="process_vm_readv", target="container"),
    _sample(_K.SYS_PIDFD_GETFD, "a descriptor of one's own", target="self"),
    _sample(_K.SYS_PERF_EVENT_OPEN, "a program that measures itself", target="self"),
    _sample(_K.SYS_CHMOD, "`chmod 755`", mode="execute"),
    _sample(_K.SYS_MEMFD_CREATE, "a buffer in memory", flags="MFD_CLOEXEC", call="memfd_create"),
    _sample(_K.SYS_SETUID, "a service that drops its privileges", uid=1000, call="setuid"),
    _sample(_K.SYS_SETGID, "a service that drops its groups", gid=1000, call="setgid"),
    _sample(_K.SYS_CAPSET, "a service that drops its capabilities"),
    _sample(_K.SYS_SECCOMP, "a program that filters itself", operation="SECCOMP_SET_MODE_FILTER"),
    _sample(_K.SYS_RENAME, "`mv -n`", flags="RENAME_NOREPLACE"),
    _sample(_K.SYS_SYMLINK, "a link inside the image", text=b"libx.so.1"),
    _sample(_K.SYSCTL_ACCESS, "reading the host name", access="read", text=b"kernel/hostname"),
    _sample(_K.SYS_KEYCTL, "`su`, which makes a session keyring", operation="KEYCTL_JOIN_SESSION_KEYRING",
            call="keyctl"),
)  # fmt: skip
VITAL = tuple(sample for sample in ORDINARY if sample.vital)


def matched(rule: Rule) -> Iterator[Sample]:
    """The ordinary events that a rule matches, its exceptions considered."""
    for sample in ORDINARY:
        if sample.kind not in rule.events:
            continue
        try:
            atoms = lower(rule, sample.kind)
        except TooMany:
            continue
        if any(sample.meets(a.matches) and not any(map(sample.meets, a.exceptions)) for a in atoms):
            yield sample
