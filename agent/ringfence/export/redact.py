# SPDX-License-Identifier: Apache-2.0
"""Hides secrets in the agent's outputs: passwords, tokens and keys in arguments, environments and details.

Best effort: no table contains every secret. An argument is examined as the program receives it (the
value of `--password=` is hidden to its end). A command in one text (`sh -c`) is split first.
Everything else is searched as text. Applied once, to escaped text, before a record reaches any output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.export.redact_words import FORMS, HINT, PROGRAMS, Flags, is_header, is_secret
from ringfence.export.shell_words import commands

__all__ = ["HIDDEN", "Redactor"]

HIDDEN = "[redacted]"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
#: after a name: a quote (JSON), the separator, blanks
_SIGN = re.compile(r"""(\\*["'])?\s*(=>|:=|[=:])\s*""")
_QUOTE = re.compile(r"""\\*["']""")
#: a value in a text; `\\\\` is a literal backslash, `\\n` the end of a line
_IN_TEXT = re.compile(r"""(?:[^\s"'&;,)\\]|\\\\(?!["'])|\\x[0-9a-f]{2}|\\u[0-9a-f]{4})*""")
_IN_QUERY = re.compile(r"""[^\s"'&#]*""")
_BLANK = re.compile(r"\s|\\[nrt]")
_SURELY_A_FLAG = re.compile(r"--[a-z][a-z0-9-]*(?:=.*)?")
_COMMAND_FLAG = re.compile(r"-[a-z]*c")
_SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "su"))
_DEPTH = 3  # levels of nested commands


class Redactor:
    """Applies patterns to every text of a record, except the fields that identify it."""

    _LEFT = frozenset(
        (
            "time",
            "event",
            "kind",
            "id",
            "severity",
            "action",
            "outcome",
            "mechanism",
            "node",
            "rule",
            "reported",
        )
    )

    def __init__(self, patterns: Sequence[re.Pattern[str]] = (), *, defaults: bool = True) -> None:
        """`defaults` enables the built-in tables; `patterns` are searched in every text."""
        self._patterns, self._defaults = tuple(patterns), defaults
        self.redacted = 0  # records with a redacted text

    def record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the record without its secrets."""
        if not self._patterns and not self._defaults:
            return dict(record)
        clean = {key: value if key in self._LEFT else self._any(value) for key, value in record.items()}
        self.redacted += clean != record
        return clean

    def text(self, text: str) -> str:
        """Redacts one text of unknown form."""
        text = self._forms(text)
        return _named_values(text, to_end=False) if self._defaults else text

    def arguments(self, words: Sequence[str]) -> list[str]:
        """Redacts a command line."""
        if not self._defaults:
            return [self._forms(word) for word in words]
        return self._command(list(words), _DEPTH)

    def _forms(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(_hide, text)
        for pattern in FORMS if self._defaults and HINT.search(text) else ():
            text = pattern.sub(_hide, text)
        return text

    def _command(self, words: list[str], depth: int) -> list[str]:
        """Redacts the words of one program's command line."""
        clean: list[str] = []
        flags: Flags | None = None
        everything = False  # after a header's name in a word of its own
        for n, word in enumerate(words):
            hidden = HIDDEN if everything else _behind(words, n)
            if hidden is None and flags is not None and (not flags.only or flags.only in words[:n]):
                hidden = _by_flag(flags, words[n - 1], word)
            if hidden is None:
                hidden = self._script(word, depth) if _is_script(words, n) else self._word(word, depth)
            clean.append(hidden)
            everything = everything or (word.endswith(":") and is_header(word[:-1]))
            # also after sudo, env, docker exec ...: the last word that is a program's name
            flags = PROGRAMS.get(word.rpartition("/")[2], flags)
        return clean

    def _word(self, word: str, depth: int) -> str:
        """Redacts one argument, as a program receives it."""
        word, at = self._forms(word), 0
        # NAME=value, NAME: value, --set=NAME=value
        while (name := _NAME.match(word, at)) and (sign := _SIGN.match(word, name.end())) and not sign[1]:
            at = sign.end()
            if is_secret(name[0]) or is_header(name[0]):
                return word[:at] + HIDDEN if at < len(word) else word
        if not _BLANK.search(word):
            return _named_values(word, to_end=True)
        return self._script(word, depth)

    def _script(self, text: str, depth: int) -> str:
        """Redacts the words of a text that is or may be a command; the text between them stays."""
        text = self._forms(text)
        shown: list[str] = []
        at = 0
        for command in commands(text) if depth else ():
            clean = self._command([word.text for word in command], depth - 1)
            for word, new in zip(command, clean, strict=True):
                if new != word.text:
                    quote = text[word.begin] if text[word.begin] in "'\"" else ""
                    shown += [text[at : word.begin], quote, new, quote]
                    at = word.end
        return _named_values("".join(shown) + text[at:], to_end=False)

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
        if self._defaults and isinstance(value, str) and (is_secret(key) or is_header(key)):
            return HIDDEN
        return self._any(value)


def _is_script(words: Sequence[str], n: int) -> bool:
    """sh -c WORD."""
    if n < 2 or not _COMMAND_FLAG.fullmatch(words[n - 1]):
        return False
    return any(word.rpartition("/")[2] in _SHELLS for word in words[: n - 1])


def _behind(words: Sequence[str], n: int) -> str | None:
    """Redacts a word that is the value of a preceding flag, key or `set` name; None: it is no such value."""
    if not n:
        return None
    before, word = words[n - 1], words[n]
    name, key = before.removesuffix(":"), before.endswith(":")
    named = key or before.startswith("-") or (n > 1 and words[n - 2] == "set")
    if named and _NAME.fullmatch(name) and is_secret(name) and not _SURELY_A_FLAG.fullmatch(word):
        return HIDDEN
    return None


def _by_flag(flags: Flags, before: str, word: str) -> str | None:
    """Redacts a word by the program's own flags; None: no flag applies."""
    if before in flags.next:
        return HIDDEN
    if before in flags.pair:
        return _second_half(word)
    for flag in flags.glued:
        if word.startswith(flag) and len(word) > len(flag):
            return flag + HIDDEN
    for flag in flags.pair:
        rest = word[len(flag) :].removeprefix("=")
        if word.startswith(flag) and rest and (not flag.startswith("--") or word[len(flag)] == "="):
            return word[: len(word) - len(rest)] + _second_half(rest)
    return None


def _second_half(word: str) -> str:
    """USER:PASSWORD, USER%PASSWORD."""
    found = re.match(r"([^:%]*[:%])(.+)", word, re.DOTALL)
    return found[1] + HIDDEN if found else word


def _named_values(text: str, *, to_end: bool) -> str:
    """Hides the values of secret names in the text.

    `to_end`: the text is one argument, so the value extends to its end.
    """
    if "=" not in text and ":" not in text:
        return text
    shown: list[str] = []
    at = 0
    for name in _NAME.finditer(text):
        if name.start() < at or (sign := _SIGN.match(text, name.end())) is None:
            continue
        before = text[name.start() - 1 : name.start()]
        begin = end = sign.end()
        if is_header(name[0]):
            begin, end = _header(text, begin, before, sign)
        elif is_secret(name[0]) and not (sign[2] == ":" and before == "/"):  # /etc/passwd:/mnt is a mount
            begin, end = _value(text, begin, before, sign, to_end=to_end)
        if end > begin and not text.startswith(HIDDEN, begin):
            shown += [text[at:begin], HIDDEN]
            at = end
    return "".join(shown) + text[at:]


def _header(text: str, begin: int, before: str, sign: re.Match[str]) -> tuple[int, int]:
    """Returns the bounds of a header's value: up to the quote open before its name, else to the end."""
    if sign[1]:  # JSON
        return _value(text, begin, before, sign, to_end=False)
    end = text.find(before, begin) if before and before in "'\"" else -1
    return begin, end if end >= 0 else len(text)


def _value(text: str, begin: int, before: str, sign: re.Match[str], *, to_end: bool) -> tuple[int, int]:
    """Returns the bounds of a value."""
    quote = _QUOTE.match(text, begin)
    if quote and (sign[1] or not to_end):
        end = text.find(quote[0], quote.end())
        return quote.end(), end if end >= 0 else len(text)
    if before and before in "?&":
        pattern = _IN_QUERY
    elif to_end:
        return begin, len(text)
    else:
        pattern = _IN_TEXT
    found = pattern.match(text, begin)
    return begin, found.end() if found else begin


def _hide(match: re.Match[str]) -> str:
    """Returns the match with its groups hidden; a match without groups is hidden entirely."""
    if not match.re.groups:
        return HIDDEN
    text, shift = match[0], match.start()
    for group in range(match.re.groups, 0, -1):
        begin, end = match.span(group)
        if begin >= 0 and begin != end:
            text = text[: begin - shift] + HIDDEN + text[end - shift :]
    return text
