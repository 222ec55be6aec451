# SPDX-License-Identifier: Apache-2.0
"""The one function that turns observed text into text that is safe to show.

Task names, paths, arguments and container names are bytes chosen by the observed process. They stay
bytes inside the agent and become text here, on export. The result breaks no log line, no label and
no terminal. It is unambiguous: two different inputs below the limit give two different outputs.
"""

from __future__ import annotations

__all__ = ["DEFAULT_LIMIT", "arguments", "escape"]

DEFAULT_LIMIT = 1024
_ELLIPSIS = "…"


def escape(text: bytes | str, limit: int = DEFAULT_LIMIT) -> str:
    """Returns observed text as one printable line of at most `limit` characters.

    Printable means Python's `str.isprintable`: no control characters, no line or paragraph separators,
    no direction overrides, no surrogates. Everything else, and the backslash, is written as an escape;
    bytes that are not UTF-8 as `\\xNN`. Truncated text ends with an ellipsis.
    """
    # Truncating before decoding bounds the work: one character is at most four bytes.
    shown = text[: limit * 4 + 4] if isinstance(text, bytes) else text[: limit + 1]
    cut = len(shown) < len(text)
    decoded = shown.decode("utf-8", "surrogateescape") if isinstance(shown, bytes) else shown
    if not decoded.isprintable() or "\\" in decoded:
        decoded = "".join(map(_escape_character, decoded))
    if len(decoded) > limit or cut:
        return decoded[: max(limit - 1, 0)] + _ELLIPSIS
    return decoded


def arguments(text: bytes, limit: int = DEFAULT_LIMIT) -> list[str]:
    """Splits NUL-separated arguments and escapes each; together at most about `limit` characters."""
    words = []
    left = limit
    for word in text.split(b"\0"):
        if left <= 0:
            words.append(_ELLIPSIS)
            break
        words.append(escape(word, left))
        left -= len(words[-1]) + 1
    return words


_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def _escape_character(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, carried by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
