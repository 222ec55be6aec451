# SPDX-License-Identifier: Apache-2.0
"""The alternate screen of a terminal: it leaves no trace in the scrollback, and gives keys one at a time."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from types import FrameType
from typing import Any

__all__ = ["Screen"]

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|.", re.DOTALL)


class Screen:
    """Use it in a `with` block: whatever ends the block, the terminal is as it was before."""

    def __init__(self) -> None:
        self._keyboard = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
        self._before: list[Any] = termios.tcgetattr(self._keyboard)
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Screen:
        handlers = {
            signal.SIGWINCH: self._resized, signal.SIGTSTP: self._stopped,
            signal.SIGTERM: self._ended, signal.SIGHUP: self._ended,
        }  # fmt: skip
        self._handlers = {number: signal.signal(number, call) for number, call in handlers.items()}
        self._show()
        return self

    def __exit__(self, *_: object) -> None:
        self._hide()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for fd in (self._keyboard, self._wake, self._woken):
            os.close(fd)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, at this moment."""
        return os.get_terminal_size(1) if os.isatty(1) else shutil.get_terminal_size()

    def draw(self, lines: Sequence[str]) -> None:
        """Shows the lines from the top. A line that is longer than the screen is not cut here."""
        # Each line is cleared to its end, then the rest of the screen: clearing it first would flicker.
        sys.stdout.write("\x1b[H" + "\x1b[K\n".join(lines) + "\x1b[K\x1b[J")
        sys.stdout.flush()

    def keys(self, until: float) -> list[str]:
        """Returns the keys pressed up to a time (monotonic), at the first ones; an empty list: none, or the
        size has changed. An arrow is its escape sequence.
        """
        left = max(0.0, until - time.monotonic())
        ready, _, _ = select.select([self._keyboard, self._wake], [], [], left)
        if self._wake in ready:
            os.read(self._wake, 4096)
        if self._keyboard not in ready:
            return []
        text = os.read(self._keyboard, 1024).decode(errors="replace")
        return _KEY.findall(text) if text else ["q"]  # the terminal is gone

    def _show(self) -> None:
        tty.setcbreak(self._keyboard, termios.TCSADRAIN)
        sys.stdout.write(_ENTER)
        sys.stdout.flush()

    def _hide(self) -> None:
        try:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._before)
        except OSError:  # the terminal is gone
            pass

    def _resized(self, _number: int, _frame: FrameType | None) -> None:
        os.write(self._woken, b"x")

    def _stopped(self, _number: int, _frame: FrameType | None) -> None:
        self._hide()
        os.kill(os.getpid(), signal.SIGSTOP)  # goes on here after SIGCONT
        self._show()
        os.write(self._woken, b"x")

    def _ended(self, number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)
