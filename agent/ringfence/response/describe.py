# SPDX-License-Identifier: Apache-2.0
"""Describes events in the kernel's terms: CLONE_NEWUSER|CLONE_NEWNS, b 8:0, /sys/kernel/core_pattern.

Keys are operands of the policy language if possible, so that the contents of an alert can be written into a
rule. Texts remain the bytes that the observed process chose: the exporters escape them.
"""

from __future__ import annotations

import signal
import socket
import stat
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

from ringfence.abi import (
    FLAG_ADOPTED,
    FLAG_COMPAT,
    FLAG_SIGNAL_FAILED,
    FLAG_TRUNCATED,
    FLAG_UNREADABLE,
    NO_CALL,
    EventKind,
    Fact,
    Tamper,
)
from ringfence.bpf.syscalls import STRINGS
from ringfence.containers.posture import SECCOMP_MODES
from ringfence.events import (
    CgroupEvent,
    ContainerEvent,
    DeviceEvent,
    DriftEvent,
    Event,
    ExecEvent,
    FileEvent,
    NetEvent,
    SyscallEvent,
    SysctlEvent,
    TamperEvent,
    TaskEvent,
    UnixEvent,
)
from ringfence.policy import constants
from ringfence.policy.shared_operands import TASK_WORDS
from ringfence.policy.vocabulary import EVENTS
from ringfence.policy.vocabulary import describe as describe_operands
from ringfence_linux import capabilities, namespaces
from ringfence_linux.architecture import architecture
from ringfence_linux.numbers import NUMBERS

__all__ = ["Details", "call_name", "describe", "device_text", "filesystem", "notes", "task_words"]

#: values: text (of the agent), bytes (observed), numbers, lists of these
Details = dict[str, Any]

_NOTES = {
    FLAG_COMPAT: "32-bit call",
    FLAG_TRUNCATED: "text was cut",
    FLAG_UNREADABLE: "text could not be read",
    FLAG_ADOPTED: "existed before the agent",
    FLAG_SIGNAL_FAILED: "SIGKILL could not be sent",
}
_TASK = {fact: word for fact in Fact for word, bit in TASK_WORDS.items() if bit == fact}
# A word for a single filesystem takes precedence over a word for several.
_FILESYSTEMS = {
    magic: word
    for word, magics in sorted(constants.FILESYSTEMS.items(), key=lambda item: -len(item[1]))
    for magic in magics
}
#: the path of a program that has none: a memfd, the root of an internal mount
_MEMORY = b"/"
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_FAMILIES = {number: word for word, number in constants.SOCKET_FAMILIES.items()}
_ACCESS_MODES = ("O_RDONLY", "O_WRONLY", "O_RDWR")
_DEVICE_TYPES = {1: "b", 2: "c"}
_DEVICE_ACCESS = {1: "mknod", 2: "read", 4: "write"}
_SIGNALS = {int(one): one.name for one in signal.Signals}
_TAMPERS = {int(one): one.label for one in Tamper}
_LABELS = {int(kind): kind.label for kind in EventKind}
_CALLS = (
    {numbers[architecture().native]: name for name, numbers in NUMBERS.items()},
    {numbers[1]: name for name, numbers in NUMBERS.items()},
)


def call_name(nr: int, *, compat: bool = False) -> str:
    """Returns a system call's name by its number, `#nr` if unknown."""
    return _CALLS[compat].get(nr) or f"#{nr}"


def filesystem(magic: int) -> str:
    """Returns the word of policies for a filesystem's magic number."""
    return _FILESYSTEMS.get(magic) or hex(magic)


def device_text(number: int) -> str:
    """Formats a device number of the probes (major << 20 | minor) as 8:0."""
    return f"{number >> 20}:{number & 0xFFFFF}"


def notes(event: Event) -> list[str]:
    """Returns remarks that are needed to interpret the event."""
    return [text for flag, text in _NOTES.items() if event.flags & flag]


def task_words(facts: int) -> list[str]:
    """Returns the facts of a task in the words of policies."""
    return [word for fact, word in _TASK.items() if facts & fact]


def describe(event: Event) -> Details:
    """Returns the details of an event. Never raises, for any values."""
    found = _FORMATTERS[type(event)](event)
    if found.get("filesystem") in ("0", "0x0"):
        del found["filesystem"]  # not known
    return found


def _wait_status(status: int) -> Details:
    """Decodes a status of wait(2): an exit code, or the signal that ended the process."""
    if status & 0x7F:
        return {"signal": status & 0x7F}
    return {"exit_code": status >> 8 & 0xFF}


def _container(event: ContainerEvent) -> Details:
    if event.event == EventKind.CONTAINER_START:
        return {
            "capabilities": list(capabilities.names(event.cap_effective)),
            "bounding": list(capabilities.names(event.cap_bounding)),
            "seccomp": SECCOMP_MODES[event.seccomp] if event.seccomp < len(SECCOMP_MODES) else event.seccomp,
            "user_namespace": event.user_ns_level > 0,
            "shares": list(namespaces.names(event.shared_namespaces)),
        }
    if event.event == EventKind.CONTAINER_STOP:
        return _wait_status(event.exit_code)
    return {"cgroup": event.cgroup, "path": event.path}


def _task(event: TaskEvent) -> Details:
    if event.event == EventKind.PROCESS_EXIT:
        return _wait_status(event.exit_code)
    flags = EVENTS[EventKind.SYS_CLONE].operand("flags")
    return {
        "child_pid": event.child_pid,
        "thread": event.child_tid != event.child_pid,
        # the low byte is CSIGNAL, the signal sent at its end
        "flags": flags.word_of(event.clone_flags & ~0xFF) if flags else hex(event.clone_flags),
    }


def _exec(event: ExecEvent) -> Details:
    memory = event.path == _MEMORY
    return {
        **({"file": "in memory"} if memory else {"path": event.path}),
        "args": [part for part in event.args.split(b"\0") if part] if event.args else [],
        "filesystem": filesystem(event.fs_magic),
        "device": device_text(event.device),
        "inode": event.inode,
    }


def _cgroup(event: CgroupEvent) -> Details:
    return {"cgroup": event.cgroup, "parent": event.parent, "path": event.path}


def _link(event: FileEvent) -> Details:
    leads = EVENTS[EventKind.FILE_LINK].operand("leads")
    return {
        "filesystem": filesystem(event.fs_magic),
        "path": event.path,
        "leads": leads.word_of(event.open_flags) if leads else hex(event.open_flags),
        "device": device_text(event.device),
        "mount_namespace": event.mnt_ns,
    }


def _file(event: FileEvent) -> Details:
    if event.event == EventKind.FILE_LINK:
        return _link(event)
    mode = event.mode & 0xFFFF
    kind = stat.S_IFMT(mode)
    found: Details = {
        "filesystem": filesystem(event.fs_magic),
        "path": event.path,
        "type": next((word for word, number in constants.FILE_TYPES.items() if number == kind), oct(kind)),
        "access": "write" if event.open_flags & 3 else "read",
        "open": _open_flags(event.open_flags),
        "mode": oct(mode & 0o7777),
        "device": device_text(event.device),
        "inode": event.inode,
    }
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        found["node"] = f"{'b' if stat.S_ISBLK(mode) else 'c'} {device_text(event.rdev)}"
    if not event.mnt_ns:
        found["mount"] = "none"  # detached, or kernel-internal
    else:
        found["mount_namespace"] = event.mnt_ns
    return found


def _open_flags(flags: int) -> str:
    words = [_ACCESS_MODES[flags & 3] if flags & 3 < 3 else "3"]
    words += [word for word, bits in constants.OPEN_FLAGS.items() if flags & bits == bits]
    return "|".join(words)


def _device(event: DeviceEvent) -> Details:
    return {
        "device": f"{_DEVICE_TYPES.get(event.type, '?')} {event.major}:{event.minor}",
        "access": [word for bit, word in _DEVICE_ACCESS.items() if event.access & bit],
    }


def _sysctl(event: SysctlEvent) -> Details:
    return {"sysctl": event.name, "access": "write" if event.write else "read"}


def _net(event: NetEvent) -> Details:
    try:
        address = str(ip_address(event.address))
    except ValueError:
        address = event.address.hex()
    return {
        "address": address,
        "port": event.port,
        "family": _FAMILIES.get(event.family, str(event.family)),
        "protocol": _PROTOCOLS.get(event.protocol, str(event.protocol)),
    }


def _unix(event: UnixEvent) -> Details:
    path = event.path
    return {"socket": b"@" + path[1:] if path[:1] == b"\0" else path}


def _drift(event: DriftEvent) -> Details:
    words = EVENTS[EventKind.TASK_DRIFT].operand("changed")
    found: Details = {"changed": words.word_of(event.changed) if words else hex(event.changed)}
    found["noticed"] = _LABELS.get(event.at, str(event.at))
    if event.uid0 != event.uid1:
        found["uid"] = [event.uid0, event.uid1]
    if event.permitted0 != event.permitted1:
        found["gained"] = list(capabilities.names(event.permitted1 & ~event.permitted0))
    if event.user_ns0 != event.user_ns1:
        found["user_namespace"] = [event.user_ns0, event.user_ns1]
    return found


def _tamper(event: TamperEvent) -> Details:
    what = event.what & ~Tamper.MAYBE
    found: Details = {"what": _TAMPERS.get(what, str(what)), "agent": event.agent_pid}
    if event.nr != NO_CALL:
        found["call"] = call_name(event.nr, compat=bool(event.flags & FLAG_COMPAT))
    if event.path_len:
        found["path"] = event.path
    if what == Tamper.SIGNAL:
        found["signal"] = _SIGNALS.get(event.detail, str(event.detail))
    elif what in (Tamper.MAP, Tamper.PROGRAM, Tamper.LINK):
        found["id"] = event.detail
    elif what == Tamper.CONDEMNED:
        found["killed_for"] = _LABELS.get(event.detail, str(event.detail))
    elif what == Tamper.TASKS:
        found["tasks"] = event.detail
    elif what == Tamper.CGROUP and event.detail:
        found["cgroup"] = event.detail
    if event.what & Tamper.MAYBE:
        found["certain"] = False
    return found


def _protocol(event: SyscallEvent) -> Details:
    """Returns the protocol of a socket: a number means something else in each family."""
    family, number = event.operands[0], event.operands[2]
    prefix: Mapping[int, str] = {
        socket.AF_INET: "IPPROTO_",
        socket.AF_INET6: "IPPROTO_",
        socket.AF_NETLINK: "NETLINK_",
    }
    named = prefix.get(family)
    for word, value in constants.PROTOCOLS.items():
        if named and word.startswith(named) and value == number:
            return {"protocol": word}
    return {"protocol": str(number) if number else ""}


def _strings(event: SyscallEvent) -> Details:
    """Returns the strings of a call that are known, by their names."""
    names = STRINGS.get(event.kind, ("text",))
    found: Details = {name: text for name, text in zip(names, event.strings, strict=False) if text}
    if event.kind == EventKind.SYS_FSCONFIG and "key" in found:
        # One text: the redactor knows a secret by the name before it (password=...).
        value = found.pop("value", None)
        found["parameter"] = found["key"] if value is None else found["key"] + b"=" + value
    return found


def _syscall(event: SyscallEvent) -> Details:
    kind = event.kind
    known = event.nr != NO_CALL
    found: Details = {"call": call_name(event.nr, compat=bool(event.flags & FLAG_COMPAT))} if known else {}
    found |= {name: word for name, word in describe_operands(kind, event.operands).items() if name != "call"}
    if kind == EventKind.SYS_SOCKET:
        found |= _protocol(event)
    elif kind == EventKind.SYS_CHMOD:
        found["mode"] = f"0{event.operands[0] & 0o7777:o}"
    found |= _strings(event)
    if found.get("call") == "fchmod" and "path" not in found:
        found["descriptor"] = event.args[0] & 0xFFFFFFFF
    if known:
        found["args"] = [hex(argument) for argument in event.args]
    return found


_FORMATTERS: Mapping[type, Callable[[Any], Details]] = {
    ContainerEvent: _container,
    TaskEvent: _task,
    ExecEvent: _exec,
    CgroupEvent: _cgroup,
    FileEvent: _file,
    DeviceEvent: _device,
    SysctlEvent: _sysctl,
    NetEvent: _net,
    UnixEvent: _unix,
    DriftEvent: _drift,
    TamperEvent: _tamper,
    SyscallEvent: _syscall,
}
