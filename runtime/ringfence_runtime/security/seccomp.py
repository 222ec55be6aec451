# SPDX-License-Identifier: Apache-2.0
"""Seccomp profiles: compiled by libseccomp once, kept as BPF bytes, and installed as the last step before
execve.
"""

from __future__ import annotations

import os
from _struct import pack

from ringfence_runtime import __version__, _sys, jsonio
from ringfence_runtime.errors import Error, SpecError
from ringfence_runtime.spec.node import U32, U64, Node, choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["ACTIONS", "ARCHES", "FLAGS", "OPERATORS", "Filter", "call_names", "compile_profile", "prepare"]

ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
ARCHES = tuple(
    f"SCMP_ARCH_{name}"
    for name in [
        "X86",
        "X86_64",
        "X32",
        "ARM",
        "AARCH64",
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PPC",
        "PPC64",
        "PPC64LE",
        "S390",
        "S390X",
        "PARISC",
        "PARISC64",
        "RISCV64",
    ]
)
NEW_LISTENER = 8
_ALLOWING = frozenset(("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"))
CACHE = "/run/ringfence/seccomp"
_NATIVE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_SIGNATURES = {
    "seccomp_init": ("p", "I"),
    "seccomp_release": ("v", "p"),
    "seccomp_arch_add": ("i", "pI"),
    "seccomp_arch_resolve_name": ("I", "s"),
    "seccomp_attr_set": ("i", "piI"),
    "seccomp_syscall_resolve_name": ("i", "s"),
    "seccomp_rule_add_array": ("i", "pIiIp"),
    "seccomp_export_bpf": ("i", "pi"),
    "seccomp_arch_native": ("I", ""),
    "seccomp_syscall_resolve_num_arch": ("s", "Ii"),
}


class Filter:
    """A compiled profile: the program, the flags of seccomp(2) and, with SCMP_ACT_NOTIFY, where the
    listener goes.
    """

    __slots__ = ("flags", "listener", "metadata", "program")

    def __init__(self, program: bytes, flags: int, listener: str, metadata: str) -> None:
        self.program = program
        self.flags = flags
        self.listener = listener
        self.metadata = metadata


class _Rule:
    __slots__ = ("action", "args", "names")

    def __init__(self, node: Node) -> None:
        self.names = node.texts("names")
        if not self.names:
            raise node.error("names", "is required and must not be empty")
        self.action = _action(node, "action", node.number("errnoRet", 0, 0xFFFF))
        self.args: list[tuple[int, bytes]] = []
        for item in node.nodes("args"):
            index = item.need_number("index", 0, 5)
            operator = OPERATORS[item.choice("op", OPERATORS)]
            value, second = item.number("value", 0, U64) or 0, item.number("valueTwo", 0, U64) or 0
            self.args.append((index, pack("IiQQ", index, operator, value, second)))


def _action(node: Node, key: str, errno: int | None) -> int:
    name = node.choice(key, ACTIONS)
    value = ACTIONS[name]
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return value | (1 if errno is None else errno)
    if errno is not None and name != "SCMP_ACT_NOTIFY":
        raise node.error(f"{key}", f"{name} takes no errno")
    return value


def _flags(node: Node) -> int:
    flags = 0
    for index, name in enumerate(node.texts("flags")):
        flags |= FLAGS[choice(f"{node.at('flags')}[{index}]", name, FLAGS)]
    return flags


def _library() -> dict[str, Callable[..., Any]]:
    try:
        return _sys.load_library("libseccomp.so.2", _SIGNATURES)  # type: ignore[return-value]
    except OSError:
        raise Error(
            "libseccomp.so.2 is not installed", hint="the profile in linux.seccomp needs it"
        ) from None


def prepare(node: Node) -> Filter:
    """The filter of a profile, from the cache where it has been compiled before."""
    flags = _flags(node)
    text = jsonio.dumps(node.data) + __version__ + os.uname().machine
    from _blake2 import blake2b

    name = blake2b(text.encode(), digest_size=16).hexdigest()
    program = _cached(name)
    if program is None:
        program = compile_profile(node)
        _store(name, program)
    listener = node.text("listenerPath")
    if "SCMP_ACT_NOTIFY" in text and not listener:
        raise node.error("listenerPath", "SCMP_ACT_NOTIFY needs it")
    if listener and not listener.startswith("/"):
        raise node.error("listenerPath", f"{listener!r} must be an absolute path")
    return Filter(program, flags | (NEW_LISTENER if listener else 0), listener, node.text("listenerMetadata"))


def _cached(name: str) -> bytes | None:
    """The program, if the cache is a directory that only this user can write."""
    try:
        directory = os.open(CACHE, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(directory)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            data = os.read(fd, 1 << 20)
        finally:
            os.close(fd)
        return data if data and len(data) % 8 == 0 else None
    except OSError:
        return None
    finally:
        os.close(directory)


def _store(name: str, program: bytes) -> None:
    """Keep the program; a cache that cannot be written costs time, nothing else."""
    try:
        os.makedirs(CACHE, 0o700, exist_ok=True)
        temporary = f"{CACHE}/{name}.{os.getpid()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            whole = os.write(fd, program) == len(program)
        finally:
            os.close(fd)
        if whole:
            os.rename(temporary, f"{CACHE}/{name}")
        else:
            os.unlink(temporary)
    except OSError:
        pass


def compile_profile(node: Node) -> bytes:
    """The profile as classic BPF (packed sock_filter), for every architecture that it names."""
    library = _library()
    default = node.choice("defaultAction", ACTIONS)
    default_action = _action(node, "defaultAction", node.number("defaultErrnoRet", 0, 0xFFFF))
    context = library["seccomp_init"](default_action & U32)
    if not context:
        raise node.error("defaultAction", f"{default} is refused by libseccomp")
    try:
        _arches(library, context, node)
        library["seccomp_attr_set"](context, 3, 0)  # no_new_privs is set by us, not by the library
        library["seccomp_attr_set"](context, 8, 2)  # a binary tree of comparisons, where the library can
        newest = 0
        for item in node.nodes("syscalls"):
            newest = max(newest, _add(library, context, _Rule(item), default_action, item))
        fd = os.memfd_create("filter", os.MFD_CLOEXEC)
        try:
            result = library["seccomp_export_bpf"](context, fd)
            if result < 0:
                raise Error(
                    f"config: {node.path}: libseccomp cannot write the filter: {os.strerror(-result)}"
                )
            size = os.lseek(fd, 0, os.SEEK_END)
            program = os.pread(fd, size, 0)
        finally:
            os.close(fd)
    finally:
        library["seccomp_release"](context)
    if default in _ALLOWING or default_action == ACTIONS["SCMP_ACT_ERRNO"] | 38 or not newest:
        return program
    return _unknown_calls(newest) + program


def _arches(library: dict[str, Callable[..., Any]], context: int, node: Node) -> None:
    for index, name in enumerate(node.texts("architectures")):
        short = name.removeprefix("SCMP_ARCH_").lower()
        token = library["seccomp_arch_resolve_name"](short.encode())
        if not token:
            raise SpecError(f"{node.at('architectures')}[{index}]", f"{name!r} is not known to libseccomp")
        result = library["seccomp_arch_add"](context, token)
        if result < 0 and result != -17:  # EEXIST: the native one is there from the beginning
            raise SpecError(f"{node.at('architectures')}[{index}]", os.strerror(-result))


def _add(library: dict[str, Callable[..., Any]], context: int, rule: _Rule, default: int, node: Node) -> int:
    """Add a rule for each of its calls; returns the highest number among them."""
    newest = 0
    groups = [b"".join(data for _, data in rule.args)]
    if len({index for index, _ in rule.args}) != len(rule.args):
        groups = [data for _, data in rule.args]  # conditions on one argument twice: either may hold
    for name in rule.names:
        number = library["seccomp_syscall_resolve_name"](name.encode())
        if number == -1:
            continue  # a call of another architecture or of a newer kernel: nothing to filter here
        newest = max(newest, number)
        if rule.action == default:
            continue
        for group in groups:
            result = library["seccomp_rule_add_array"](
                context, rule.action & U32, number, len(group) // 24, group
            )
            if result < 0 and result != -17:
                raise SpecError(node.at("names"), f"{name}: {os.strerror(-result)}")
    return newest


def _unknown_calls(newest: int) -> bytes:
    """Instructions before the filter: a native call newer than any in the profile fails with ENOSYS.

    The profile cannot have meant to forbid it, and a C library that gets EPERM for a new call does not fall
    back.
    """
    native = _NATIVE.get(os.uname().machine)
    if native is None:
        return b""

    def statement(code: int, true: int, false: int, k: int) -> bytes:
        return pack("HBBI", code, true, false, k)

    return b"".join(
        (
            statement(0x20, 0, 0, 4),  # load arch
            statement(0x15, 0, 4, native),  # another architecture: on to the filter
            statement(0x20, 0, 0, 0),  # load nr
            statement(0x35, 2, 0, 0x40000000),  # x32 numbers: on to the filter
            statement(0x25, 0, 1, newest),  # not above: on to the filter
            statement(0x06, 0, 0, 0x00050000 | 38),
        )
    )


def call_names(architecture: str) -> Callable[[int], str]:
    """A function from the number of a call to its name, of this machine's architecture or another (`x86`)."""
    library = _library()
    token = library["seccomp_arch_resolve_name"](architecture.encode()) if architecture else 0
    token = token or library["seccomp_arch_native"]()

    def name(number: int) -> str:
        found = library["seccomp_syscall_resolve_num_arch"](token, number)
        return found.decode("ascii", "replace") if found else f"call-{number}"

    return name
