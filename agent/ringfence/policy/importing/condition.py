# SPDX-License-Identifier: Apache-2.0
"""Parses the conditions of Falco rules, and brings them to alternatives of checks that must all hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

__all__ = ["Check", "Except", "Expression", "Unreadable", "alternatives", "parse"]

MAX_DEPTH = 64
MAX_CHECKS = 4096
MAX_ALTERNATIVES = 64
_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[(),]|==|!=|<=|>=|=|<|>)"""
    r"""|(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>[^\s(),=!<>"']+))""",
    re.DOTALL,
)
_MARKS = ("==", "!=", "<=", ">=", "=", "<", ">")
_WORDS = frozenset(
    ("in", "pmatch", "intersects", "contains", "icontains", "bcontains", "startswith", "bstartswith",
     "endswith", "glob", "iglob", "regex", "exists")
)  # fmt: skip


class Unreadable(Exception):
    """The condition cannot be parsed, or is too large. The message says what is wrong."""


class Check(NamedTuple):
    """A comparison of a field, or the name of a macro (`field` alone)."""

    field: str
    operator: str = ""
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        some = ", ".join(self.values[:4]) + (", ..." if len(self.values) > 4 else "")
        return " ".join(part for part in (self.field, self.operator, some) if part)


@dataclass(frozen=True, slots=True)
class Both:
    """`and` (all is True) or `or` of several expressions."""

    all: bool
    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Except:
    """An expression that must not hold."""

    part: Expression


Expression: TypeAlias = Check | Both | Except
#: returns the expression of a macro; None if there is none of that name
Macros = Callable[[str], "Expression | None"]


class _Token(NamedTuple):
    text: str
    quoted: bool


class _Parser:
    """A recursive descent over the tokens of one condition."""

    def __init__(self, condition: str) -> None:
        self.tokens = list(_tokens(condition))
        self.at = self.depth = 0

    def peek(self) -> str:
        """Returns the next token in lower case; "" at the end and for a quoted text."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else _Token("", quoted=False)
        return "" if token.quoted else token.text.lower()

    def next(self) -> str:
        if self.at == len(self.tokens):
            raise Unreadable("the condition ends too early")
        self.at += 1
        return self.tokens[self.at - 1].text

    def any_of(self) -> Expression:
        parts = [self.all_of()]
        while self.peek() == "or":
            self.next()
            parts.append(self.all_of())
        return parts[0] if len(parts) == 1 else Both(False, tuple(parts))

    def all_of(self) -> Expression:
        parts = [self.one()]
        while self.peek() == "and":
            self.next()
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else Both(True, tuple(parts))

    def one(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"the condition has more than {MAX_DEPTH} levels")
        if self.peek() == "not":
            self.next()
            found: Expression = Except(self.one())
        elif self.peek() == "(":
            self.next()
            found = self.any_of()
            if self.next() != ")":
                raise Unreadable("a closing parenthesis is missing")
        else:
            found = self.check()
        self.depth -= 1
        return found

    def check(self) -> Check:
        name = self.next()
        if name in ("(", ")", ",", *_MARKS):
            raise Unreadable(f"a field or a macro must be where {name!r} is")
        if self.peek() == "(":  # a transformer: tolower(proc.name)
            name = f"{name}({', '.join(self.values())})"
        word = self.peek()
        if word not in _MARKS and word not in _WORDS:
            return Check(name)
        operator = self.next().lower()
        return Check(name, operator, () if operator == "exists" else self.values())

    def values(self) -> tuple[str, ...]:
        if self.peek() != "(":
            return (self.next(),)
        self.next()
        found = []
        while self.peek() != ")":
            found.append(self.next())
            if self.peek() == ",":
                self.next()
        self.next()
        return tuple(found)


def _tokens(condition: str) -> Iterator[_Token]:
    at = 0
    end = len(condition.rstrip())
    while at < end:
        found = _TOKEN.match(condition, at)
        if found is None:
            raise Unreadable(f"the condition cannot be read at {condition[at : at + 20].strip()!r}")
        at = found.end()
        if quoted := found["quoted"]:
            yield _Token(re.sub(r"\\(.)", r"\1", quoted[1:-1], flags=re.DOTALL), quoted=True)
        else:
            yield _Token(found["mark"] or found["word"], quoted=False)


def parse(condition: str) -> Expression:
    """Returns the expression of a condition. Raises Unreadable."""
    parser = _Parser(condition)
    found = parser.any_of()
    if parser.at < len(parser.tokens):
        raise Unreadable(f"`and` or `or` is missing before {parser.next()!r}")
    return found


class _Alternatives:
    """Expands macros and multiplies out, within a budget of checks."""

    def __init__(self, macros: Macros) -> None:
        self.macros, self.left = macros, MAX_CHECKS
        self.open: list[str] = []
        self.depth = 0

    def of(self, one: Expression) -> list[list[Check | Except]]:
        self.depth += 1
        if self.depth > 2 * MAX_DEPTH:
            raise Unreadable(f"the condition has more than {2 * MAX_DEPTH} levels with its macros")
        found = self._of(one)
        self.depth -= 1
        return found

    def _of(self, one: Expression) -> list[list[Check | Except]]:
        self.left -= 1
        if self.left < 0:
            raise Unreadable(f"the condition has more than {MAX_CHECKS} checks with its macros")
        if isinstance(one, Both):
            return (
                self._all(one.parts) if one.all else self._bounded([x for p in one.parts for x in self.of(p)])
            )
        if isinstance(one, Except):
            return self.of(one.part.part) if isinstance(one.part, Except) else [[one]]
        if one.operator == "!=":
            return [[Except(Check(one.field, "=", one.values))]]
        if one.operator:
            return [[one]]
        return self._macro(one)

    def _macro(self, one: Check) -> list[list[Check | Except]]:
        found = self.macros(one.field)
        if found is None:
            return [[one]]
        if one.field in self.open:
            raise Unreadable(f"the macro {one.field!r} uses itself")
        self.open.append(one.field)
        expanded = self.of(found)
        self.open.pop()
        return expanded

    def _all(self, parts: Sequence[Expression]) -> list[list[Check | Except]]:
        found: list[list[Check | Except]] = [[]]
        for part in parts:
            some = self.of(part)
            found = self._bounded([[*left, *right] for left in found for right in some])
        return found

    def _bounded(self, found: list[list[Check | Except]]) -> list[list[Check | Except]]:
        if len(found) > MAX_ALTERNATIVES:
            raise Unreadable(f"the condition has more than {MAX_ALTERNATIVES} alternatives: split the rule")
        return found


def alternatives(expression: Expression, macros: Macros) -> list[list[Check | Except]]:
    """Returns the alternatives of an expression: of one of them, all parts must hold. Raises Unreadable.

    Names of macros that are not known stay as they are. What is negated stays whole.
    """
    return _Alternatives(macros).of(expression)
