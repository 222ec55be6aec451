# SPDX-License-Identifier: Apache-2.0
"""Names of files and sockets in rules: `filesystem:path-inside-it`, `**/name`, `dir/**`, `@abstract`.

A path starts at the root of the file's filesystem (of its superblock, not of a mount), so a bind mount, a
second mount or a symbolic link does not change it. It is stored with a leading slash, as the probes write it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from ringfence.abi import MATCH_TEXT, PATH_LEN
from ringfence.policy.constants import FILESYSTEMS
from ringfence.policy.operand import FULL, Conjunction, Operand, Texts, Values, fnv1a
from ringfence.policy.reader import Node, Scalar

__all__ = ["NAME_DIM", "has_glob", "objects", "problem_of_absolute", "sockets"]

#: dims of file.open and process.exec
_FILESYSTEM_DIM = 0
NAME_DIM = 3
_GLOB = re.compile(r"[*?\[\]]")
_FILESYSTEM = re.compile(r"([A-Za-z0-9_]+):(.*)", re.DOTALL)

Complain = Callable[[Node, str], None]


def has_glob(text: str) -> bool:
    """Returns True if the text contains a wildcard character."""
    return _GLOB.search(text) is not None


def problem_of_absolute(path: str) -> str:
    """Returns why a text is not the absolute path of a program; empty if it is one."""
    if not path.startswith("/"):
        return f"{path!r} must begin with `/`"
    if has_glob(path):
        return f"{path!r} must name one program: patterns are not allowed here"
    if path.endswith("/"):
        return f"{path!r} ends with `/`: it must name one program"
    return _problem_of_parts(path) or (f"{path!r} is too long" if len(path.encode()) >= PATH_LEN else "")


def _problem_of_parts(path: str) -> str:
    parts = path.strip("/").split("/")
    if any(part in (".", "..") for part in parts) or (path.strip("/") and "" in parts):
        return f"{path!r} is not a plain path (it contains `.`, `..` or `//`)"
    return ""


class _Pattern(NamedTuple):
    """A path pattern: `begin` is the path or its prefix, `name` the last component."""

    begin: str | None
    is_prefix: bool
    name: str | None


def _pattern(text: str) -> _Pattern | str:
    """Parses a path pattern without its leading slash. Returns the pattern, or an error message."""
    if text in ("**", "*"):
        return _Pattern(None, True, None)
    head, deep, name = text.rpartition("**/")
    if deep:
        if not name or has_glob(name) or "/" in name:
            return "`**/` must be followed by one plain name"
        if has_glob(head) or (head and not head.endswith("/")):
            return "only one `**/` is allowed, after whole components"
        return _Pattern(head or None, True, name)
    begin = text.rstrip("*")
    if has_glob(begin):
        return "allowed patterns are `**/name`, `dir/**/name`, `dir/**` and `begin*`"
    if text.endswith("/"):
        return "ends with `/`: write `dir/**` for everything below, `dir` for the directory itself"
    return _Pattern(begin, begin != text, None)


class _Group:
    """The patterns of one filesystem, grouped by shape: each shape becomes an alternative."""

    def __init__(self) -> None:
        self.everything = False
        self.exact: set[bytes] = set()
        self.prefixes: set[bytes] = set()
        self.names: dict[str | None, set[int]] = {}  # by the prefix that goes with them

    def add(self, pattern: _Pattern) -> None:
        if pattern.name is not None:
            self.names.setdefault(pattern.begin, set()).add(fnv1a(pattern.name.encode()))
        elif pattern.begin is None:
            self.everything = True
        else:
            (self.prefixes if pattern.is_prefix else self.exact).add(b"/" + pattern.begin.encode())

    def alternatives(self, first: Conjunction, name_dim: int) -> list[Conjunction]:
        found: list[Conjunction] = []
        if self.everything:
            return [first or (Values(name_dim, 0, frozenset((0,))),)]
        if self.exact or self.prefixes:
            found.append((*first, Texts(frozenset(self.exact), frozenset(self.prefixes))))
        for begin, hashes in self.names.items():
            name = Values(name_dim, FULL, frozenset(hashes))
            below = () if begin is None else (Texts(frozenset(), frozenset((b"/" + begin.encode(),))),)
            found.append((*first, name, *below))
        return found


def objects(
    operand: Operand, words: Sequence[Scalar], *, negated: bool, complain: Complain
) -> list[Conjunction]:
    """Returns the alternatives of `path:`, as few as possible for each filesystem."""
    if negated:
        complain(words[0], "paths cannot be negated: match more and put these into `exceptions`")
        return []
    groups: dict[tuple[int, ...] | None, _Group] = {}
    for word in words:
        filesystem, path = None, word.text
        if found := _FILESYSTEM.fullmatch(word.text):
            filesystem, path = found[1], found[2]
            if filesystem not in FILESYSTEMS:
                near = get_close_matches(filesystem, FILESYSTEMS, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(FILESYSTEMS)}"
                complain(word, f"{filesystem!r} is not a known filesystem{hint}")
                continue
        elif not path.startswith(("/", "**/")):
            complain(word, f"{path!r} must be filesystem:path, /path or **/name")
            continue
        _add(groups, filesystem, path.lstrip("/"), word, complain)
    alternatives: list[Conjunction] = []
    for magics, group in groups.items():
        first: Conjunction = () if magics is None else (Values(_FILESYSTEM_DIM, FULL, frozenset(magics)),)
        alternatives += group.alternatives(first, NAME_DIM)
    return _merged(alternatives)


def _add(
    groups: dict[tuple[int, ...] | None, _Group],
    filesystem: str | None,
    path: str,
    word: Scalar,
    complain: Complain,
) -> None:
    pattern = _pattern(path) if path else "the path is missing; `**` matches every file"
    problem = pattern if isinstance(pattern, str) else _problem_of_parts((pattern.begin or "x").rstrip("/"))
    if not problem and len(path.encode()) + 1 >= MATCH_TEXT:
        problem = f"is longer than {MATCH_TEXT - 1} bytes"
    if problem or isinstance(pattern, str):
        complain(word, f"{word.text!r}: {problem}")
        return
    if pattern.begin is None and pattern.name is None and filesystem is None:
        complain(word, f"{word.text!r} would match every file: name a filesystem")
        return
    groups.setdefault(FILESYSTEMS[filesystem] if filesystem else None, _Group()).add(pattern)


def _merged(alternatives: list[Conjunction]) -> list[Conjunction]:
    """Merges alternatives that differ only in their filesystem."""
    by_rest: dict[Conjunction, set[int]] = {}
    plain: list[Conjunction] = []
    for conjunction in alternatives:
        first = conjunction[0]
        if isinstance(first, Values) and first.dim == _FILESYSTEM_DIM:
            by_rest.setdefault(conjunction[1:], set()).update(first.values)
        else:
            plain.append(conjunction)
    return [
        (Values(_FILESYSTEM_DIM, FULL, frozenset(magics)), *rest) for rest, magics in by_rest.items()
    ] + plain


def sockets(words: Sequence[Scalar], *, negated: bool, complain: Complain) -> list[Conjunction]:
    """Returns the alternatives of `socket:`. Abstract names begin with @ in policies, NUL in the kernel."""
    exact: set[bytes] = set()
    prefixes: set[bytes] = set()
    for word in words:
        begin = word.text.rstrip("*")
        if not word.text.startswith(("/", "@")) or len(begin) < 2 or has_glob(begin):
            complain(word, f"{word.text!r} is not a socket: write /run/x.sock, /run/x/**, @name or @begin*")
        elif len(begin.encode()) >= MATCH_TEXT:
            complain(word, f"is longer than {MATCH_TEXT - 1} bytes")
        elif word.text.startswith("/") and (problem := _problem_of_parts(begin.rstrip("/"))):
            complain(word, problem)
        else:
            name = begin.encode()
            stored = b"\0" + name[1:] if name.startswith(b"@") else name
            (prefixes if begin != word.text else exact).add(stored)
    return [(Texts(frozenset(exact), frozenset(prefixes), negated),)]
