# SPDX-License-Identifier: Apache-2.0
"""System calls of the fences: capabilities, seccomp, bpf, keyrings, Landlock. Re-exported by `_sys`."""

from __future__ import annotations

import ctypes
from _struct import pack, unpack_from

from ringfence_runtime._calls import OLD, call

__all__ = [
    "bpf",
    "capget",
    "capset",
    "keyctl_describe_perm",
    "keyctl_join_session",
    "keyctl_setperm",
    "landlock_abi",
    "landlock_add_rule",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "seccomp_filter",
    "seccomp_knows",
]


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capability sets, given as bit masks (capset(2), version 3)."""
    low, high = 0xFFFFFFFF, 32
    data = pack(
        "6I",
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> high,
        permitted >> high,
        inheritable >> high,
    )
    call("capset", OLD["capset"], pack("Ii", 0x20080522, 0), data)


def capget() -> tuple[int, int, int]:
    """This thread's (effective, permitted, inheritable) capability masks."""
    buffer = ctypes.create_string_buffer(24)
    call("capget", OLD["capget"], pack("Ii", 0x20080522, 0), buffer)
    words = unpack_from("6I", buffer.raw)
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def seccomp_filter(program: bytes, flags: int) -> int:
    """Install a classic BPF filter, given as packed sock_filter; returns the listener's fd if one was asked
    for.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    fprog = pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    return call("seccomp", OLD["seccomp"], 1, flags, fprog)


def bpf(command: int, attributes: bytes | int, size: int = 0) -> int:
    """bpf(2); `attributes` are bytes, or the address of `size` bytes that the kernel writes back to."""
    return call("bpf", OLD["bpf"], command, attributes, size or len(attributes))  # type: ignore[arg-type]


def keyctl_join_session(name: str) -> int:
    """Join a new session keyring of this name."""
    return call("keyctl", OLD["keyctl"], 1, name.encode())


def keyctl_describe_perm(key: int) -> int:
    """The permission mask of a key (KEYCTL_DESCRIBE: `type;uid;gid;perm;name`)."""
    buffer = ctypes.create_string_buffer(512)
    call("keyctl", OLD["keyctl"], 6, key, buffer, 512)
    return int(buffer.value.split(b";")[3], 16)


def keyctl_setperm(key: int, permissions: int) -> None:
    """Set the permission mask of a key."""
    call("keyctl", OLD["keyctl"], 5, key, permissions)


def landlock_abi() -> int:
    """The kernel's Landlock ABI, 0 where there is none."""
    try:
        return call("landlock_create_ruleset", 444, None, 0, 1)
    except OSError:
        return 0


def landlock_create_ruleset(attributes: bytes) -> int:
    """landlock_create_ruleset(2)."""
    return call("landlock_create_ruleset", 444, attributes, len(attributes), 0)


def landlock_add_rule(ruleset: int, kind: int, rule: bytes) -> None:
    """landlock_add_rule(2)."""
    call("landlock_add_rule", 445, ruleset, kind, rule, 0)


def landlock_restrict_self(ruleset: int) -> None:
    """landlock_restrict_self(2)."""
    call("landlock_restrict_self", 446, ruleset, 0)


def seccomp_knows(flags: int) -> bool:
    """Whether this kernel knows these flags of a filter: it looks at them before it looks at the filter."""
    try:
        call("seccomp", OLD["seccomp"], 1, flags, None)
    except OSError as error:
        return error.errno == 14  # EFAULT
    return True
