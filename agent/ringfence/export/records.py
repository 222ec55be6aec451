# SPDX-License-Identifier: Apache-2.0
"""Events as records for people and programs: plain values, every observed text escaped. Times are UTC."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from ringfence.abi import FLAG_ADOPTED, FLAG_COMPAT, FLAG_TRUNCATED, FLAG_UNREADABLE, EventKind, Fact
from ringfence.containers.model import Container
from ringfence.containers.posture import SECCOMP_MODES, capability_names, namespace_names
from ringfence.events import (
    CgroupEvent,
    ContainerEvent,
    DeviceEvent,
    Event,
    ExecEvent,
    FileEvent,
    NetEvent,
    SyscallEvent,
    SysctlEvent,
    TaskEvent,
    UnixEvent,
)
from ringfence.export.escape import arguments, escape
from ringfence.policy.vocabulary import describe

__all__ = ["boot_offset_ns", "container_record", "details", "event_record", "process_record", "timestamp"]

Record = dict[str, Any]
_FLAGS = {
    FLAG_COMPAT: "32-bit call",
    FLAG_TRUNCATED: "text cut",
    FLAG_UNREADABLE: "text not readable",
    FLAG_ADOPTED: "was there before the agent",
}
_ACCESS = {1: "mknod", 2: "read", 4: "write"}
_FAMILIES = {2: "inet", 10: "inet6"}


def boot_offset_ns() -> int:
    """What to add to the kernel's CLOCK_BOOTTIME for a time of day; it changes when somebody sets the
    clock."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def timestamp(time_ns: int, offset_ns: int) -> str:
    """A kernel time as ISO 8601 with microseconds; an impossible one becomes the beginning of time."""
    try:
        moment = datetime.fromtimestamp((time_ns + offset_ns) / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def event_record(event: Event, container: Container | None, offset_ns: int) -> Record:
    """One observed event: lifecycle or activity. Alerts have a record of their own; see export.alerts."""
    kind = event.kind
    return {
        "time": timestamp(event.time_ns, offset_ns),
        "event": kind.label,
        "kind": "lifecycle" if kind <= EventKind.CGROUP_RELEASE and not _is_process(kind) else "activity",
        "container": container_record(container) if container else unknown_container(event),
        "process": process_record(event),
        "details": details(event),
    }


def _is_process(kind: EventKind) -> bool:
    return kind in (EventKind.PROCESS_FORK, EventKind.PROCESS_EXEC, EventKind.PROCESS_EXIT)


def unknown_container(event: Event) -> Record:
    """What stands where the container is not known: its cgroup, which is never used twice."""
    return {"id": "", "cgroup": event.container}


def container_record(container: Container) -> Record:
    """A container without what is not known of it. Names and labels are the workload's own words: escaped."""
    posture = container.posture
    record: Record = {
        "id": escape(container.id, 128),
        "cgroup": container.cgroup_id,
        "state": str(container.state),
        "runtime": escape(container.runtime, 64),
        "name": escape(container.name, 256),
        "image": escape(container.image, 512),
        "namespace": escape(container.namespace, 256),
        "pod": escape(container.pod, 256),
        "labels": {escape(k, 128): escape(v, 256) for k, v in list(container.labels.items())[:32]},
    }
    if posture is not None:
        record["privileged"] = posture.privileged
        record["posture"] = {
            "score": posture.score,
            "reasons": list(posture.reasons[:8]),
            "capabilities": None if posture.capabilities is None else list(posture.capabilities),
            "seccomp": posture.seccomp,
            "shared_namespaces": None
            if posture.shared_namespaces is None
            else list(posture.shared_namespaces),
            "sensitive_mounts": [
                {
                    "kind": m.kind,
                    "source": escape(m.source),
                    "target": escape(m.target),
                    "writable": m.writable,
                }
                for m in posture.sensitive_mounts[:16]
            ],
        }
    return {key: value for key, value in record.items() if value not in ("", {})}


def process_record(event: Event) -> Record:
    """Who did it. pid, tid and ppid as the host counts, vpid as the container does."""
    return {
        "pid": event.pid,
        "tid": event.tid,
        "ppid": event.ppid,
        "vpid": event.vpid,
        "uid": event.uid,
        "gid": event.gid,
        "comm": escape(event.comm, 64),
        "facts": [fact.label for fact in Fact if event.facts & fact],
    }


def details(event: Event) -> Record:
    """What the event itself says, by its shape."""
    formatter = _FORMATTERS.get(type(event))
    record = formatter(event) if formatter else {}
    flags = [text for flag, text in _FLAGS.items() if event.flags & flag]
    if flags:
        record["flags"] = flags
    return record


def _container(event: ContainerEvent) -> Record:
    if event.event == EventKind.CONTAINER_START:
        return {
            "capabilities": list(capability_names(event.cap_effective)),
            "seccomp": SECCOMP_MODES[event.seccomp] if event.seccomp < len(SECCOMP_MODES) else event.seccomp,
            "user_namespace": event.user_ns_level > 0,
            "shared_namespaces": list(namespace_names(event.shared_namespaces)),
        }
    if event.event == EventKind.CONTAINER_STOP:
        return _status(event.exit_code)
    return {"cgroup_path": escape(event.path)}


def _task(event: TaskEvent) -> Record:
    if event.event == EventKind.PROCESS_EXIT:
        return _status(event.exit_code)
    return {"child_pid": event.child_pid, "child_tid": event.child_tid, "clone_flags": hex(event.clone_flags)}


def _status(wait_status: int) -> Record:
    """A wait status (wait(2)): exit code or signal."""
    signal = wait_status & 0x7F
    return {"signal": signal} if signal else {"exit_code": wait_status >> 8 & 0xFF}


def _exec(event: ExecEvent) -> Record:
    return {"exe": escape(event.path), "args": arguments(event.args), "inode": event.inode}


def _cgroup(event: CgroupEvent) -> Record:
    return {"cgroup": event.cgroup, "cgroup_path": escape(event.path)}


def _file(event: FileEvent) -> Record:
    record: Record = {
        "path": escape(event.path),
        "fs_magic": hex(event.fs_magic),
        "mode": stat.filemode(event.mode & 0xFFFF),
        "flags_open": hex(event.open_flags),
        "inode": event.inode,
        "foreign_mount": event.mnt_ns,
    }
    if event.rdev:
        record["device"] = f"{event.rdev >> 20}:{event.rdev & 0xFFFFF}"
    return record


def _device(event: DeviceEvent) -> Record:
    access = [name for bit, name in _ACCESS.items() if event.access & bit]
    kind = {1: "block", 2: "char"}.get(event.type, str(event.type))
    return {"type": kind, "device": f"{event.major}:{event.minor}", "access": access}


def _sysctl(event: SysctlEvent) -> Record:
    return {"name": escape(event.name), "write": bool(event.write)}


def _net(event: NetEvent) -> Record:
    return {
        "address": str(ip_address(event.address)),
        "port": event.port,
        "family": _FAMILIES.get(event.family, str(event.family)),
        "protocol": event.protocol,
    }


def _unix(event: UnixEvent) -> Record:
    path = event.path
    return {"path": "@" + escape(path[1:]) if path[:1] == b"\0" else escape(path)}


def _syscall(event: SyscallEvent) -> Record:
    record: Record = dict(describe(event.kind, event.operands))
    record |= {"nr": event.nr, "args": [hex(argument) for argument in event.args]}
    if event.text_len:
        record["text"] = escape(event.text)
    return record


_FORMATTERS: Mapping[type, Callable[[Any], Record]] = {
    ContainerEvent: _container,
    TaskEvent: _task,
    ExecEvent: _exec,
    CgroupEvent: _cgroup,
    FileEvent: _file,
    DeviceEvent: _device,
    SysctlEvent: _sysctl,
    NetEvent: _net,
    UnixEvent: _unix,
    SyscallEvent: _syscall,
}
