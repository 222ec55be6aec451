# SPDX-License-Identifier: Apache-2.0
"""The agent's own log."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence import log


def test_the_log_neither_loads_rich_nor_hides_it(tmp_path: Path) -> None:
    """structlog would load it for tracebacks; other modules of the process may use it."""
    (tmp_path / "rich").mkdir()
    for name in ("__init__", "console", "traceback"):
        (tmp_path / "rich" / f"{name}.py").touch()
    script = (
        "import sys, ringfence.log, structlog.dev\n"
        "print([name for name in sys.modules if name.startswith('rich')], structlog.dev.rich)\n"
        "import rich.console; print(rich.console.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == f"[] None\n{tmp_path}/rich/console.py\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The lines of a log whose standard error is a terminal."""
    lines: list[bytes] = []
    monkeypatch.setattr(sys, "stderr", _Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    log.configure("info", lines.append)
    yield lines
    monkeypatch.undo()
    log.configure()


def test_a_line_on_a_terminal_is_text(written: list[bytes]) -> None:
    """Time, level, part, message, values."""
    log.get_logger("policies").warning("the policy is refused", file="/etc/a.yaml", line=3, why="no rules")
    [line] = written
    words = (
        rb"\d\d:\d\d:\d\d warning policies: the policy is refused file=/etc/a.yaml line=3 why=\"no rules\"\n"
    )
    assert re.fullmatch(words, line)


def test_the_level_has_a_colour(written: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless NO_COLOR is set, or the terminal is dumb."""
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    log.get_logger("x").error("bad")
    monkeypatch.setenv("TERM", "dumb")
    log.get_logger("x").error("bad")
    assert [b"\x1b[31merror" in line for line in written] == [True, False]


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\u202e", "\udcff", "\u009b1m"])
def test_observed_text_controls_no_terminal(written: list[bytes], text: str) -> None:
    """As the message, a value, bytes, or in an exception."""
    logger = log.get_logger("x")
    logger.info(text, name=text, raw=text.encode("utf-8", "surrogateescape"))
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("failed")
    for line in b"".join(written).decode("ascii").splitlines():
        assert line.isprintable()


def test_a_line_elsewhere_is_json() -> None:
    """With the same values."""
    lines: list[bytes] = []
    log.configure("info", lines.append)
    try:
        log.get_logger("x").info("done", count=3)
    finally:
        log.configure()
    found = json.loads(lines[0])
    assert (found["part"], found["level"], found["message"], found["count"]) == ("x", "info", "done", 3)
