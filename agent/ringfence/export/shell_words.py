# SPDX-License-Identifier: Apache-2.0
"""Splits a command line in one text like a shell, with the position of each word.

Sufficient to find the word after a flag: quotes, backslashes, command separators. No expansion, no
here-documents. The text is already escaped: a line's end is `\\n`, a backslash is doubled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Word", "commands"]

_BLANK, _BREAK = " \t", ";&|()<>`{}"
_ESCAPED_BLANK = {"t": " ", "n": "\n", "r": "\n"}


class Word(NamedTuple):
    """`text` is without quotes; `begin` and `end` are its position in the whole."""

    text: str
    begin: int
    end: int


def commands(text: str) -> Iterator[list[Word]]:
    """Yields the simple commands of a text. An unclosed quote extends to the end."""
    found: list[Word] = []
    at = 0
    while at < len(text):
        step = _gap(text, at)
        if step:
            if text[at : at + step].strip(_BLANK) not in ("", "\\t") and found:
                yield found
                found = []
            at += step
            continue
        word, at = _word(text, at)
        found.append(word)
    if found:
        yield found


def _gap(text: str, at: int) -> int:
    """Returns the number of separator characters at this position; 0: a word."""
    if text[at] in _BLANK or text[at] in _BREAK:
        return 1
    return 2 if text[at] == "\\" and text[at + 1 : at + 2] in _ESCAPED_BLANK else 0


def _word(text: str, begin: int) -> tuple[Word, int]:
    parts: list[str] = []
    at, quote = begin, ""
    while at < len(text):
        character = text[at]
        if not quote and _gap(text, at):
            break
        if character == "\\":
            part, at = _escaped(text, at, quote)
            parts.append(part)
            continue
        at += 1
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        else:
            parts.append(character)
    return Word("".join(parts), begin, at), at


def _escaped(text: str, at: int, quote: str) -> tuple[str, int]:
    """Returns what a backslash of the escaped text means, and the position after it."""
    following = text[at + 1 : at + 2]
    if following in _ESCAPED_BLANK:
        return _ESCAPED_BLANK[following], at + 2
    if following != "\\":
        return text[at : at + 2], at + 2
    # the command's own backslash: literal in single quotes, else it quotes the next character
    if quote == "'":
        return "\\", at + 2
    if text[at + 2 : at + 3] == "\\" and at + 3 < len(text):
        return _ESCAPED_BLANK.get(text[at + 3], text[at + 3]), at + 4
    return text[at + 2 : at + 3], min(at + 3, len(text))
