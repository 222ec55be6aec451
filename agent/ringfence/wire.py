# SPDX-License-Identifier: Apache-2.0
"""Records of the rings -> typed events: the field tables that mirror probes/include/events.h, and `decode`.

A pure function on bytes: no kernel, no state, no I/O. What a record holds was partly chosen by the observed
process, so everything is checked before it is believed, and DecodeError is the only exception that leaves.
"""

from __future__ import annotations

from typing import Any

from ringfence.abi import (
    ABI_VERSION,
    ARGS_LEN,
    COMM_LEN,
    EVENT_MAX,
    OPERANDS,
    PATH_LEN,
    SYSCALL_ARGS,
    SYSCTL_LEN,
    UNIX_PATH_LEN,
    EventKind,
    Field,
    Layout,
)
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

__all__ = ["HEADER", "OBJECT", "RECORDS", "DecodeError", "decode", "encode", "make"]

HEADER = Layout(
    "rf_header",
    Field("event", "u16"),
    Field("version", "u8"),
    Field("flags", "u8"),
    Field("action", "u8"),
    Field("mechanism", "u8"),
    Field("rule", "u16"),
    Field("generation", "u32"),
    Field("slot", "u32"),
    Field("time_ns", "u64"),
    Field("container", "u64"),
    Field("start_ns", "u64"),
    Field("pid", "u32"),
    Field("tid", "u32"),
    Field("ppid", "u32"),
    Field("vpid", "u32"),
    Field("uid", "u32"),
    Field("gid", "u32"),
    Field("facts", "u32"),
    Field("pad", "u32"),
    Field("comm", "char", COMM_LEN),
)

OBJECT = Layout(
    "rf_object",
    Field("device", "u64"),
    Field("inode", "u64"),
    Field("fs_magic", "u64"),
)

_HEADER = Field("header", HEADER)
_OBJECT = Field("object", OBJECT)

CONTAINER_EVENT = Layout(
    "rf_container_event",
    _HEADER,
    Field("cgroup", "u64"),
    Field("parent", "u64"),
    Field("cap_effective", "u64"),
    Field("cap_permitted", "u64"),
    Field("cap_bounding", "u64"),
    Field("seccomp", "u32"),
    Field("user_ns_level", "u32"),
    Field("shared_namespaces", "u32"),
    Field("exit_code", "u32"),
    Field("path_len", "u32"),
    Field("pad", "u32"),
    Field("path", "char", PATH_LEN),
)

TASK_EVENT = Layout(
    "rf_task_event",
    _HEADER,
    Field("clone_flags", "u64"),
    Field("child_start_ns", "u64"),
    Field("child_pid", "u32"),
    Field("child_tid", "u32"),
    Field("exit_code", "u32"),
    Field("pad", "u32"),
)

EXEC_EVENT = Layout(
    "rf_exec_event",
    _HEADER,
    _OBJECT,
    Field("exe_hash", "u64"),
    Field("path_len", "u32"),
    Field("args_len", "u32"),
    Field("path", "char", PATH_LEN),
    Field("args", "char", ARGS_LEN),
)

CGROUP_EVENT = Layout(
    "rf_cgroup_event",
    _HEADER,
    Field("cgroup", "u64"),
    Field("parent", "u64"),
    Field("path_len", "u32"),
    Field("pad", "u32"),
    Field("path", "char", PATH_LEN),
)

FILE_EVENT = Layout(
    "rf_file_event",
    _HEADER,
    _OBJECT,
    Field("mode", "u32"),
    Field("open_flags", "u32"),
    Field("rdev", "u32"),
    Field("mnt_ns", "u32"),
    Field("fd", "s32"),
    Field("path_len", "u32"),
    Field("path", "char", PATH_LEN),
)

DEVICE_EVENT = Layout(
    "rf_device_event",
    _HEADER,
    Field("type", "u32"),
    Field("access", "u32"),
    Field("major", "u32"),
    Field("minor", "u32"),
)

SYSCTL_EVENT = Layout(
    "rf_sysctl_event",
    _HEADER,
    Field("write", "u32"),
    Field("name_len", "u32"),
    Field("name", "char", SYSCTL_LEN),
)

NET_EVENT = Layout(
    "rf_net_event",
    _HEADER,
    Field("family", "u16"),
    Field("port", "u16"),
    Field("protocol", "u8"),
    Field("type", "u8"),
    Field("pad", "u16"),
    Field("address", "bytes", 16),
)

UNIX_EVENT = Layout(
    "rf_unix_event",
    _HEADER,
    Field("path_len", "u32"),
    Field("pad", "u32"),
    Field("path", "char", UNIX_PATH_LEN),
)

DRIFT_EVENT = Layout(
    "rf_drift_event",
    _HEADER,
    Field("changed", "u32"),
    Field("at", "u32"),
    Field("uid", "u32", 2),
    Field("permitted", "u64", 2),
    Field("user_ns", "u32", 2),
)

TAMPER_EVENT = Layout(
    "rf_tamper_event",
    _HEADER,
    Field("what", "u32"),
    Field("nr", "u32"),
    Field("detail", "u64"),
    Field("agent_start_ns", "u64"),
    Field("agent_pid", "u32"),
    Field("path_len", "u32"),
    Field("path", "char", PATH_LEN),
)

SYSCALL_EVENT = Layout(
    "rf_syscall_event",
    _HEADER,
    Field("nr", "u32"),
    Field("text_len", "u32"),
    Field("args", "u64", SYSCALL_ARGS),
    Field("operand", "u64", OPERANDS),
    Field("text", "char", PATH_LEN),
)

#: each record's layout and the class that its values become
RECORDS: dict[Layout, type[Any]] = {
    CONTAINER_EVENT: ContainerEvent,
    TASK_EVENT: TaskEvent,
    EXEC_EVENT: ExecEvent,
    CGROUP_EVENT: CgroupEvent,
    FILE_EVENT: FileEvent,
    DEVICE_EVENT: DeviceEvent,
    SYSCTL_EVENT: SysctlEvent,
    NET_EVENT: NetEvent,
    UNIX_EVENT: UnixEvent,
    DRIFT_EVENT: DriftEvent,
    TAMPER_EVENT: TamperEvent,
    SYSCALL_EVENT: SyscallEvent,
}


class DecodeError(ValueError):
    """A record that is not one of ours. `reason` is a metric label: short, kind, version, size or length."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _layout_of(kind: EventKind) -> Layout:
    if kind.is_syscall:
        return SYSCALL_EVENT
    if kind in (EventKind.PROCESS_FORK, EventKind.PROCESS_EXIT):
        return TASK_EVENT
    if kind in (EventKind.PROCESS_EXEC, EventKind.KERNEL_HELPER):
        return EXEC_EVENT
    if kind is EventKind.TASK_DRIFT:
        return DRIFT_EVENT
    if kind is EventKind.AGENT_TAMPER:
        return TAMPER_EVENT
    by_group = {
        "CONTAINER": CONTAINER_EVENT,
        "CGROUP": CGROUP_EVENT,
        "FILE": FILE_EVENT,
        "HOST": FILE_EVENT,
        "DEVICE": DEVICE_EVENT,
        "SYSCTL": SYSCTL_EVENT,
        "NET": NET_EVENT,
        "UNIX": UNIX_EVENT,
        "MODULE": SYSCALL_EVENT,
        "SETSOCKOPT": SYSCALL_EVENT,
    }
    return by_group[kind.name.partition("_")[0]]


def _lengths(layout: Layout) -> tuple[tuple[int, int], ...]:
    """Where the `x_len` values stand, each with the bytes that x has."""
    room = {f"{field.name}_len": field.count for field in layout.fields if field.type == "char"}
    return tuple((index, room[name]) for index, name in enumerate(layout.names) if name in room)


def _entry(kind: EventKind) -> tuple[int, Any, type[Any], tuple[tuple[int, int], ...]]:
    layout = _layout_of(kind)
    return layout.size, layout.unpack, RECORDS[layout], _lengths(layout)


#: (size, unpack, class, lengths) by event number: the one look-up of a decode
_KINDS = {kind.value: kind for kind in EventKind if kind}
_TABLE = [_entry(_KINDS[number]) if number in _KINDS else None for number in range(EVENT_MAX)]
_new = tuple.__new__


def decode(record: bytes | bytearray | memoryview) -> Event:
    """The event that a record of a ring holds.

    Bounds first, then one Struct for the whole record. Strings stay as they are until somebody asks for them
    (see ringfence.events). Raises DecodeError, and nothing else, on bytes that no probe could have sent.
    """
    size = len(record)
    if size < 4:
        raise DecodeError("short", f"{size} bytes are no header")
    kind = record[0] | record[1] << 8
    entry = _TABLE[kind] if kind < EVENT_MAX else None
    if entry is None:
        raise DecodeError("kind", f"no event has the number {kind}")
    if record[2] != ABI_VERSION:
        raise DecodeError("version", f"ABI version {record[2]}, not {ABI_VERSION}")
    expected, unpack, event_class, lengths = entry
    if size != expected:
        raise DecodeError("size", f"{size} bytes for event {kind}, not {expected}")
    values = unpack(record)
    for index, room in lengths:
        if values[index] > room:
            raise DecodeError("length", f"a string of {values[index]} bytes in {room}")
    event: Event = _new(event_class, values)
    return event


def encode(event: Event) -> bytes:
    """The record of an event: the inverse of `decode`, for tests, benchmarks and replays."""
    return _layout_of(EventKind(event.event)).pack(*event)


def make(kind: EventKind, **fields: Any) -> Event:
    """An event of that kind as a probe would have sent it, for tests and benchmarks.

    Texts are given as `path=b"/bin/sh"`; their length and their array are filled in. The rest has the names
    of the tuple, and is 0 (or: none) when it is not given.
    """
    layout = _layout_of(kind)
    values: dict[str, Any] = {"event": int(kind)}
    for field in (*HEADER.fields, *layout.fields):
        if field.type not in ("char", "bytes"):
            continue
        text: bytes = fields.pop(field.name, b"")
        if len(text) > field.count:
            raise ValueError(f"{field.name}: {len(text)} bytes in {field.count}")
        values[f"{field.name}_raw"] = text.ljust(field.count, b"\0")
        if f"{field.name}_len" in layout.names:
            values[f"{field.name}_len"] = len(text)
    event: Event = RECORDS[layout](**(values | fields))
    return event
