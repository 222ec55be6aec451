# SPDX-License-Identifier: Apache-2.0
"""Seccomp profiles: compiled by libseccomp once, kept as BPF bytes, and installed as the last step before
execve.
"""

from __future__ import annotations

import os
from _struct import pack

from ringfence_linux import strictjson, syscalls
from ringfence_runtime import BUILD, __version__
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
        "LOONGARCH64",
        "M68K",
        "SH",
        "SHEB",
    ]
)
NEW_LISTENER, _TSYNC, _TSYNC_ESRCH, _WAIT_KILLABLE = 8, 1, 16, 32
_ALLOWING = frozenset(("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"))
#: what an init calls between the installation of a filter and the moment at which the agent has its listener
CALLS_OF_INIT = ("read", "write")
_LIBRARY = "libseccomp.so.2"
CACHE = "/run/ringfence/seccomp"

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
    "seccomp_syscall_resolve_name_arch": ("i", "Is"),
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

    def flags_without_listener(self) -> int:
        """The flags for a process that has no agent."""
        return self.flags & ~(NEW_LISTENER | _TSYNC_ESRCH | _WAIT_KILLABLE)


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
        return syscalls.load_library(_LIBRARY, _SIGNATURES)  # type: ignore[return-value]
    except OSError:
        raise Error(f"{_LIBRARY} is not installed", hint="the profile in linux.seccomp needs it") from None


def prepare(node: Node) -> Filter:
    """The filter of a profile, from the cache where it has been compiled before."""
    flags = _flags(node)
    text = strictjson.dumps(node.data) + __version__ + os.uname().machine + _compilers_stamp()
    from _blake2 import blake2b

    name = blake2b(text.encode(), digest_size=16).hexdigest()
    program = _cached(name)
    if program is None:
        program = compile_profile(node)
        _store(name, program)
    listener = _listener(node)
    if listener:
        # With TSYNC a listener needs the flag that reports failure as ESRCH: otherwise a thread's number
        # could be mistaken for its descriptor (seccomp(2)).
        flags |= NEW_LISTENER | (_TSYNC_ESRCH if flags & _TSYNC else 0)
    else:
        flags &= ~_WAIT_KILLABLE  # it says how listeners wait
    return Filter(program, flags, listener, node.text("listenerMetadata"))


def _listener(node: Node) -> str:
    """Where the listener goes; nowhere, if no rule asks for one."""
    path = node.text("listenerPath")
    if path and not path.startswith("/"):
        raise node.error("listenerPath", f"{path!r} must be an absolute path")
    if node.text("listenerMetadata") and not path:
        raise node.error("listenerMetadata", "needs listenerPath beside it")
    actions = {node.text("defaultAction"), *(item.text("action") for item in node.nodes("syscalls"))}
    if "SCMP_ACT_NOTIFY" not in actions:
        return ""
    if not path:
        raise node.error("listenerPath", "SCMP_ACT_NOTIFY needs it")
    for name in CALLS_OF_INIT:
        _check_not_notified(node, name)
    return path


def _check_not_notified(node: Node, name: str) -> None:
    """Refuses a profile that sends this call to the agent: it would wait for an agent without a listener."""
    why = f"{name} cannot be SCMP_ACT_NOTIFY: the runtime needs it to pass the listener to the agent"
    by_default = node.text("defaultAction") == "SCMP_ACT_NOTIFY"
    for item in node.nodes("syscalls"):
        if name in item.texts("names"):
            if item.text("action") == "SCMP_ACT_NOTIFY":
                raise item.error("action", why)
            by_default = by_default and item.has("args")
    if by_default:
        raise node.error("defaultAction", f"{why}; add a rule that allows it")


def _compilers_stamp() -> str:
    """Identifies this module's code and libseccomp, without loading the library.

    Another build of either may compile another program from the same profile.
    """
    machine = os.uname().machine
    directories = (f"/usr/lib/{machine}-linux-gnu", "/usr/lib64", "/usr/lib", "/lib64", "/lib")
    library = next(filter(None, (_file_stamp(f"{one}/{_LIBRARY}") for one in directories)), "")
    return f"{BUILD or _file_stamp(__file__)} {library}"


def _file_stamp(path: str) -> str:
    """Inode, size and time of modification of a file; empty where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def supported_flags() -> list[str]:
    """Those of FLAGS that this kernel knows."""
    return sorted(
        name
        for name, bit in FLAGS.items()
        if syscalls.seccomp_knows(bit | (NEW_LISTENER if bit == _WAIT_KILLABLE else 0))
    )


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
        arches = _arches(library, context, node)
        library["seccomp_attr_set"](context, 3, 0)  # no_new_privs is set by us, not by the library
        library["seccomp_attr_set"](context, 8, 2)  # a binary tree of comparisons, where the library can
        rules = [(_Rule(item), item) for item in node.nodes("syscalls")]
        for rule, item in rules:
            _add(library, context, rule, default_action, item)
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
    if default in _ALLOWING or default_action == ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS:
        return program
    names = {name for rule, _ in rules for name in rule.names}
    return unknown_calls({arch: _newest(library, arch, names) for arch in arches}) + program


def _arches(library: dict[str, Callable[..., Any]], context: int, node: Node) -> list[int]:
    """Let the filter hold for these, too; gives their tokens, the native one first."""
    tokens: list[int] = [library["seccomp_arch_native"]()]
    for index, name in enumerate(node.texts("architectures")):
        short = name.removeprefix("SCMP_ARCH_").lower()
        token = library["seccomp_arch_resolve_name"](short.encode())
        if not token:
            raise SpecError(f"{node.at('architectures')}[{index}]", f"{name!r} is not known to libseccomp")
        result = library["seccomp_arch_add"](context, token)
        if result < 0 and result != -17:  # EEXIST: the native one is there from the beginning
            raise SpecError(f"{node.at('architectures')}[{index}]", os.strerror(-result))
        if token not in tokens:
            tokens.append(token)
    return tokens


def _newest(library: dict[str, Callable[..., Any]], arch: int, names: set[str]) -> int:
    """The highest number of these calls in an architecture; 0 where it has none of them."""
    return max(
        (library["seccomp_syscall_resolve_name_arch"](arch, name.encode()) for name in names), default=0
    )


def _add(library: dict[str, Callable[..., Any]], context: int, rule: _Rule, default: int, node: Node) -> None:
    """Add a rule for each of its calls."""
    if rule.action == default:
        return
    groups = [b"".join(data for _, data in rule.args)]
    if len({index for index, _ in rule.args}) != len(rule.args):
        groups = [data for _, data in rule.args]  # conditions on one argument twice: either may hold
    for name in rule.names:
        number = library["seccomp_syscall_resolve_name"](name.encode())
        if number == -1:
            continue  # a call of another architecture or of a newer kernel: nothing to filter here
        for group in groups:
            result = library["seccomp_rule_add_array"](
                context, rule.action & U32, number, len(group) // 24, group
            )
            if result < 0 and result != -17:
                raise SpecError(node.at("names"), f"{name}: {os.strerror(-result)}")


# The x32 calls of an x86_64 kernel share its architecture in the filter's data, and have this bit.
_X86_64, _X32, _X32_BIT = 0xC000003E, 0x4000003E, 0x40000000
_ENOSYS = 38
_LD, _JEQ, _JGE, _JGT, _JA, _RET = 0x20, 0x15, 0x35, 0x25, 0x05, 0x06  # classic BPF, as in linux/filter.h
_NR, _ARCH = 0, 4  # offsets in struct seccomp_data


def unknown_calls(newest: dict[int, int]) -> bytes:
    """Instructions before the filter: a call newer than any in the profile fails with ENOSYS.

    The profile cannot have meant to forbid it, and a C library that gets EPERM for a new call does not fall
    back. `newest` has the highest number of each architecture that the profile is for.
    """
    blocks = [
        _block(arch, number, newest.get(_X32, 0) if arch == _X86_64 else 0)
        for arch, number in newest.items()
        if arch != _X32 and number > 0
    ]
    code = b""
    for block in reversed(blocks):
        code = block(len(code) // 8) + code
    return code


def _block(arch: int, newest: int, newest_x32: int) -> Callable[[int], bytes]:
    """One architecture's part, when it is known how many instructions stand between it and the filter."""

    def code(behind: int) -> bytes:
        tests = [pack("HBBI", _JGT, 0, 1, newest), pack("HBBI", _RET, 0, 0, _REFUSED)]
        if arch == _X86_64:
            x32 = [pack("HBBI", _JGT, 0, 1, newest_x32), tests[1]] if newest_x32 else []
            over = pack("HBBI", _JA, 0, 0, len(x32))
            tests = [pack("HBBI", _JGE, 3, 0, _X32_BIT), *tests, over, *x32]
        body = [pack("HBBI", _LD, 0, 0, _NR), *tests, pack("HBBI", _JA, 0, 0, behind)]
        start = [pack("HBBI", _LD, 0, 0, _ARCH), pack("HBBI", _JEQ, 0, len(body), arch)]
        return b"".join([*start, *body])

    return code


_REFUSED = ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS


def call_names(architecture: str) -> Callable[[int], str]:
    """A function from the number of a call to its name, of this machine's architecture or another (`x86`)."""
    library = _library()
    token = library["seccomp_arch_resolve_name"](architecture.encode()) if architecture else 0
    token = token or library["seccomp_arch_native"]()

    def name(number: int) -> str:
        found = library["seccomp_syscall_resolve_num_arch"](token, number)
        return found.decode("ascii", "replace") if found else f"call-{number}"

    return name
