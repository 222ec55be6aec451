# SPDX-License-Identifier: Apache-2.0
"""Default signal settings, as an executed program expects them."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]

from ringfence_linux import syscalls

__all__ = ["reset_signals"]

_LAST = 64
_FIXED = (9, 19)  # SIGKILL and SIGSTOP cannot be set
_LIBRARY = (32, 33)  # reserved by the C library, which cannot read or set them; execve keeps them ignored


def reset_signals() -> None:
    """Resets all signals before an execve, which leaves an ignored signal ignored. Python ignores
    SIGPIPE and SIGXFSZ, and the caller of the runtime may ignore others.
    """
    for number in range(1, _LAST + 1):
        if number in _LIBRARY:
            syscalls.default_signal(number)
        elif number not in _FIXED and _signal.getsignal(number) != _signal.SIG_DFL:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
