# SPDX-License-Identifier: Apache-2.0
"""Typed events: one class for each struct of probes/include/events.h, header fields first.

Texts are bytes that the observed process chose. The fields `*_raw` hold them as they came; the properties
without the suffix cut them, on demand. Nothing here reads bytes of a record: that is ringfence.wire.
"""

from __future__ import annotations

from socket import AF_INET
from typing import Protocol

from ringfence.abi import EventKind
from ringfence.abi.records import (
    CgroupFields,
    ContainerFields,
    DeviceFields,
    DriftFields,
    ExecFields,
    FileFields,
    NetFields,
    StringsFields,
    SysctlFields,
    TamperFields,
    TaskFields,
    UnixFields,
)

__all__ = [
    "RECORDS",
    "CgroupEvent",
    "ContainerEvent",
    "DeviceEvent",
    "DriftEvent",
    "Event",
    "ExecEvent",
    "FileEvent",
    "NetEvent",
    "SyscallEvent",
    "SysctlEvent",
    "TamperEvent",
    "TaskEvent",
    "UnixEvent",
]

_KINDS = {kind.value: kind for kind in EventKind}


def _text(raw: bytes, length: int) -> bytes:
    """A C string in an array: at most `length` bytes, and never beyond the first NUL."""
    return raw[:length].partition(b"\0")[0]


class _Header(Protocol):
    """What every event begins with, as far as the properties below need it."""

    @property
    def event(self) -> int: ...
    @property
    def comm_raw(self) -> bytes: ...


class Observed:
    """What every event says of itself."""

    __slots__ = ()

    @property
    def kind(self: _Header) -> EventKind:
        return _KINDS[self.event]

    @property
    def comm(self: _Header) -> bytes:
        """Name of the thread, as it set it."""
        return self.comm_raw.partition(b"\0")[0]


class ContainerEvent(ContainerFields, Observed):
    """CONTAINER_*. `cgroup` and `parent` are cgroup ids, the capability sets are bit masks."""

    __slots__ = ()

    @property
    def path(self) -> bytes:
        return _text(self.path_raw, self.path_len)


class TaskEvent(TaskFields, Observed):
    """PROCESS_FORK and PROCESS_EXIT. `exit_code` is a wait status."""

    __slots__ = ()


class ExecEvent(ExecFields, Observed):
    """PROCESS_EXEC and KERNEL_HELPER: the program, and how it was called."""

    __slots__ = ()

    @property
    def path(self) -> bytes:
        return _text(self.path_raw, self.path_len)

    @property
    def args(self) -> bytes:
        """argv, NUL separated, without the last NUL."""
        return self.args_raw[: self.args_len].removesuffix(b"\0")


class CgroupEvent(CgroupFields, Observed):
    """CGROUP_*: `cgroup` was made, removed, or moved to."""

    __slots__ = ()

    @property
    def path(self) -> bytes:
        return _text(self.path_raw, self.path_len)


class FileEvent(FileFields, Observed):
    """FILE_*, HOST_MAP: the object. `rdev` is major << 20 | minor. FILE_LINK has in `open_flags` where it
    leads."""

    __slots__ = ()

    @property
    def path(self) -> bytes:
        return _text(self.path_raw, self.path_len)


class DeviceEvent(DeviceFields, Observed):
    """DEVICE_ACCESS. `type` 1 block, 2 character; `access` 1 mknod, 2 read, 4 write."""

    __slots__ = ()


class SysctlEvent(SysctlFields, Observed):
    """SYSCTL_ACCESS."""

    __slots__ = ()

    @property
    def name(self) -> bytes:
        return _text(self.name_raw, self.name_len)


class NetEvent(NetFields, Observed):
    """NET_*. `port` in host byte order."""

    __slots__ = ()

    @property
    def address(self) -> bytes:
        """Four bytes (AF_INET) or sixteen, in network order."""
        return self.address_raw[:4] if self.family == AF_INET else self.address_raw


class UnixEvent(UnixFields, Observed):
    """UNIX_CONNECT."""

    __slots__ = ()

    @property
    def path(self) -> bytes:
        """The path, or NUL and the abstract name (which may hold more NULs)."""
        if self.path_raw[:1] == b"\0":
            return self.path_raw[: self.path_len]
        return _text(self.path_raw, self.path_len)


class DriftEvent(DriftFields, Observed):
    """TASK_DRIFT: what changed (DRIFT_*, CLONE_NEW*), what it was and is. `at` is an EventKind."""

    __slots__ = ()


class TamperEvent(TamperFields, Observed):
    """AGENT_TAMPER: `what` is a Tamper, perhaps with MAYBE; `agent_pid` and `agent_start_ns` say whose."""

    __slots__ = ()

    @property
    def path(self) -> bytes:
        return _text(self.path_raw, self.path_len)


class SyscallEvent(StringsFields, Observed):
    """SYS_*, MODULE_REQUEST, SETSOCKOPT. `nr` as the calling ABI numbers it, NO_CALL where it is not known.

    The text of a call's entry was never decided on; at a hook it is the kernel's own. The second and third
    string are in alerts only.
    """

    __slots__ = ()

    @property
    def text(self) -> bytes:
        return _text(self.text_raw, self.text_len)

    @property
    def strings(self) -> tuple[bytes, bytes, bytes]:
        """The strings of the call, in the order of ringfence.bpf.syscalls; empty: none, or not known."""
        return self.text, _text(self.second_raw, self.second_len), _text(self.third_raw, self.third_len)

    @property
    def args(self) -> tuple[int, ...]:
        return (self.args0, self.args1, self.args2, self.args3, self.args4, self.args5)

    @property
    def operands(self) -> tuple[int, ...]:
        """What the rules were asked about."""
        return (self.operand0, self.operand1, self.operand2, self.operand3)


Event = (
    ContainerEvent
    | TaskEvent
    | ExecEvent
    | CgroupEvent
    | FileEvent
    | DeviceEvent
    | SysctlEvent
    | NetEvent
    | UnixEvent
    | DriftEvent
    | TamperEvent
    | SyscallEvent
)

#: The kinds of each class; `*` stands for any end of a name.
RECORDS: dict[type[Event], tuple[str, ...]] = {
    ContainerEvent: ("CONTAINER_*",),
    TaskEvent: ("PROCESS_FORK", "PROCESS_EXIT"),
    ExecEvent: ("PROCESS_EXEC", "KERNEL_HELPER"),
    CgroupEvent: ("CGROUP_*",),
    FileEvent: ("FILE_*", "HOST_MAP"),
    DeviceEvent: ("DEVICE_ACCESS",),
    SysctlEvent: ("SYSCTL_ACCESS",),
    NetEvent: ("NET_*",),
    UnixEvent: ("UNIX_CONNECT",),
    DriftEvent: ("TASK_DRIFT",),
    TamperEvent: ("AGENT_TAMPER",),
    SyscallEvent: ("SYS_*", "MODULE_REQUEST", "SETSOCKOPT", "PROCESS_LOOK", "UEVENT_SEND"),
}
