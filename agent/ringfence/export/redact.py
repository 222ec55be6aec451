# SPDX-License-Identifier: Apache-2.0
"""Hides secrets in what leaves the agent: passwords, tokens and keys in arguments, environments and details.

Patterns cannot know every secret: this is a net, not a wall. Applied to escaped text, once, before a record
goes anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["DEFAULTS", "HIDDEN", "Redactor"]

HIDDEN = "[redacted]"
_NAME = (
    r"(?:[a-z0-9_.-]{0,64}[_.-])?(?:pass(?:word|wd|phrase)?|pwd|secret(?:[_-]?(?:access)?[_-]?key)?|token|api[_-]?key|"
    r"access[_-]?key|private[_-]?key|client[_-]?secret|auth(?:orization)?[_-]?token|credentials?)"
)
#: each hides its groups, or all of it where it has none
DEFAULTS = tuple(
    re.compile(text, re.IGNORECASE)
    for text in (
        # NAME=value and NAME: value, in an environment, a query, a flag, JSON
        rf"""\b{_NAME}["']?\s*[=:]\s*["']?([^\s"'&;,\\]{{1,512}})""",
        # Authorization: Bearer x, and any word after Bearer or Basic that is long enough to be one
        r"\b(?:bearer|basic)\s+([a-z0-9._~+/=-]{8,2048})",
        # scheme://user:password@host
        r"://[^\s/:@]{0,64}:([^\s/@]{1,256})@",
        # keys of well-known forms
        r"\b((?:AKIA|ASIA)[0-9A-Z]{16})\b",
        r"\b(gh[pousr]_[0-9A-Za-z]{20,255}|github_pat_[0-9A-Za-z_]{20,255}|glpat-[0-9A-Za-z_-]{20,64})",
        r"\b(xox[abeoprs]-[0-9A-Za-z-]{10,255})",
        r"\b(eyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}(?:\.[0-9A-Za-z_-]*)?)",
        r"(-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*)",
    )
)
# A flag whose value is the next argument.
_FLAG = re.compile(rf"--?{_NAME}", re.IGNORECASE)
# What mysql and its family take without a blank.
_SHORT = re.compile(r"-p(?=.)")
_SHORT_PROGRAMS = re.compile(r"(?:^|/)(?:mysql|mysqldump|mysqladmin|mariadb|mariadb-dump|sshpass)$")
_HEADER_FLAGS = ("-u", "--user", "--proxy-user")
_HEADER_PROGRAMS = re.compile(r"(?:^|/)(?:curl|wget)$")


class Redactor:
    """Applies patterns to every text of a record; the fields that say whose it is are left alone."""

    _LEFT = frozenset(
        ("time", "event", "kind", "id", "severity", "action", "outcome", "mechanism", "node", "rule", "told")
    )

    def __init__(self, patterns: Sequence[re.Pattern[str]] = (), *, defaults: bool = True) -> None:
        self._patterns = (*patterns, *(DEFAULTS if defaults else ()))
        self._flags = defaults
        self.redacted = 0  # records in which something was hidden

    def record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record without its secrets."""
        if not self._patterns:
            return dict(record)
        clean = {key: value if key in self._LEFT else self._any(value) for key, value in record.items()}
        self.redacted += clean != record
        return clean

    def text(self, text: str) -> str:
        """One text."""
        for pattern in self._patterns:
            text = pattern.sub(_hide, text)
        return text

    def arguments(self, words: Sequence[str]) -> list[str]:
        """A command line: also values that stand behind their flag."""
        clean = [self.text(word) for word in words]
        if not self._flags or not words:
            return clean
        program = words[0]
        for n, word in enumerate(words[1:], 1):
            if _FLAG.fullmatch(words[n - 1]) and not word.startswith("-"):
                clean[n] = HIDDEN
            elif _SHORT_PROGRAMS.search(program) and _SHORT.match(word):
                clean[n] = "-p" + HIDDEN
            elif _HEADER_PROGRAMS.search(program) and words[n - 1] in _HEADER_FLAGS:
                user, colon, _ = word.partition(":")
                clean[n] = f"{user}:{HIDDEN}" if colon else word
        return clean

    def _any(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self._named(key, item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._any(item) for item in value]
        return value

    def _named(self, key: str, value: Any) -> Any:
        if key == "args" and isinstance(value, list):
            return self.arguments(value)
        if self._flags and isinstance(value, str) and _FLAG.fullmatch("--" + key):
            return HIDDEN
        return self._any(value)


def _hide(match: re.Match[str]) -> str:
    """The match with its groups hidden; a match without groups is hidden whole."""
    if not match.re.groups:
        return HIDDEN
    text, shift = match[0], match.start()
    for group in range(match.re.groups, 0, -1):
        begin, end = match.span(group)
        if begin >= 0 and begin != end:
            text = text[: begin - shift] + HIDDEN + text[end - shift :]
    return text
