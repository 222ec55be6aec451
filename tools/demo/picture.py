# SPDX-License-Identifier: Apache-2.0
"""`python -m tools.demo.picture`: runs the demonstration, and draws its output as docs/demo.svg.

The output is kept in tools/demo/recording.txt; `--render` draws that again. Lines appear one after another.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
RECORDING = Path(__file__).parent / "recording.txt"
PICTURE = ROOT / "docs/demo.svg"
#: headings of the parts that are too long for a picture
LEFT_OUT = ("one complete alert", "metrics that changed")

_SGR = re.compile(r"\033\[(\d*)m")
_CLASSES = {"1": "b", "31": "r", "32": "g"}
_LINE, _TOP, _LEFT, _LETTER = 18, 44, 16, 7.9  # pixels
_FIRST, _STEP = 0.4, 0.12  # seconds until the first line, and between two
_STYLE = (
    "text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#d7dde4;white-space:pre}"
    ".b{font-weight:700;fill:#fff}.g{fill:#56d364}.r{fill:#ff7b72}.d{fill:#8b949e}"
    ".l{opacity:0;animation:a .1s forwards}@keyframes a{to{opacity:1}}"
    "@media(prefers-reduced-motion:reduce){.l{opacity:1;animation:none}}"
)


def record() -> str:
    """Runs the demonstration at a terminal, and returns what it printed; RuntimeError if it failed."""
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "tools.demo"]
    coloured = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    child = subprocess.Popen(
        argv, cwd=ROOT, env=coloured, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave
    )
    os.close(slave)
    said = bytearray()
    try:
        while part := os.read(master, 65536):
            said += part
    except OSError:  # EIO: the other end is closed
        pass
    os.close(master)
    text = said.decode().replace("\r\n", "\n").replace(f"{ROOT}/", "").strip("\n") + "\n"
    if child.wait():
        raise RuntimeError(text)
    return text


def shown(recording: str) -> list[str]:
    """Returns the lines of the picture: the recording without the parts of LEFT_OUT."""
    parts = re.split(r"\n(?=\n\033\[1m)", f"\n{recording.rstrip()}")
    kept = [part for part in parts if not _SGR.sub("", part).lstrip().startswith(LEFT_OUT)]
    return "\n".join(kept).lstrip("\n").split("\n")


def picture(recording: str) -> str:
    """Returns the text of docs/demo.svg."""
    lines = ["# make demo", *shown(recording)]
    width = int(max(len(_SGR.sub("", line)) for line in lines) * _LETTER) + 2 * _LEFT
    height = _TOP + len(lines) * _LINE + 8
    rows = [
        f'<text class="l" style="animation-delay:{_FIRST + at * _STEP:.2f}s" x="{_LEFT}" '
        f'y="{_TOP + at * _LINE}">{"".join(_spans(line))}</text>'
        for at, line in enumerate(lines)
        if line
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
            "<title>make demo: escapes from a privileged container, and the outcome of each</title>",
            f"<style>{_STYLE}</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
            *(f'<circle cx="{18 + 18 * n}" cy="16" r="5" fill="#30363d"/>' for n in range(3)),
            *rows,
            "</svg>\n",
        ]
    )


def _spans(line: str) -> Iterator[str]:
    """Yields the parts of a line, each in its colour."""
    colour = "d" if line.startswith("# ") else ""
    for at, part in enumerate(_SGR.split(line)):
        if at % 2:
            colour = _CLASSES.get(part, "")
        elif part:
            yield f'<tspan class="{colour}">{escape(part)}</tspan>' if colour else escape(part)


def main() -> None:
    """Draws a new recording, or the one that is there."""
    if "--render" not in sys.argv[1:]:
        RECORDING.write_text(record())
    PICTURE.write_text(picture(RECORDING.read_text()))


if __name__ == "__main__":
    main()
