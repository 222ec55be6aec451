# SPDX-License-Identifier: Apache-2.0
"""Makes docs/reference/coverage.svg from the results of tools.vm.coverage: a square a technique and kernel.

Pure: results in, text out. Colours differ in lightness, too, and each square has a letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from tests.escape.cases import TECHNIQUES
from tools.vm.suite import ROOT

__all__ = ["PICTURE", "STATES", "picture", "state"]

PICTURE = ROOT / "docs/reference/coverage.svg"
Result = Mapping[str, Any]
#: letter, colour of the square, colour of the letter, words; strongest first
STATES = {
    "denied": ("D", "#1a7f4b", "#ffffff", "denied before it took effect"),
    "killed": ("K", "#4f9fd8", "#10202c", "killed; one call may take effect"),
    "seen": ("s", "#f2c14e", "#3a2a00", "reported only; coverage.md has the reason for each"),
    "blind": ("!", "#c0392b", "#ffffff", "not seen on this kernel"),
    "none": ("", "#e6e8ea", "#60686f", "absent from this kernel, or run in virtual machines only"),
}
_STOPPED = ("killed", "denied")  # the weaker one first
_PARTLY = "with a yellow corner: some attacks of it are reported only"
_SIZE, _STEP, _LEFT, _TOP, _BASE = 16, 18, 480, 98, 12  # pixels; _BASE: of a line of text
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2328}"
    "g text{font-size:10px;text-anchor:middle;font-weight:600}"
    "@media(prefers-color-scheme:dark){.t{fill:#e6edf3}}"
)


def state(row: int, result: Result) -> tuple[str, bool]:
    """Returns the key of STATES for a technique on a kernel, and True if some of its attacks are only seen.

    Of several attacks that are stopped, the one that is stopped in the weaker way counts. Attacks that only
    an optional rule matches count where no other does.
    """
    cases = [case for case in result["cases"] if row in case["rows"]]
    found = {case["outcome"] for case in cases if not case["optional"]} or {case["outcome"] for case in cases}
    seen = bool(found & {"seen", "blind"})
    key = next((one for one in (*_STOPPED, "seen", "blind") if one in found), "none")
    return key, seen and key in _STOPPED


def picture(results: Sequence[Result]) -> str:
    """Returns the text of docs/reference/coverage.svg."""
    width, height = _LEFT + len(results) * _STEP + 10, _TOP + len(TECHNIQUES) * _STEP + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
        f"<title>The outcome of {len(TECHNIQUES)} techniques on {len(results)} kernels</title>",
        f"<style>{_STYLE}</style>",
        "<defs>",
        *(_symbol(key, partly=False) for key in STATES),
        *(_symbol(key, partly=True) for key in _STOPPED),
        "</defs>",
        *_legend(),
        *(_head(column, result["name"]) for column, result in enumerate(results)),
    ]
    for number, technique in enumerate(TECHNIQUES):
        y = _TOP + number * _STEP
        lines.append(_text(_LEFT - 8, y + _BASE, f"{technique.row} {technique.title}", 'text-anchor="end"'))
        lines += [
            _use(_LEFT + column * _STEP, y, *state(technique.row, result))
            for column, result in enumerate(results)
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _text(x: int, y: int, words: str, more: str = "") -> str:
    return f'<text class="t" x="{x}" y="{y}" {more}>{escape(words)}</text>'


def _symbol(key: str, *, partly: bool) -> str:
    letter, colour, ink, _ = STATES[key]
    corner = f'<path d="M{_SIZE} {_SIZE - 7}V{_SIZE}H{_SIZE - 7}z" fill="{STATES["seen"][1]}"/>' * partly
    return (
        f'<g id="{key}{"-partly" if partly else ""}">'
        f'<rect width="{_SIZE}" height="{_SIZE}" rx="3" fill="{colour}"/>'
        f'<text x="{_SIZE / 2:g}" y="{_BASE}" style="fill:{ink}">{letter}</text>{corner}</g>'
    )


def _use(x: int, y: int, key: str, partly: bool = False) -> str:
    return f'<use href="#{key}{"-partly" if partly else ""}" x="{x}" y="{y}"/>'


def _legend() -> Iterator[str]:
    rows = [(key, False, words) for key, (*_, words) in STATES.items()]
    rows.insert(2, ("denied", True, _PARTLY))
    for number, (key, partly, words) in enumerate(rows):
        y = 2 + number * (_SIZE - 1)
        yield f'<g transform="translate(4 {y}) scale(.8)">{_use(0, 0, key, partly)}</g>'
        yield _text(24, y + 11, words)


def _head(column: int, name: str) -> str:
    x, y = _LEFT + column * _STEP + _BASE, _TOP - 6
    return _text(x, y, name, f'transform="rotate(-90 {x} {y})"')
