# SPDX-License-Identifier: Apache-2.0
"""Rules while they are translated, and the remarks about what was not kept.

A condition that cannot be kept is left out, so the rule matches more than its source. Such a rule only
alerts. A rule is never written with less than its source had, except for parts that a remark names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringfence.errors import Problem
from ringfence.policy.operand import Operand
from ringfence.policy.reader import MappingNode, Node, Scalar, SequenceNode
from ringfence.policy.vocabulary import event_words

__all__ = ["Draft", "Keys", "Remarks", "items", "one_line", "slug", "text", "texts"]

#: operands that alone leave a rule on everything that a container does
_BROAD = frozenset(("access", "call", "family", "protocol", "type", "task"))
_MAX_NAME = 56  # of 63: a number may follow
_MAX_SHOWN = 80


class Remarks:
    """Collects what does not translate, with its place."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: dict[Problem, None] = {}

    @property
    def found(self) -> list[Problem]:
        """The remarks in the order of the file, each once."""
        return sorted(self._found, key=lambda one: (one.line, one.column))

    def dropped(self, node: Node, where: str, why: str) -> None:
        """Names a thing of the source that has no translation."""
        self._add(node, where, f"not translated: {why}")

    def wider(self, node: Node, where: str, why: str) -> None:
        """Names a condition that was left out of a rule, which therefore matches more."""
        self._add(node, where, f"matches more: {why}")

    def narrower(self, node: Node, where: str, why: str) -> None:
        """Names a part of what the source covers that the translated rule does not."""
        self._add(node, where, f"not covered: {why}")

    def _add(self, node: Node, where: str, message: str) -> None:
        self._found[Problem(self.file, node.line, node.column, where, message)] = None


@dataclass
class Draft:
    """One rule. `node` and `where` are its place in the source; `wider`: a condition was left out."""

    policy: str
    title: str
    severity: str
    event: str
    action: str
    node: Node
    where: str
    description: str = ""
    match: dict[str, Any] = field(default_factory=dict)
    exceptions: list[dict[str, Any]] = field(default_factory=list)
    selector: dict[str, Any] = field(default_factory=dict)
    attack: tuple[str, ...] = ()
    wider: bool = False
    lost: bool = False  # a condition that narrowed it was left out

    def operand(self, name: str) -> Operand | None:
        """Returns an operand of its event; None if the event has none of that name."""
        found = event_words(self.event)
        assert found is not None, self.event
        return found[1].operand(name)

    def require(self, values: Mapping[str, Any]) -> bool:
        """Adds conditions. Returns False, without a change, if one is impossible or has a value already."""
        if any(not self.operand(name) or name in self.match for name in values):
            return False
        self.match.update(values)
        return True

    def leave_out(
        self, remarks: Remarks, node: Node, where: str, why: str, *, narrowing: bool = True
    ) -> None:
        """Records a condition that is not kept. `narrowing`: False for one that is only an exception."""
        remarks.wider(node, where, why)
        self.wider, self.lost = True, self.lost or narrowing

    def finish(self, remarks: Remarks) -> bool:
        """Lowers the action of a wider rule. Returns False if nothing narrows the rule any more."""
        if self.lost and not (set(self.match) - _BROAD):
            remarks.dropped(self.node, self.where, "without what was left out it would match everything")
            return False
        if self.wider and self.action != "alert":
            remarks.dropped(
                self.node, self.where, f"the action: a rule that matches more must not {self.action}"
            )
            self.action = "alert"
        return True


class Keys:
    """The keys of a mapping. Those that nobody asks for are named by `rest`, so none is lost silently."""

    def __init__(self, remarks: Remarks, node: Node | None, where: str) -> None:
        self.remarks, self.where = remarks, where
        self._found: dict[str, Node] = {}
        if isinstance(node, MappingNode):
            for item in node.items:
                self._found[item.key.text] = item.value
        elif node is not None and not (isinstance(node, Scalar) and node.kind == "null"):
            remarks.dropped(node, where, "this must be a mapping")

    def take(self, key: str) -> Node | None:
        """Returns the value of a key, and counts it as read."""
        return self._found.pop(key, None)

    def text(self, key: str, default: str = "") -> str:
        """Returns the text of a key."""
        return text(self.take(key), default)

    def path(self, key: str) -> str:
        """Returns the place of a key: spec.process."""
        return f"{self.where}.{key}" if self.where else key

    def within(self, key: str) -> Keys:
        """Returns the keys of a mapping below this one."""
        return Keys(self.remarks, self.take(key), self.path(key))

    def each(self, key: str) -> Iterator[tuple[Node, str]]:
        """Yields the elements of a list, with their places."""
        for index, node in enumerate(items(self.take(key))):
            yield node, f"{self.path(key)}[{index}]"

    def ignore(self, *keys: str) -> None:
        """Counts keys as read that decide nothing: comments, and settings of the other tool."""
        for key in keys:
            self._found.pop(key, None)

    def rest(self) -> list[tuple[Node, str, str]]:
        """Returns what was not read: value, place and key."""
        return [(node, self.path(key), key) for key, node in self._found.items()]

    def name_rest(self) -> None:
        """Names everything that was not read."""
        for node, where, key in self.rest():
            self.remarks.dropped(node, where, f"Ringfence has nothing like {_shown(key)}")


def items(node: Node | None) -> Sequence[Node]:
    """Returns the elements of a list; a single value is a list of one."""
    if isinstance(node, SequenceNode):
        return node.items
    return () if node is None else (node,)


def text(node: Node | None, default: str = "") -> str:
    """Returns the text of a scalar, or `default` for anything else."""
    return node.text.strip() if isinstance(node, Scalar) and node.kind != "null" else default


def texts(node: Node | None) -> list[str]:
    """Returns the texts of a list."""
    return [text(one) for one in items(node) if text(one)]


def one_line(words: str, most: int) -> str:
    """Returns a text in one line, cut to `most` characters."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def slug(*words: str) -> str:
    """Returns a name for a policy."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")[:_MAX_NAME].strip("-")


def _shown(word: str) -> str:
    return repr(one_line(word, _MAX_SHOWN))
