# SPDX-License-Identifier: Apache-2.0
"""Raw mode of the runtime's terminal while it shows a container's terminal."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Terminal"]

_TIOCGWINSZ, _TIOCSWINSZ = 0x5413, 0x5414


class Terminal:
    """Raw mode on descriptor 0, if it is a terminal. `restore` undoes it."""

    def __init__(self, master: int) -> None:
        self.master = master
        # Otherwise a workload that writes before it reads, and this process, could wait for each other.
        os.set_blocking(master, False)
        self._typed = b""
        self.saved: list[object] | None = None
        if os.isatty(0):
            import termios

            self.saved = termios.tcgetattr(0)
            raw = termios.tcgetattr(0)
            raw[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
            if os.isatty(1):
                raw[1] &= ~termios.OPOST  # the container's terminal has already inserted CR
            raw[2] |= termios.CS8
            raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
            termios.tcsetattr(0, termios.TCSAFLUSH, raw)
            self._resize(0, None)
            _signal.signal(_signal.SIGWINCH, self._resize)

    def _resize(self, _number: int, _frame: FrameType | None) -> None:
        fcntl.ioctl(self.master, _TIOCSWINSZ, fcntl.ioctl(0, _TIOCGWINSZ, b"\0" * 8))

    def read_input(self) -> bool:
        """Reads what was typed. Returns False at its end, which becomes the end-of-file character."""
        data = os.read(0, 4096)
        self._typed = data or b"\x04"
        return bool(data)

    def to_container(self) -> bool:
        """Writes as much of it as the container's terminal accepts now. Returns True if that is all."""
        try:
            self._typed = self._typed[os.write(self.master, self._typed) :]
        except BlockingIOError:
            pass
        except OSError:
            self._typed = b""  # EIO: no process can read it
        return not self._typed

    def from_container(self) -> bool:
        try:
            data = os.read(self.master, 65536)
        except BlockingIOError:
            return True
        except OSError:
            return False  # EIO: the last process closed its side
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
        return bool(data)

    def restore(self) -> None:
        if self.saved is not None:
            import termios

            termios.tcsetattr(0, termios.TCSAFLUSH, self.saved)  # type: ignore[arg-type]
