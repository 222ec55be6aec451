# SPDX-License-Identifier: Apache-2.0
"""The pipes of an attack program that runs commands from its standard input (`attacks serve`)."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator

__all__ = ["Served"]


class Served:
    """Commands to the program, and its answers, one line each."""

    def __init__(self) -> None:
        self._commands = self._answers = -1
        self._buffer = b""

    @contextlib.contextmanager
    def streams(self) -> Iterator[tuple[int, int]]:
        """Yields the descriptors of the program's standard input and output, for its start."""
        theirs_in, self._commands = os.pipe()
        self._answers, theirs_out = os.pipe()
        try:
            yield theirs_in, theirs_out
        finally:
            os.close(theirs_in)
            os.close(theirs_out)

    def send(self, words: str) -> None:
        """Sends one command. BrokenPipeError if the program has ended."""
        os.write(self._commands, words.encode() + b"\n")

    def line(self, wanted: str, seconds: float) -> str:
        """Returns the next line (`wanted`: the next line equal to it).

        TimeoutError after `seconds`, EOFError if the program has ended; their text is a predicate.
        """
        end = time.monotonic() + seconds
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if not wanted or line.decode() == wanted:
                    return line.decode(errors="replace")
                continue
            if not select.select([self._answers], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"did not answer within {seconds:.0f} s")
            more = os.read(self._answers, 65536)
            if not more:
                raise EOFError("ended")
            self._buffer += more

    def close(self) -> None:
        """Closes both pipes."""
        for fd in (self._commands, self._answers):
            if fd >= 0:
                os.close(fd)
