# SPDX-License-Identifier: Apache-2.0
"""For crun's suite: functions of Python 3.12 (os.unshare, os.setns), and a timeout of sockets.

Without the timeout, a test without a client would block the others of its file.
"""

from __future__ import annotations

import ctypes
import os
import socket

__all__: list[str] = []

socket.setdefaulttimeout(20)

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
