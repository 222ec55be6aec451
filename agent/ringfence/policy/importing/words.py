# SPDX-License-Identifier: Apache-2.0
"""What the other tools name, in the words of policies: system calls, their arguments, and paths."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from ringfence.policy.operand import Kind, Operand
from ringfence.policy.paths import has_glob, problem_of_absolute
from ringfence.policy.vocabulary import EVENTS

__all__ = ["Argument", "Call", "argument", "call_of", "calls", "programs", "translate_path", "value_of"]


class Call(NamedTuple):
    """The event of a system call, and the conditions that distinguish it from others of that event."""

    event: str
    match: Mapping[str, str]


class Argument(NamedTuple):
    """An argument of a system call: its number, its name in Falco, and the operand that has it."""

    number: int
    name: str
    operand: str


#: events named as a system call that they do not cover: renames without flags, signals to itself
_OTHER_MEANING = ("rename", "signal")
_VARIANTS = {
    "process.exec": "execve execveat",
    "file.open": "open openat openat2 creat",
    "network.connect": "connect",
    "network.bind": "bind",
    "network.sendmsg": "sendto sendmsg",
    "clone": "clone clone3 fork vfork",
    "umount": "umount umount2",
    "module_unload": "delete_module",
    "kexec": "kexec_load kexec_file_load",
    "chmod": "chmod fchmod fchmodat fchmodat2",
    "mknod": "mknod mknodat",
    "symlink": "symlink symlinkat",
    "setxattr": "setxattr lsetxattr fsetxattr",
}
#: system call -> its arguments that an operand has
_ARGUMENTS: Mapping[str, Sequence[Argument]] = {
    "execve": [Argument(0, "filename", "path")],
    "execveat": [Argument(1, "pathname", "path")],
    "open": [Argument(0, "name", "path")],
    "creat": [Argument(0, "name", "path")],
    "openat": [Argument(1, "name", "path")],
    "openat2": [Argument(1, "name", "path")],
    "clone": [Argument(0, "flags", "flags")],
    "unshare": [Argument(0, "flags", "flags")],
    "setns": [Argument(1, "nstype", "nstype")],
    "mount": [Argument(2, "type", "fstype"), Argument(3, "flags", "flags")],
    "umount2": [Argument(1, "flags", "flags")],
    "fsopen": [Argument(0, "fsname", "fstype")],
    "ptrace": [Argument(0, "request", "request")],
    "bpf": [Argument(0, "cmd", "cmd")],
    "socket": [
        Argument(0, "domain", "family"),
        Argument(1, "type", "type"),
        Argument(2, "proto", "protocol"),
    ],
    "memfd_create": [Argument(1, "flags", "flags")],
    "setuid": [Argument(0, "uid", "uid")],
    "setgid": [Argument(0, "gid", "gid")],
    "personality": [Argument(0, "persona", "flags")],
    "keyctl": [Argument(0, "option", "operation")],
    "reboot": [Argument(2, "cmd", "cmd")],
    "ioctl": [Argument(1, "request", "request")],
    "chmod": [Argument(1, "mode", "mode")],
    "fchmod": [Argument(1, "mode", "mode")],
    "fchmodat": [Argument(2, "mode", "mode")],
}
#: where a container sees a filesystem -> its name in policies; None: no fixed names, or devices
_MOUNTED = (
    ("/sys/fs/cgroup/", "cgroup"),
    ("/sys/fs/bpf/", "bpf"),
    ("/sys/kernel/tracing/", "tracefs"),
    ("/sys/kernel/debug/", "debugfs"),
    ("/sys/kernel/security/", "securityfs"),
    ("/sys/", "sysfs"),
    ("/proc/", "proc"),
    ("/dev/", None),
)


def call_of(name: str) -> Call | None:
    """Returns the event of a system call; None if Ringfence has no event that covers it."""
    return calls().get(name)


@cache
def calls() -> dict[str, Call]:
    """Returns every system call that an event covers."""
    found: dict[str, Call] = {}
    for words in EVENTS.values():
        family = words.operand("call")
        if family is not None:
            found |= {word: Call(words.label, {"call": word}) for word in family.words}
        elif "." not in words.label and words.label not in _OTHER_MEANING:
            found[words.label] = Call(words.label, {})
    for event, names in _VARIANTS.items():
        found |= {name: Call(event, {}) for name in names.split()}
    return found


def argument(call: str, *, index: int = -1, name: str = "") -> Argument | None:
    """Returns the argument of a system call with that number or name; None if no operand has it."""
    known = _ARGUMENTS.get(call, ())
    return next((one for one in known if one.number == index or (name and one.name == name)), None)


def value_of(operand: Operand, values: Iterable[str], how: str) -> Any:
    """Returns values as an operand takes them; None if it cannot.

    `how`: `is` (any of the values), `bits` (any bit of them) or `begins`.
    """
    values = list(values)
    if operand.kind is Kind.TEXT and how in ("is", "begins"):
        return [f"{one}*" if how == "begins" else one for one in values] or None
    wanted = "bits" if operand.kind is Kind.FLAGS else "is"
    if how != wanted or operand.kind not in (Kind.FLAGS, Kind.CHOICE, Kind.NUMBER):
        return None
    found = [_word(operand, one) for one in values]
    return found if found and None not in found else None


def _word(operand: Operand, word: str) -> str | int | None:
    if word in operand.words:
        return word
    number: object = getattr(stat, word, None) if word.startswith("S_I") else None
    if number is None:
        try:
            number = int(word[:64], 0)
        except ValueError:
            return None
    if not isinstance(number, int) or number < 0 or (operand.kind is Kind.FLAGS and not number):
        return None
    return str(number) if operand.kind is Kind.NUMBER else number


def programs(values: Sequence[str]) -> bool:
    """Returns True if the values are whole paths of programs, as the operand `exe` takes them."""
    return bool(values) and not any(problem_of_absolute(one) for one in values)


def translate_path(path: str, how: str) -> tuple[list[str], str]:
    """Returns the patterns of a policy for a path in a container, or why there are none.

    `how`: `is`, `begins`, `below` (of a directory, at any depth) or `ends`. A path without a filesystem holds
    on every one; files of procfs, sysfs and the like are named by their filesystem.
    """
    if how == "ends":
        name = path.removeprefix("/")
        plain = path.startswith("/") and name and "/" not in name and not has_glob(name)
        return ([f"**/{name}"], "") if plain else ([], f"{path!r} does not end with one whole name")
    if not path.startswith("/") or has_glob(path):
        return [], f"{path!r} is not an absolute path without patterns"
    full = f"{path}/" if how == "below" and not path.endswith("/") else path
    at, kind = next(((at, kind) for at, kind in _MOUNTED if full.startswith(at)), ("/", ""))
    rest = full.removeprefix(at)
    inner = [one for place, one in _MOUNTED if how != "is" and place != at and place.startswith(full)]
    if kind is None or None in inner:
        return [], f"{path!r}: the files of /dev have no fixed filesystem; see device.access"
    if kind == "proc" and (rest[:1].isdigit() or rest.startswith(("self", "thread-self"))):
        return [], f"{path!r}: files of a process have no fixed path"
    name = f"{kind}:{rest}" if kind else f"/{rest}"
    return [name if how == "is" else f"{name}**", *(f"{one}:**" for one in inner)], ""
