# SPDX-License-Identifier: Apache-2.0
"""docs/demo.svg is drawn from a recording of the demonstration that has every attempt."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tools.demo.attempts import ATTEMPTS
from tools.demo.picture import LEFT_OUT, PICTURE, RECORDING, picture, shown

RECORDED = RECORDING.read_text()
_SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_is_what_was_recorded() -> None:
    """Draw it again: `python -m tools.demo.picture --render`."""
    assert PICTURE.read_text() == picture(RECORDED)


def test_every_attempt_was_recorded() -> None:
    """Record it again: `python -m tools.demo.picture` (root)."""
    lines = [line for line in shown(RECORDED) if re.search(r"  (?:yes|NO|this kernel has no)\b", line)]
    assert [re.split(r"  +", line)[0] for line in lines] == [one.technique for one in ATTEMPTS]


def test_the_picture_has_each_line_and_leaves_out_the_long_parts() -> None:
    """As text, below the command that printed it."""
    root = ElementTree.fromstring(PICTURE.read_text())
    texts = ["".join(text.itertext()) for text in root.iter(f"{_SVG}text")]
    assert texts[0] == "# make demo"
    assert texts[1:] == [re.sub(r"\033\[\d*m", "", line) for line in shown(RECORDED) if line]
    assert all(part in RECORDED for part in LEFT_OUT)
    assert not [text for text in texts if text.startswith(LEFT_OUT)]


@pytest.mark.parametrize("line", ["\033[31ma <b> & c\033[0m", "\033[32mok\033[0m: 1 of 1"])
def test_colours_and_special_letters_survive(line: str) -> None:
    """A red line, a green word; the result is well-formed."""
    root = ElementTree.fromstring(picture(f"{line}\n"))
    (span,) = [one for one in root.iter(f"{_SVG}tspan") if one.get("class") in ("r", "g")]
    assert span.text == re.sub(r".*?\033\[\d+m(.*)\033\[0m.*", r"\1", line)
