# SPDX-License-Identifier: Apache-2.0
"""What crun's suite takes from Python 3.12, for older ones: os.unshare, os.setns and their flags."""

from __future__ import annotations

import ctypes
import os

__all__: list[str] = []

if not hasattr(os, "unshare"):
    _libc = ctypes.CDLL(None, use_errno=True)

    def _checked(result: int) -> None:
        if result:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    _FLAGS = {
        "CLONE_NEWNS": 0x00020000,
        "CLONE_NEWUTS": 0x04000000,
        "CLONE_NEWIPC": 0x08000000,
        "CLONE_NEWUSER": 0x10000000,
        "CLONE_NEWPID": 0x20000000,
        "CLONE_NEWNET": 0x40000000,
    }
    for _name, _value in _FLAGS.items():
        setattr(os, _name, _value)
    os.unshare = lambda flags: _checked(_libc.unshare(flags))  # type: ignore[attr-defined]
    os.setns = lambda fd, flags=0: _checked(_libc.setns(fd, flags))  # type: ignore[attr-defined]
