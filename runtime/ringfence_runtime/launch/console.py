# SPDX-License-Identifier: Apache-2.0
"""Terminals: a pty of the container's own devpts. Its slave is never opened by a path (CVE-2025-52565)."""

from __future__ import annotations

import fcntl
import os
import sys
from _struct import pack

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.channel import Channel, connect
from ringfence_runtime.launch.mounts import bind_tree
from ringfence_runtime.launch.paths import check_magic, ensure, open_in_root

__all__ = ["bind_console", "connect_console", "make_stdio", "open_pty", "send_master", "send_pidfd"]

TCGETS, TCSETS = 0x5401, 0x5402
ONLCR, _OUTPUT_FLAGS, _TERMIOS = 4, 4, 36  # the offset of c_oflag in struct termios, and its size
TIOCSCTTY, TIOCSPTLCK, TIOCGPTPEER, TIOCSWINSZ, TIOCGPTN = 0x540E, 0x40045431, 0x5441, 0x5414, 0x80045430


def connect_console(path: str) -> Channel:
    """The engine's socket that receives the master's descriptor (`--console-socket`)."""
    try:
        return connect(path if path.startswith("/") else f"{os.getcwd()}/{path}", stream=True)
    except OSError as error:
        raise Error(f"cannot connect to the console socket {path}: {error.strerror}") from None


def open_pty(root: int, devpts: int, size: tuple[int, int] | None, *, plain: bool) -> tuple[int, int]:
    """(master, slave). `devpts` is the descriptor of the container's mount. If it is -1, /dev/pts below
    `root` is checked and used. A plain terminal does not insert CR before LF.
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    directory = devpts if devpts >= 0 else open_in_root(root, "/dev/pts")
    try:
        check_magic(directory, syscalls.DEVPTS_SUPER_MAGIC, "/dev/pts")
        resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV
        master = syscalls.openat2(directory, "ptmx", flags, resolve=resolve)
    finally:
        if directory != devpts:
            os.close(directory)
    fcntl.ioctl(master, TIOCSPTLCK, pack("i", 0))
    # The slave is opened through the master, so no name in /dev/pts is resolved.
    slave = fcntl.ioctl(master, TIOCGPTPEER, flags)
    if plain:
        settings = bytearray(fcntl.ioctl(slave, TCGETS, bytes(_TERMIOS)))
        flags = int.from_bytes(settings[_OUTPUT_FLAGS : _OUTPUT_FLAGS + 4], sys.byteorder) & ~ONLCR
        settings[_OUTPUT_FLAGS : _OUTPUT_FLAGS + 4] = flags.to_bytes(4, sys.byteorder)
        fcntl.ioctl(slave, TCSETS, bytes(settings))
    if size:
        fcntl.ioctl(master, TIOCSWINSZ, pack("HHHH", size[0], size[1], 0, 0))
    return master, slave


def send_master(channel: Channel, master: int) -> None:
    """Sends the master to the engine, with its name in the container as the text."""
    number = int.from_bytes(fcntl.ioctl(master, TIOCGPTN, b"\0\0\0\0"), "little")
    channel.send("/", f"dev/pts/{number}", [master])


def send_pidfd(path: str, pidfd: int, what: str) -> None:
    """`--pidfd-socket`: sends a descriptor that always names this process, with runc's word for its kind."""
    try:
        channel = connect(path, stream=True)
        try:
            channel.send(what, fds=[pidfd])
        finally:
            channel.close()
    except OSError as error:
        raise Error(f"cannot send the pidfd to {path}: {error.strerror}") from None


def make_stdio(slave: int) -> None:
    """Makes the slave the standard streams and the controlling terminal of this new session."""
    for number in range(3):
        os.dup2(slave, number)
    fcntl.ioctl(0, TIOCSCTTY, 0)
    if slave > 2:
        os.close(slave)


def bind_console(root: int, slave: int) -> None:
    """Binds the slave on /dev/console, which is created as an empty file if it is missing."""
    check_magic(slave, syscalls.DEVPTS_SUPER_MAGIC, "the terminal")
    target = ensure(root, "/dev/console", directory=False, follow=False)
    try:
        tree = bind_tree(slave)
        try:
            syscalls.move_mount(tree, target, path="/dev/console")
        finally:
            os.close(tree)
    finally:
        os.close(target)
