# SPDX-License-Identifier: Apache-2.0
"""Events in the kernel's terms."""

from __future__ import annotations

import json
import platform
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from ringfence.policy.constants import FILESYSTEMS
from ringfence.response.describe import call_name, describe, device_text, filesystem, notes, task_words
from ringfence.wire import make

K = EventKind
x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")


def call(kind: EventKind, *operands: int, **fields: Any) -> SyscallEvent:
    """Returns a system call with these operands and strings (`text`, `second`, `third`)."""
    named = {f"operand{index}": value for index, value in enumerate(operands)}
    event = make(kind, **{"nr": 0, **named, **fields})
    assert isinstance(event, SyscallEvent)
    return event


@x86_only
def test_unshare_names_the_namespaces() -> None:
    """CLONE_NEWUSER and CLONE_NEWNS together."""
    found = describe(call(K.SYS_UNSHARE, 0x10020000, nr=272, args0=0x10020000))
    assert found["call"] == "unshare"
    assert set(found["flags"].split("|")) == {"CLONE_NEWUSER", "CLONE_NEWNS"}
    assert found["args"][0] == "0x10020000"


def _label(value: Any) -> str:
    """Returns a test's id: its event's."""
    return EventKind(value[0]).label if isinstance(value, tuple) else ""


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (call(K.SYS_MOUNT, 4096 | 1, text=b"ext4"), {"flags": "MS_RDONLY|MS_BIND", "fstype": b"ext4"}),
        (call(K.SYS_SETNS, 0x20000, 4), {"nstype": "CLONE_NEWNS", "target": "host"}),
        (call(K.SYS_PTRACE, 16, 2), {"request": "PTRACE_ATTACH", "target": "container"}),
        (call(K.SYS_SOCKET, 17, 3, 0), {"family": "AF_PACKET", "type": "SOCK_RAW"}),
        (call(K.SYS_SOCKET, 38, 5, 0), {"family": "AF_ALG", "type": "SOCK_SEQPACKET"}),
        (call(K.SYS_MKNOD, 0o060000), {"type": "block-device"}),
        (call(K.SYS_BPF, 5), {"cmd": "BPF_PROG_LOAD"}),
        (call(K.SYS_FSOPEN, text=b"proc"), {"fstype": b"proc"}),
        (call(K.SYS_CHROOT, text=b"/host\n\x1b[2J"), {"path": b"/host\n\x1b[2J"}),
        (
            call(K.SYS_MOUNT, text=b"ext4", second=b"/dev/sda1", third=b"/mnt"),
            {"fstype": b"ext4", "source": b"/dev/sda1", "target": b"/mnt"},
        ),
        (call(K.SYS_MOVE_MOUNT, text=b"/b", second=b"/a"), {"source": b"/a", "target": b"/b"}),
        (call(K.SYS_CHMOD, 0o104755, text=b"/tmp/x"), {"mode": "04755", "path": b"/tmp/x"}),
        (call(K.SYS_FSCONFIG, 1, text=b"ro"), {"key": b"ro", "parameter": b"ro", "value": None}),
        (
            call(K.SYS_FSCONFIG, 1, text=b"source", second=b"/dev/sda1"),
            {"key": b"source", "parameter": b"source=/dev/sda1", "value": None},
        ),
        (
            DeviceEvent(event=K.DEVICE_ACCESS, type=1, access=6, major=8, minor=0),
            {"device": "b 8:0", "access": ["read", "write"]},
        ),
        (
            SysctlEvent(event=K.SYSCTL_ACCESS, write=1, name_raw=b"kernel/core_pattern\0", name_len=19),
            {"sysctl": b"kernel/core_pattern", "access": "write"},
        ),
        (
            NetEvent(
                event=K.NET_CONNECT,
                family=2,
                port=80,
                protocol=6,
                address_raw=b"\xa9\xfe\xa9\xfe".ljust(16, b"\0"),
            ),
            {"address": "169.254.169.254", "port": 80, "family": "AF_INET", "protocol": "tcp"},
        ),
        (
            NetEvent(
                event=K.NET_CONNECT,
                family=10,
                port=53,
                protocol=17,
                address_raw=bytes.fromhex("fd00" + "00" * 13 + "01"),
            ),
            {"address": "fd00::1", "family": "AF_INET6", "protocol": "udp"},
        ),
        (
            UnixEvent(event=K.UNIX_CONNECT, path_raw=b"\0/containerd-shim/x", path_len=19),
            {"socket": b"@/containerd-shim/x"},
        ),
        (UnixEvent(event=K.UNIX_CONNECT, path_raw=b"/run/x.sock\0", path_len=11), {"socket": b"/run/x.sock"}),
        (
            FileEvent(
                event=K.FILE_OPEN,
                fs_magic=0x9FA0,
                path_raw=b"/sys/kernel/core_pattern\0",
                path_len=24,
                mode=0o100644,
                open_flags=0o1001,
                mnt_ns=7,
            ),
            {
                "filesystem": "proc",
                "path": b"/sys/kernel/core_pattern",
                "type": "file",
                "open": "O_WRONLY|O_TRUNC",
                "access": "write",
            },
        ),
        (
            FileEvent(event=K.FILE_OPEN, fs_magic=0x27E0EB, mode=0o060600, rdev=8 << 20 | 1),
            {"filesystem": "cgroup1", "type": "block-device", "node": "b 8:1", "mount": "none"},
        ),
        (
            ExecEvent(
                event=K.PROCESS_EXEC,
                path_raw=b"/bin/sh\0",
                path_len=7,
                args_raw=b"sh\0-c\0id\0",
                args_len=9,
                fs_magic=0x794C7630,
            ),
            {"path": b"/bin/sh", "args": [b"sh", b"-c", b"id"], "filesystem": "overlay"},
        ),
        (
            ContainerEvent(
                event=K.CONTAINER_START, cap_effective=1 << 21, seccomp=2, shared_namespaces=0x40000000
            ),
            {"capabilities": ["CAP_SYS_ADMIN"], "seccomp": "filter", "shares": ["net"]},
        ),
        (ContainerEvent(event=K.CONTAINER_STOP, exit_code=9), {"signal": 9}),
        (TaskEvent(event=K.PROCESS_EXIT, exit_code=3 << 8), {"exit_code": 3}),
        (
            TaskEvent(event=K.PROCESS_FORK, child_pid=7, child_tid=7, clone_flags=0x4000 | 17),
            {"child_pid": 7, "thread": False, "flags": "CLONE_VFORK"},
        ),
        (
            CgroupEvent(event=K.CGROUP_ATTACH, cgroup=5, path_raw=b"/a\0", path_len=2),
            {"cgroup": 5, "path": b"/a"},
        ),
    ],
    ids=_label,
)
def test_details_are_described_in_words(event: Event, expected: dict[str, Any]) -> None:
    """With the names of the policy language."""
    found = describe(event)
    assert {key: found.get(key) for key in expected} == expected


@x86_only
def test_calls_have_names_in_both_numberings() -> None:
    """A number is another call in a 32-bit program; unknown numbers stay numbers."""
    assert (call_name(165), call_name(21, compat=True), call_name(9999)) == ("mount", "mount", "#9999")
    assert describe(call(K.SYS_MOUNT, 0, nr=21, flags=FLAG_COMPAT))["call"] == "mount"


def test_an_unknown_filesystem_is_a_number() -> None:
    """A number is better than a wrong name."""
    assert filesystem(0x1234) == "0x1234"


def test_notes_and_task_words() -> None:
    """Remarks that are needed to interpret the event, and facts about the task."""
    assert notes(call(K.SYS_MOUNT, flags=FLAG_COMPAT | FLAG_UNREADABLE)) == [
        "32-bit call",
        "text could not be read",
    ]
    assert task_words(Fact.ROOT | Fact.NO_SECCOMP) == ["root", "no-seccomp"]


_u64 = st.integers(0, 2**64 - 1)
_SHAPES: dict[Any, list[EventKind]] = {
    SyscallEvent: [*(kind for kind in K if kind.is_syscall), K.MODULE_REQUEST, K.SETSOCKOPT],
    FileEvent: [K.FILE_OPEN],
    DeviceEvent: [K.DEVICE_ACCESS],
    NetEvent: [K.NET_BIND],
    ContainerEvent: [K.CONTAINER_CREATE, K.CONTAINER_START, K.CONTAINER_STOP],
    TaskEvent: [K.PROCESS_FORK, K.PROCESS_EXIT],
    ExecEvent: [K.PROCESS_EXEC],
    UnixEvent: [K.UNIX_CONNECT],
    SysctlEvent: [K.SYSCTL_ACCESS],
    CgroupEvent: [K.CGROUP_MKDIR],
}


@settings(deadline=None)
@given(st.data())
def test_any_numbers_and_bytes_can_be_described(data: st.DataObject) -> None:
    """The agent must not fail because of values that a process chose."""
    shape = data.draw(st.sampled_from(list(_SHAPES)))
    fields: dict[str, Any] = {"event": data.draw(st.sampled_from(_SHAPES[shape]))}
    for name in shape._fields:
        if name.endswith("_raw"):
            fields[name] = data.draw(st.binary(min_size=16, max_size=32))
        elif name not in ("event", "version"):
            fields[name] = data.draw(_u64)
    described = describe(shape(**fields))
    assert all(isinstance(name, str) for name in described)
    json.dumps(described, default=bytes.hex)  # texts of processes are bytes until they are escaped


def detail(event: Event, **fields: Any) -> dict[str, Any]:
    """Returns the description of an event with these fields."""
    return describe(event._replace(**fields))


def test_drift_names_only_what_changed() -> None:
    """Users, capabilities and user namespaces that are as before are left out."""
    drift = DriftEvent(event=K.TASK_DRIFT, at=K.FILE_OPEN)
    assert set(describe(drift)) == {"changed", "noticed"}
    assert describe(drift)["noticed"] == "file.open"
    assert detail(drift, uid0=1, uid1=0)["uid"] == [1, 0]
    assert detail(drift, permitted0=1, permitted1=1 | 1 << 21)["gained"] == ["CAP_SYS_ADMIN"]
    assert detail(drift, user_ns0=5, user_ns1=6)["user_namespace"] == [5, 6]


@pytest.mark.parametrize(
    ("what", "number", "expected"),
    [
        (Tamper.SIGNAL, 9, {"signal": "SIGKILL"}),
        (Tamper.SIGNAL, 999, {"signal": "999"}),
        (Tamper.MAP, 7, {"id": 7}),
        (Tamper.PROGRAM, 7, {"id": 7}),
        (Tamper.LINK, 7, {"id": 7}),
        (Tamper.TASKS, 300, {"tasks": 300}),
        (Tamper.CGROUP, 12, {"cgroup": 12}),
        (Tamper.CGROUP, 0, {}),
        (Tamper.LIMIT, 3, {}),
        (Tamper.FILE | Tamper.MAYBE, 0, {"certain": False}),
    ],
)
def test_an_attack_on_the_agent_has_the_details_of_its_kind(
    what: int, number: int, expected: dict[str, Any]
) -> None:
    """And no others: what is certain is not said."""
    event = TamperEvent(event=K.AGENT_TAMPER, what=what, detail=number, nr=NO_CALL)
    got = describe(event)
    assert {key: got[key] for key in got if key not in ("what", "agent")} == expected
    assert not str(got["what"]).isdecimal()


def test_an_attack_on_the_agent_names_its_call_and_its_path() -> None:
    """Where they are known."""
    event = TamperEvent(event=K.AGENT_TAMPER, what=Tamper.FILE, nr=87, path_raw=b"/x\0", path_len=2)
    assert (describe(event)["call"], describe(event)["path"]) == ("unlink", b"/x")


_BLOCK, _CHARACTER, _FIFO = 0o060000, 0o020000, 0o010000  # stat(2)


def test_a_container_is_described_as_it_starts() -> None:
    """An unknown mode of seccomp stays a number."""
    event = ContainerEvent(
        event=K.CONTAINER_START, cap_effective=1, cap_bounding=1 | 1 << 21, user_ns_level=1, seccomp=0
    )
    assert describe(event) == {
        "capabilities": ["CAP_CHOWN"],
        "bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN"],
        "seccomp": "disabled",
        "user_namespace": True,
        "shares": [],
    }
    assert detail(event, user_ns_level=0)["user_namespace"] is False
    assert [detail(event, seccomp=number)["seccomp"] for number in (1, 2, 3)] == ["strict", "filter", 3]


def test_other_events_of_a_container_name_its_cgroup() -> None:
    """Its path is where it was made."""
    event = ContainerEvent(event=K.CONTAINER_CREATE, cgroup=7, path_raw=b"/a\0", path_len=2)
    assert describe(event) == {"cgroup": 7, "path": b"/a"}
    assert describe(CgroupEvent(event=K.CGROUP_MKDIR, cgroup=7, parent=6, path_raw=b"/a\0", path_len=2)) == {
        "cgroup": 7,
        "parent": 6,
        "path": b"/a",
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, {"exit_code": 0}),
        (255 << 8, {"exit_code": 255}),
        (1 << 8, {"exit_code": 1}),
        (1, {"signal": 1}),
        (126, {"signal": 126}),
        (0x80 | 11, {"signal": 11}),  # with a core dump
        (1 << 16 | 2 << 8, {"exit_code": 2}),
    ],
)
def test_a_status_is_an_exit_code_or_a_signal(status: int, expected: dict[str, int]) -> None:
    """As wait(2) packs them."""
    assert describe(TaskEvent(event=K.PROCESS_EXIT, exit_code=status)) == expected
    assert describe(ContainerEvent(event=K.CONTAINER_STOP, exit_code=status)) == expected


def test_a_fork_makes_a_process_or_a_thread() -> None:
    """The low byte of the flags is the signal at its end, and no flag."""
    event = TaskEvent(event=K.PROCESS_FORK, child_pid=7, child_tid=8, clone_flags=0x100 | 0xFF)
    assert describe(event) == {"child_pid": 7, "thread": True, "flags": "CLONE_VM"}


def test_a_program_is_described_with_its_file() -> None:
    """Without arguments, if they are not known; empty ones are left out."""
    event = ExecEvent(event=K.PROCESS_EXEC, device=8 << 20 | 3, inode=44)
    assert describe(event) == {"path": b"", "args": [], "device": "8:3", "inode": 44}
    assert detail(event, args_raw=b"a\0\0b\0", args_len=5)["args"] == [b"a", b"b"]


def test_a_link_is_described_by_where_it_leads() -> None:
    """In the words of `leads`."""
    event = FileEvent(
        event=K.FILE_LINK, fs_magic=0x01021994, path_raw=b"/a\0", path_len=2, device=5, mnt_ns=9, open_flags=3
    )
    assert describe(event) == {
        "filesystem": "tmpfs",
        "path": b"/a",
        "leads": "absolute|climbing",
        "device": "0:5",
        "mount_namespace": 9,
    }


@pytest.mark.parametrize(
    ("flags", "access", "words"),
    [
        (0, "read", "O_RDONLY"),
        (1, "write", "O_WRONLY"),
        (2, "write", "O_RDWR"),
        (3, "write", "3"),
        (0o100, "read", "O_RDONLY|O_CREAT"),
    ],
)
def test_an_open_file_has_its_access_and_flags(flags: int, access: str, words: str) -> None:
    """O_ACCMODE is the number of a mode, and no set of bits."""
    found = describe(FileEvent(event=K.FILE_OPEN, open_flags=flags))
    assert (found["access"], found["open"]) == (access, words)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (0o100644, {"type": "file", "mode": "0o644"}),
        (0o104755, {"type": "file", "mode": "0o4755"}),
        (_BLOCK, {"type": "block-device", "mode": "0o0", "node": "b 1:5"}),
        (_CHARACTER | 0o777, {"type": "character-device", "mode": "0o777", "node": "c 1:5"}),
        (_FIFO, {"type": "fifo", "mode": "0o0"}),
        (1 << 16 | 0o100600, {"type": "file", "mode": "0o600"}),
        (0o030000, {"type": "0o30000", "mode": "0o0"}),
    ],
)
def test_an_object_has_its_type_and_mode(mode: int, expected: dict[str, str]) -> None:
    """A device has the number of its node as well."""
    found = describe(FileEvent(event=K.FILE_OPEN, mode=mode, rdev=1 << 20 | 5, device=6, inode=8, mnt_ns=4))
    assert {key: found[key] for key in found if key in ("type", "mode", "node")} == expected
    assert (found["device"], found["inode"], found["mount_namespace"]) == ("0:6", 8, 4)
    assert "mount" not in found


def test_an_object_below_no_mount_has_no_namespace() -> None:
    """It is detached, or of the kernel."""
    found = describe(FileEvent(event=K.FILE_OPEN))
    assert found["mount"] == "none"
    assert "mount_namespace" not in found


@pytest.mark.parametrize(
    ("kind", "access", "expected"),
    [
        (1, 1, {"device": "b 10:229", "access": ["mknod"]}),
        (2, 2, {"device": "c 10:229", "access": ["read"]}),
        (3, 7, {"device": "? 10:229", "access": ["mknod", "read", "write"]}),
        (2, 4, {"device": "c 10:229", "access": ["write"]}),
    ],
)
def test_a_device_has_its_type_numbers_and_access(kind: int, access: int, expected: dict[str, Any]) -> None:
    """As bpf(2) gives them to a program of devices."""
    event = DeviceEvent(event=K.DEVICE_ACCESS, type=kind, access=access, major=10, minor=229)
    assert describe(event) == expected


@pytest.mark.parametrize(
    ("number", "word"), [(1, "icmp"), (6, "tcp"), (17, "udp"), (58, "icmpv6"), (132, "sctp"), (99, "99")]
)
def test_a_protocol_has_its_name(number: int, word: str) -> None:
    """IANA's numbers; an unknown family or protocol stays a number."""
    found = describe(NetEvent(event=K.NET_CONNECT, family=999, protocol=number, address_raw=bytes(16)))
    assert (found["protocol"], found["family"]) == (word, "999")


def test_a_read_sysctl_is_no_written_one() -> None:
    """Its access has the words of the policy language."""
    event = SysctlEvent(event=K.SYSCTL_ACCESS, name_raw=b"vm/a\0", name_len=4)
    assert describe(event) == {"sysctl": b"vm/a", "access": "read"}


def test_an_attack_on_the_agent_by_a_32_bit_call_has_its_name() -> None:
    """10 is unlink there; without a call, none is named."""
    event = TamperEvent(event=K.AGENT_TAMPER, what=Tamper.FILE, nr=10, flags=FLAG_COMPAT, agent_pid=77)
    assert describe(event) == {"what": "file", "agent": 77, "call": "unlink"}
    assert detail(event, nr=NO_CALL) == {"what": "file", "agent": 77}
    assert detail(event, nr=NO_CALL, what=200)["what"] == "200"


def test_a_call_that_is_not_known_has_no_arguments() -> None:
    """A module that the kernel requests has a name, and no call."""
    event = call(K.MODULE_REQUEST, text=b"net-pf-10", nr=NO_CALL)
    assert set(describe(event)) & {"call", "args"} == set()
    assert b"net-pf-10" in describe(event).values()


def test_each_flag_of_an_event_has_a_note() -> None:
    """And no flag has another's."""
    texts = {
        FLAG_TRUNCATED: "text was cut",
        FLAG_ADOPTED: "existed before the agent",
        FLAG_SIGNAL_FAILED: "SIGKILL could not be sent",
    }
    for flag, text in texts.items():
        assert notes(call(K.SYS_MOUNT, flags=flag)) == [text]
    assert notes(call(K.SYS_MOUNT)) == []


def test_a_word_of_one_filesystem_is_preferred() -> None:
    """`ext4` and its relatives share a number; each word of the policies leads to its own number."""
    for word, magics in FILESYSTEMS.items():
        if len(magics) == 1:
            assert filesystem(magics[0]) == word
    assert device_text(8 << 20 | 0xFFFFF) == "8:1048575"
