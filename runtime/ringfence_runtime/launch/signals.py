# SPDX-License-Identifier: Apache-2.0
"""Signals as a program that is executed expects to find them."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]

__all__ = ["reset_signals"]

_LAST = 64
# SIGKILL and SIGSTOP cannot be set; 32 and 33 are the C library's own.
_FIXED = frozenset((9, 19, 32, 33))


def reset_signals() -> None:
    """Python ignores SIGPIPE and SIGXFSZ, and an ignored signal stays ignored over execve."""
    for number in range(1, _LAST + 1):
        if number not in _FIXED and _signal.getsignal(number) != _signal.SIG_DFL:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
