# SPDX-License-Identifier: Apache-2.0
"""The bare tuples of ringfence.events: header fields, then what the struct adds, as in the record."""

from typing import NamedTuple

from ringfence.abi import ABI_VERSION, NO_RULE, NO_SLOT


class ContainerFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    cgroup: int = 0
    parent: int = 0
    cap_effective: int = 0
    cap_permitted: int = 0
    cap_bounding: int = 0
    seccomp: int = 0
    user_ns_level: int = 0
    shared_namespaces: int = 0
    exit_code: int = 0
    path_len: int = 0
    path_raw: bytes = b""


class TaskFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    clone_flags: int = 0
    child_start_ns: int = 0
    child_pid: int = 0
    child_tid: int = 0
    exit_code: int = 0


class ExecFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    device: int = 0
    inode: int = 0
    fs_magic: int = 0
    exe_hash: int = 0
    path_len: int = 0
    args_len: int = 0
    path_raw: bytes = b""
    args_raw: bytes = b""


class CgroupFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    cgroup: int = 0
    parent: int = 0
    path_len: int = 0
    path_raw: bytes = b""


class FileFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    device: int = 0
    inode: int = 0
    fs_magic: int = 0
    mode: int = 0
    open_flags: int = 0
    rdev: int = 0
    mnt_ns: int = 0
    fd: int = 0
    path_len: int = 0
    path_raw: bytes = b""


class DeviceFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    type: int = 0
    access: int = 0
    major: int = 0
    minor: int = 0


class SysctlFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    write: int = 0
    name_len: int = 0
    name_raw: bytes = b""


class NetFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    family: int = 0
    port: int = 0
    protocol: int = 0
    type: int = 0
    address_raw: bytes = b""


class UnixFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    path_len: int = 0
    path_raw: bytes = b""


class DriftFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    changed: int = 0
    at: int = 0
    uid0: int = 0
    uid1: int = 0
    permitted0: int = 0
    permitted1: int = 0
    user_ns0: int = 0
    user_ns1: int = 0


class SyscallFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    nr: int = 0
    text_len: int = 0
    args0: int = 0
    args1: int = 0
    args2: int = 0
    args3: int = 0
    args4: int = 0
    args5: int = 0
    operand0: int = 0
    operand1: int = 0
    operand2: int = 0
    operand3: int = 0
    text_raw: bytes = b""


class TamperFields(NamedTuple):
    """As in its record; see the class of the same name in ringfence.events."""

    event: int = 0
    version: int = ABI_VERSION
    flags: int = 0
    action: int = 0
    mechanism: int = 0
    rule: int = NO_RULE
    generation: int = 0
    slot: int = NO_SLOT
    time_ns: int = 0
    container: int = 0
    start_ns: int = 0
    pid: int = 0
    tid: int = 0
    ppid: int = 0
    vpid: int = 0
    uid: int = 0
    gid: int = 0
    facts: int = 0
    comm_raw: bytes = b""
    what: int = 0
    nr: int = 0
    detail: int = 0
    agent_start_ns: int = 0
    agent_pid: int = 0
    path_len: int = 0
    path_raw: bytes = b""
