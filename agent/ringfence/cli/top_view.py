# SPDX-License-Identifier: Apache-2.0
"""What `ringfence top` shows on a screen, and what its keys do. Nothing here reads or writes a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ringfence.cli.output import colour, columns, cut, number

__all__ = ["COLUMNS", "SORTS", "View", "listing", "name_of", "ordered", "pressed", "screen"]

# column -> the counters that are added up in it (see docs/reference/metrics.md)
COLUMNS: Mapping[str, Sequence[str]] = {
    "EXEC": ("exec",),
    "FORK": ("fork",),
    "OPEN": ("open",),
    "CONN": ("connect",),
    "MOUNT": ("mount", "namespace"),
    "KERNEL": ("kernel", "trace"),
    "OTHER": ("credential", "file", "memory", "socket", "keyring", "process", "device", "sysctl", "bind",
              "sendmsg"),
    "ALERT": ("alert",),
    "STOPPED": ("deny", "kill"),
}  # fmt: skip
SORTS = ("activity", "alerts", "tasks", "name")
_HEADS = {"KERNEL": "KERN", "STOPPED": "STOP"}
_COLOURS = {"ALERT": "red", "STOPPED": "green"}
# The first ones stay on a narrow screen.
_BY_VALUE = ("ALERT", "STOPPED", "TASKS", "EXEC", "OPEN", "CONN", "OTHER", "FORK", "MOUNT", "KERNEL")
_NUMBER = 6  # columns of a number, with a space before it
_NAME, _IMAGE = 16, 12  # least columns of a name, and of an image
_HELP = (
    "ringfence top: events per second of each container",
    "",
    "  q          quit",
    "  h, ?       this help",
    "  p, space   pause; again: go on",
    "  s          next sort order: activity, alerts, tasks, name",
    "  r          reverse the order",
    "  /          filter by name, image or id; Enter applies, Esc clears",
    "  up, down   scroll; also j, k, page up, page down",
    "",
    "  STOP: calls denied and processes killed. KERN: bpf, perf, modules, ptrace.",
    "  The filters of `events` and `tree` take the names shown here, also cut ones.",
)


@dataclass(frozen=True)
class View:
    """The state of the screen."""

    sort: str = "activity"
    reverse: bool = False
    words: str = ""  # the filter
    typing: bool = False  # the filter is being typed
    paused: bool = False
    help: bool = False
    first: int = 0  # the first row that is shown
    ended: bool = False


def pressed(view: View, key: str) -> View:
    """Returns the view after a key."""
    if view.typing:
        return _typed(view, key)
    if view.help and key not in "qh?":
        return replace(view, help=False)
    call = _KEYS.get(key)
    return call(view) if call else view


def _typed(view: View, key: str) -> View:
    if key in ("\r", "\n"):
        return replace(view, typing=False)
    if key == "\x1b":
        return replace(view, typing=False, words="", first=0)
    if key in ("\x7f", "\b"):
        return replace(view, words=view.words[:-1], first=0)
    return replace(view, words=(view.words + key)[:60], first=0) if key.isprintable() else view


def _moved(rows: int) -> Callable[[View], View]:
    return lambda view: replace(view, first=max(0, view.first + rows))


_KEYS: Mapping[str, Callable[[View], View]] = {
    "q": lambda view: replace(view, ended=True),
    "h": lambda view: replace(view, help=not view.help),
    "?": lambda view: replace(view, help=not view.help),
    "p": lambda view: replace(view, paused=not view.paused),
    " ": lambda view: replace(view, paused=not view.paused),
    "s": lambda view: replace(view, sort=SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)], first=0),
    "r": lambda view: replace(view, reverse=not view.reverse, first=0),
    "/": lambda view: replace(view, typing=True),
    "\x1b": lambda view: replace(view, words="", first=0),
    "j": _moved(1), "\x1b[B": _moved(1), "\x1bOB": _moved(1), "\x1b[6~": _moved(10),
    "k": _moved(-1), "\x1b[A": _moved(-1), "\x1bOA": _moved(-1), "\x1b[5~": _moved(-10),
}  # fmt: skip


def name_of(row: Mapping[str, Any]) -> str:
    """Returns the name of a row's container, as all commands print it."""
    from ringfence.containers.naming import full_name

    return full_name(*(str(row.get(part) or "") for part in ("id", "name", "namespace", "pod")))


def ordered(rows: Sequence[dict[str, Any]], view: View) -> list[dict[str, Any]]:
    """Returns the rows that pass the filter, in the order of the view."""
    word = view.words.lower()
    found = [row for row in rows if word in f"{name_of(row)} {row.get('image') or ''} {row['id']}".lower()]
    return sorted(found, key=lambda row: _order(row, view.sort), reverse=view.reverse)


def _order(row: Mapping[str, Any], by: str) -> tuple[float | str, ...]:
    activity = -sum(row["rates"].values())
    if by == "alerts":
        return (-row["rates"]["ALERT"] - row["rates"]["STOPPED"], activity, row["id"])
    if by == "tasks":
        return (-row["tasks"], activity, row["id"])
    return (name_of(row), row["id"]) if by == "name" else (activity, row["id"])


def screen(rows: Sequence[dict[str, Any]], view: View, size: tuple[int, int]) -> list[str]:
    """Returns the lines of the screen: no more than it has, and none wider than it is."""
    wide, high = size
    if view.help:
        return [cut(line, wide) for line in _HELP][:high]
    shown = ordered(rows, view)
    space = max(1, high - 4)  # beside state, head, total, keys
    first = min(view.first, max(0, len(shown) - space))
    head, *body = listing(shown, wide)
    lines = [colour(cut(_state(shown, rows, view), wide), "bold"), head, *body[first : first + space]]
    if shown:
        lines.append(colour(_total(shown, len(shown) - first - space, wide), "bold"))
    else:
        lines.append(cut("no container passes the filter" if rows else "no containers", wide))
    lines += [""] * (high - 1 - len(lines))
    lines.append(colour(cut(_keys(view), wide), "dim"))
    return lines[:high]


def listing(rows: Sequence[Mapping[str, Any]], wide: int) -> list[str]:
    """Returns a head and a line for each row, with the columns that fit."""
    numbers, name, image = _layout(rows, wide)
    head = colour(_line("CONTAINER", "IMAGE", _heads(numbers), name, image), "bold")
    return [
        head,
        *(
            _line(name_of(row), str(row.get("image") or "-"), _cells(row, numbers), name, image)
            for row in rows
        ),
    ]


def _total(rows: Sequence[Mapping[str, Any]], below: int, wide: int) -> str:
    """Returns the line with the sums of all rows, of which so many are below the screen."""
    numbers, name, image = _layout(rows, wide)
    rates = {column: sum(row["rates"][column] for row in rows) for column in COLUMNS}
    sums = {"tasks": sum(row["tasks"] for row in rows), "rates": rates}
    title = f"TOTAL, {below} more below" if below > 0 else "TOTAL"
    return _line(title, "", _cells(sums, numbers), name, image).rstrip()


def _state(shown: Sequence[Any], rows: Sequence[Any], view: View) -> str:
    of = f" of {len(rows)}" if len(shown) < len(rows) else ""
    order = f"by {view.sort}{', reversed' if view.reverse else ''}"
    words = ["PAUSED"] * view.paused + [f"filter: {view.words}"] * bool(view.words and not view.typing)
    return ", ".join([*words, f"{len(shown)}{of} containers", order])


def _keys(view: View) -> str:
    if view.typing:
        return f"filter: {view.words}_   (Enter applies, Esc clears)"
    return "q quit  h help  p pause  s sort  r reverse  / filter"


def _layout(rows: Sequence[Mapping[str, Any]], wide: int) -> tuple[list[str], int, int]:
    """Returns the columns of numbers that fit, and the widths of name and image (0: no image)."""
    fitting = _BY_VALUE[: max(0, (wide - _NAME) // _NUMBER)]
    numbers = [column for column in ("TASKS", *COLUMNS) if column in fitting]
    left = wide - _NUMBER * len(numbers)
    name = max([_NAME, *(columns(name_of(row)) for row in rows)])
    if left - name - 2 >= _IMAGE:
        return numbers, name, left - name - 2
    return numbers, left, 0


def _line(name: str, image: str, numbers: Sequence[str], name_width: int, image_width: int) -> str:
    shown = cut(name, name_width)
    line = shown + " " * (name_width - columns(shown)) + "".join(numbers)
    return f"{line}  {cut(image, image_width)}" if image_width else line


def _heads(numbers: Sequence[str]) -> list[str]:
    return [f"{_HEADS.get(column, column):>{_NUMBER}}" for column in numbers]


def _cells(row: Mapping[str, Any], numbers: Sequence[str]) -> list[str]:
    values = {"TASKS": row["tasks"], **row["rates"]}
    texts = {column: number(values[column]) if values[column] else "-" for column in numbers}
    return [
        colour(f"{text:>{_NUMBER}}", _COLOURS.get(column, "") if text != "-" else "")
        for column, text in texts.items()
    ]
