# SPDX-License-Identifier: Apache-2.0
"""Output of the commands: colour (on a terminal only), tables, sizes, and the two lines of an error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO
from unicodedata import combining, east_asian_width

from ringfence.containers.naming import CUT
from ringfence.errors import Error
from ringfence.terminal import shows_colour

__all__ = [
    "SEVERITY_COLOURS",
    "age",
    "colour",
    "columns",
    "cut",
    "document",
    "number",
    "print_document",
    "print_error",
    "print_json",
    "room",
    "size",
    "table",
    "visible",
    "width",
]

_CODES = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "dim": "2",
    "bold": "1",
}
_LEAST = 8  # columns to which a text of a table is cut
SEVERITY_COLOURS = {"critical": "red", "high": "red", "medium": "yellow", "low": "cyan", "info": "dim"}


def colour(text: str, name: str, stream: TextIO | None = None) -> str:
    """Returns the text in a colour if the stream (default: standard output) is a colour terminal."""
    return f"\x1b[{_CODES[name]}m{text}\x1b[0m" if name and shows_colour(stream or sys.stdout) else text


def width(default: int = 100) -> int:
    """Returns the number of columns of the terminal."""
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (OSError, ValueError):
        return default


def print_error(error: Error) -> None:
    """Writes the error's message and hint to standard error."""
    first, *more = map(visible, error.message.splitlines() or [""])
    lines = [colour("ringfence: error: ", "red", sys.stderr) + first, *more]
    if error.hint:
        lines.append(colour("hint: ", "yellow", sys.stderr) + "\n".join(map(visible, error.hint.split("\n"))))
    sys.stderr.write("\n".join(lines) + "\n")


def visible(text: str) -> str:
    """Escapes control characters in a line for the terminal: file names and their texts are untrusted."""
    if text.isprintable():
        return text
    from ringfence.export.escape import escape

    return "".join(letter if letter.isprintable() else escape(letter) for letter in text)


def print_json(value: Any) -> None:
    """Prints a JSON document, indented on a terminal."""
    text = json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False, default=str)
    # Only strings can contain unprintable characters; U+009B would start a terminal control sequence.
    print("\n".join(line if line.isprintable() else _ascii(line) for line in text.split("\n")))


def _ascii(line: str) -> str:
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in line)


def print_document(value: Any, form: str) -> None:
    """Prints a document as `json` or `yaml`."""
    if form == "json":
        print_json(value)
        return
    sys.stdout.write(document(value))


def document(value: Any) -> str:
    """Returns a YAML document, with its first line."""
    import yaml

    plain = json.loads(json.dumps(value, default=str))
    return str(yaml.safe_dump(plain, sort_keys=False, explicit_start=True, width=1 << 20))


def columns(text: str) -> int:
    """Returns the number of a terminal's columns that a text takes: wide letters take two."""
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(letter) in "WF" else int(not combining(letter)) for letter in text)


def cut(text: str, most: int) -> str:
    """Returns the text, cut to so many columns with an ellipsis at its end."""
    if columns(text) <= most:
        return text
    while text and columns(text) > most - 1:
        text = text[:-1]
    return text + CUT


def room(options: Any) -> int:
    """Returns the columns that a line may have: those of the terminal; 0, without a limit, elsewhere."""
    return width() if sys.stdout.isatty() and options.output == "table" else 0


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    colours: Mapping[tuple[int, int], str] | None = None,
    limit: int = 0,
) -> list[str]:
    """Returns the lines of a table; numbers are right-aligned. `colours` maps (row, column) to a colour.

    If a line would be longer than `limit`, the widest columns are cut; the last ones are left out if even
    that is not enough. Cells are texts, never markup; they may hold no control characters (see `visible`).
    """
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    body = [list(map(str, row)) for row in rows]
    widths = [max(columns(row[i]) for row in [list(heads), *body]) for i in range(len(heads))]
    right = [bool(body) and all(_numeric(row[i]) for row in body) for i in range(len(heads))]
    least = [most if number else min(most, _LEAST) for most, number in zip(widths, right, strict=True)]
    count = len(heads)
    while limit and count > 1 and sum(least[:count]) + 2 * (count - 1) > limit:
        count -= 1
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for i in range(count):
        drawn.add_column(heads[i], justify="right" if right[i] else "left", no_wrap=right[i])
    for n, row in enumerate(body):
        styles = ((colours or {}).get((n, i), "") for i in range(count))
        cells = zip(row[:count], styles, strict=True)
        drawn.add_row(*(Text(cell, style, no_wrap=True, overflow="ellipsis") for cell, style in cells))
    colourful = shows_colour(sys.stdout)
    console = Console(
        file=StringIO(), width=limit or sum(widths) + 2 * len(heads), legacy_windows=False, markup=False,
        emoji=False, highlight=False, force_terminal=colourful,
        color_system="standard" if colourful else None,
    )  # fmt: skip
    with console.capture() as captured:
        console.print(drawn, crop=False)
    return [line.rstrip() for line in captured.get().splitlines()]


def _numeric(cell: str) -> bool:
    return cell[:1].isdigit() or cell in ("-", "")


def number(value: float) -> str:
    """Formats a count or rate in at most five characters: 950, 12.3k, 123k, 4.5M."""
    for unit in ("", "k", "M", "G"):
        if abs(value) < 999.5 or unit == "G":
            whole = (value == int(value) and not unit) or abs(value) >= 99.95
            return f"{value:.0f}{unit}" if whole else f"{value:.1f}{unit}"
        value /= 1000
    return str(value)


def size(value: float) -> str:
    """Formats a number of bytes: 45.2 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return str(value)


def age(seconds: float) -> str:
    """Formats a duration in its two largest units: 3 h 12 min."""
    seconds = max(0, int(seconds))
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    parts: list[str] = []
    for length, name in units:
        if seconds >= length or (parts and len(parts) < 2) or length == 1:
            parts.append(f"{seconds // length} {name}")
            seconds %= length
        if len(parts) == 2:
            break
    return " ".join(parts)
