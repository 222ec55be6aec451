# SPDX-License-Identifier: Apache-2.0
"""Reads typed fields from YAML nodes. Errors are collected with their locations; reading continues."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ringfence.errors import Problem
from ringfence.policy.conditions import suggestion
from ringfence.policy.reader import MappingNode, Node, Scalar, SequenceNode

__all__ = ["Diagnostics"]

_MAX_TEXT = 4096
_MAX_MESSAGE = 600


class Diagnostics:
    """Reads fields of one file and collects the errors found."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def add(self, node: Node, where: str, message: str) -> None:
        """Records an error at a node. Long messages are cut, so that a hostile file cannot fill the log."""
        if len(message) > _MAX_MESSAGE:
            half = _MAX_MESSAGE // 2  # the value is at the start, the reason at the end: keep both
            message = f"{message[:half]} ... {message[-half:]}"
        self.problems.append(Problem(self.file, node.line, node.column, where, message))

    def mapping(
        self, node: Node, where: str, known: Sequence[str], required: Sequence[str] = ()
    ) -> dict[str, Node] | None:
        """Returns the keys of a mapping; None if the node is not a mapping.

        Unknown, repeated and missing keys are errors.
        """
        if not isinstance(node, MappingNode):
            self.add(node, where, f"must be a mapping with the keys {', '.join(required or known)}")
            return None
        found: dict[str, Node] = {}
        for item in node.items:
            key = item.key.text
            if key not in known:
                self.add(item.key, where, f"unknown key {key!r}{suggestion(key, known)}")
            elif key in found:
                self.add(item.key, where, f"{key!r} is given twice")
            else:
                found[key] = item.value
        for key in required:
            if key not in found:
                self.add(node, where, f"{key!r} is missing")
        return found

    def text(
        self, node: Node, where: str, pattern: re.Pattern[str] | None = None, expected: str = "a text"
    ) -> str:
        """Returns the text of a scalar; "" after an error."""
        if not isinstance(node, Scalar) or node.kind not in ("str", "int") or not node.text.strip():
            is_other = isinstance(node, Scalar) and node.kind in ("bool", "null") and node.text.strip()
            self.add(node, where, f"must be {expected}{': put it in quotes' if is_other else ''}")
            return ""
        if len(node.text) > _MAX_TEXT:
            self.add(node, where, f"is longer than {_MAX_TEXT} characters")
            return ""
        if pattern is not None and not pattern.fullmatch(node.text):
            self.add(node, where, f"{shown(node.text)} is not {expected}")
            return ""
        return node.text

    def choice(self, node: Node, where: str, known: Sequence[str]) -> str | None:
        """Returns one of the known words; None after an error."""
        if isinstance(node, Scalar) and node.text in known:
            return node.text
        got = shown(node.text) if isinstance(node, Scalar) else "this"
        hint = suggestion(node.text, known) if isinstance(node, Scalar) else ""
        hint = hint if "did you mean" in hint else ""
        self.add(node, where, f"{got} is not one of {', '.join(repr(word) for word in known)}{hint}")
        return None

    def boolean(self, node: Node, where: str) -> bool | None:
        """Returns a boolean; None after an error."""
        if isinstance(node, Scalar) and node.kind == "bool":
            return node.text == "true"
        self.add(node, where, "must be true or false")
        return None

    def texts(
        self, node: Node, where: str, pattern: re.Pattern[str] | None = None, expected: str = "a text"
    ) -> tuple[str, ...]:
        """Returns a non-empty list of texts, or a single text as a list; () after an error."""
        items = node.items if isinstance(node, SequenceNode) else (node,)
        if not items:
            self.add(node, where, "is an empty list")
        found = [self.text(item, f"{where}[{index}]", pattern, expected) for index, item in enumerate(items)]
        return tuple(found) if all(found) else ()

    def labels(self, node: Node, where: str) -> tuple[tuple[str, str], ...]:
        """Returns the items of a mapping of strings to strings; () after an error."""
        if not isinstance(node, MappingNode) or not node.items:
            self.add(node, where, "must be a mapping of names to values")
            return ()
        found: Mapping[str, str] = {
            i.key.text: self.text(i.value, f"{where}.{i.key.text}") for i in node.items
        }
        if len(found) != len(node.items):
            self.add(node, where, "has a label twice")
        return tuple(found.items())


def shown(text: str) -> str:
    """Formats a text from a file for a message: short, quoted, without control characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
