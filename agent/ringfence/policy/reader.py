# SPDX-License-Identifier: Apache-2.0
"""Reads YAML into plain nodes with line and column, within limits. Constructs no objects, ignores tags.

The limits apply before and during parsing, so a hostile file costs little: first the size, then the number
and depth of nodes. Aliases are refused: policies do not need them, and a few lines of them can expand to a
billion nodes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ringfence.errors import Problem

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_FILES",
    "MAX_NODES",
    "Item",
    "MappingNode",
    "Node",
    "Scalar",
    "SequenceNode",
]
__all__ += ["expand", "parse", "read"]

MAX_BYTES = 4 << 20
MAX_NODES = 400_000
MAX_DEPTH = 16
MAX_FILES = 4096
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: kinds of unquoted words. `no`, `on` and `1e3` are strings here, unlike in YAML 1.1.
_KINDS = (
    ("null", re.compile("|~|null")),
    ("bool", re.compile("true|false")),
    ("int", re.compile("-?(0|[1-9][0-9]*|0x[0-9a-fA-F]+|0o[0-7]+)")),
)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar: its text, and its kind, which is str if it was quoted ("80")."""

    text: str
    kind: str  # str, int, bool, null, tag
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A YAML sequence."""

    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Item:
    """One key of a mapping and its value."""

    key: Scalar
    value: Node


@dataclass(frozen=True, slots=True)
class MappingNode:
    """A YAML mapping, in file order; a key may occur twice, which the loader refuses."""

    items: tuple[Item, ...]
    line: int
    column: int


Node: TypeAlias = "Scalar | SequenceNode | MappingNode"


class _Refused(Exception):
    """The file exceeds a limit of this reader."""

    def __init__(self, message: str, mark: Any) -> None:
        super().__init__(message)
        self.message, self.mark = message, mark


def expand(paths: list[Path]) -> tuple[list[Path], list[Problem]]:
    """Returns the policy files of paths: for a directory, its *.yaml and *.yml files except hidden ones."""
    files: list[Path] = []
    problems: list[Problem] = []
    for path in paths:
        if path.is_dir():
            found = sorted(_in(path))
            if not found:
                problems.append(
                    Problem(str(path), 0, 0, "", "contains no policy: no *.yaml or *.yml file in it")
                )
            files += found
        else:
            files.append(path)
    if len(files) > MAX_FILES:
        problems.append(Problem(str(files[MAX_FILES]), 0, 0, "", f"more than {MAX_FILES} files"))
    return files[:MAX_FILES], problems


def _in(folder: Path) -> Iterator[Path]:
    # Not recursive: a set of policies keeps optional rules in a subdirectory. Hidden files are skipped: a
    # mounted ConfigMap has them next to each file (`..data`, `..2026_...`), and editors leave them.
    for entry in folder.iterdir():
        if entry.suffix in (".yaml", ".yml") and not entry.name.startswith(".") and not entry.is_dir():
            yield entry


def read(path: Path) -> tuple[list[Node], list[Problem]]:
    """Returns the documents of one file, or its problems."""
    file = str(path)
    try:
        # O_NONBLOCK: a FIFO in the directory must not block the agent.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return [], [Problem(file, 0, 0, "", "is not a regular file")]
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        return [], [Problem(file, 0, 0, "", f"cannot be read: {error.strerror}")]
    return parse(file, data)


def parse(file: str, data: bytes) -> tuple[list[Node], list[Problem]]:
    """Returns the documents in `data`, or its problems. `file` is only used in messages."""
    if len(data) > MAX_BYTES:
        return [], [Problem(file, 0, 0, "", f"is larger than {MAX_BYTES >> 20} MiB")]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        return [], [Problem(file, line, column, "", f"is not UTF-8 (byte 0x{data[error.start]:02x})")]
    try:
        documents = list(_documents(text))
    except _Refused as error:
        return [], [Problem(file, error.mark.line + 1, error.mark.column + 1, "", error.message)]
    except yaml.YAMLError as error:
        return [], [_yaml_problem(file, error)]
    if not documents:
        return [], [Problem(file, 0, 0, "", "contains no document")]
    return documents, []


def _yaml_problem(file: str, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    text = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    if "nesting depth" in text:  # newer versions of libyaml, which look ahead, refuse it first
        context, text = None, f"more than {MAX_DEPTH} levels deep"
    message = f"is not YAML: {f'{context}, ' if context else ''}{text}"
    return Problem(file, mark.line + 1 if mark else 0, mark.column + 1 if mark else 0, "", message)


class _Open:
    """A sequence or mapping that is being read."""

    __slots__ = ("column", "is_mapping", "key", "line", "parts")

    def __init__(self, event: Any) -> None:
        self.is_mapping = isinstance(event, yaml.MappingStartEvent)
        self.line, self.column = event.start_mark.line + 1, event.start_mark.column + 1
        self.parts: list[Any] = []
        self.key: Scalar | None = None

    def add(self, node: Node, mark: Any) -> None:
        if not self.is_mapping:
            self.parts.append(node)
        elif self.key is not None:
            self.parts.append(Item(self.key, node))
            self.key = None
        elif isinstance(node, Scalar):
            self.key = node
        else:
            raise _Refused("a key must be a single word", mark)

    def close(self) -> Node:
        make = MappingNode if self.is_mapping else SequenceNode
        return make(tuple(self.parts), self.line, self.column)


def _documents(text: str) -> Iterator[Node]:
    """Composes documents from events, without recursion; with libyaml if available (ten times as fast)."""
    stack: list[_Open] = []
    count = 0
    for event in yaml.parse(text, Loader=_PARSER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Refused("anchors and aliases are not allowed: write the value out", event.start_mark)
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            stack.append(_Open(event))
            if len(stack) > MAX_DEPTH:
                raise _Refused(f"more than {MAX_DEPTH} levels deep", event.start_mark)
            continue
        if isinstance(event, yaml.ScalarEvent):
            node: Node = _scalar(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            node = stack.pop().close()
        else:
            continue
        count += 1
        if count > MAX_NODES:
            raise _Refused(f"more than {MAX_NODES} values in one file", event.start_mark)
        if stack:
            stack[-1].add(node, event.start_mark)
        elif not (isinstance(node, Scalar) and node.kind == "null"):
            yield node


def _scalar(event: Any) -> Scalar:
    kind = "str"
    if event.tag is not None:
        kind = "tag"  # !!python/object and the like: never valid in a policy
    elif event.implicit[0]:
        kind = next((kind for kind, pattern in _KINDS if pattern.fullmatch(event.value)), "str")
    return Scalar(event.value, kind, event.start_mark.line + 1, event.start_mark.column + 1)
