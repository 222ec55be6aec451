# SPDX-License-Identifier: Apache-2.0
"""A terminal for a command, and an agent that answers it."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_for

__all__ = ["Terminal", "agent", "terminal"]


def _on_terminal() -> None:
    """Makes standard input the terminal of the session; a test in the background ignores interrupts."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command on a terminal of a size. `written` is all that it wrote so far."""

    def __init__(self, command: list[str], size: tuple[int, int], environment: Mapping[str, str]) -> None:
        self.columns, self.rows = size
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))
        self.before = termios.tcgetattr(inner)
        clean = {n: v for n, v in os.environ.items() if n not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
            env={**clean, "TERM": "xterm", **environment},
            preexec_fn=_on_terminal,
        )  # fmt: skip
        self._inner = inner
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a letter may come in two parts
        self.written = ""

    def press(self, keys: str) -> None:
        """Types keys."""
        os.write(self._fd, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Changes the size, as a window does."""
        self.columns, self.rows = columns, rows
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> str:
        """Returns all that was written so far."""
        while select.select([self._fd], [], [], 0.02)[0]:
            self.written += self._decoder.decode(os.read(self._fd, 65536))
        return self.written

    def screen(self) -> list[str]:
        """Returns the lines of the last complete drawing, without colours."""
        drawn = self.read().rpartition("\x1b[J")[0].rpartition("\x1b[H")[2]
        return [re.sub(r"\x1b\[[0-9;]*[mK]", "", line) for line in drawn.split("\r\n")]

    def shows(self, text: str) -> list[str]:
        """Waits until the screen shows a text, and returns its lines."""

        def found() -> list[str] | None:
            lines = self.screen()
            return lines if text in "\n".join(lines) else None

        return wait_for(found, f"{text!r} on the screen")

    def ended(self) -> int:
        """Returns the exit code when the command has ended."""

        def code() -> tuple[int] | None:
            self.read()
            ended = self.process.poll()
            return None if ended is None else (ended,)

        return wait_for(code, "the command's end")[0]

    def attributes(self) -> list[Any]:
        """Returns the terminal's settings."""
        return termios.tcgetattr(self._inner)

    def close(self) -> None:
        """Ends the command."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._fd)
        os.close(self._inner)


@contextlib.contextmanager
def terminal(
    *words: str, size: tuple[int, int] = (80, 12), environment: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Runs a command of ringfence on a terminal."""
    made = Terminal([sys.executable, "-m", "ringfence", *words], size, environment or {})
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def agent(directory: Path, answer: Callable[[dict[str, Any]], Any]) -> Iterator[Path]:
    """A socket that answers each request as an agent does."""
    path = directory / "agent.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                asked = json.loads(connection.makefile("rb").readline())
                connection.sendall(json.dumps({"ok": True, "result": answer(asked)}).encode() + b"\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)
        assert not thread.is_alive()
