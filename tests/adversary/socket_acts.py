# SPDX-License-Identifier: Apache-2.0
"""Ways of a container to a unix socket: `WAY,PATH`; prints the errno of each, 0 if it got there.

Runs with the standard library alone.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _connect(path: str, kind: int = socket.SOCK_STREAM) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.connect("\0" + path[1:] if path.startswith("@") else path)


def _send(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", path)


def _by_link(path: str) -> None:
    link = f"{path}.link-{os.getpid()}"
    os.symlink(path, link)
    try:
        _connect(link)
    finally:
        os.unlink(link)


def _by_descriptor(path: str) -> None:
    fd = os.open(path, os.O_PATH)
    try:
        _connect(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _by_directory(path: str) -> None:
    os.chdir(os.path.dirname(path))
    try:
        _connect(os.path.basename(path))
    finally:
        os.chdir("/")


def _by_root(path: str) -> None:
    """By way of a process of the host: the one that started this."""
    _connect(f"/proc/{os.getppid()}/root{path}")


def _replaced(path: str) -> None:
    """Another thread puts another descriptor into the place of the one that connects."""
    connecting, other = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    ended = threading.Event()

    def replace() -> None:
        kept = os.dup(connecting.fileno())
        while not ended.is_set():
            os.dup2(other.fileno(), connecting.fileno())
            os.dup2(kept, connecting.fileno())

    thread = threading.Thread(target=replace, daemon=True)
    thread.start()
    try:
        connecting.connect(path)
    finally:
        ended.set()
        thread.join()


WAYS: dict[str, Callable[[str], None]] = {
    "connect": _connect,
    "packets": lambda path: _connect(path, socket.SOCK_SEQPACKET),
    "datagram": lambda path: _connect(path, socket.SOCK_DGRAM),
    "send": _send,
    "link": _by_link,
    "descriptor": _by_descriptor,
    "directory": _by_directory,
    "root": _by_root,
    "replaced": _replaced,
}


def _listen_and_leave(path: str) -> None:
    """A server that forks after listen(2), as daemons do; its first process ends."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    if os.fork():
        os._exit(0)
    say("listening")
    server.accept()
    server.accept()


def main() -> None:
    """Does what the arguments name, in order."""
    for argument in sys.argv[1:]:
        way, path = argument.split(",")
        if way == "serve":
            _listen_and_leave(path)
            return
        try:
            WAYS[way](path)
            say(f"{argument} 0")
        except OSError as error:
            say(f"{argument} {error.errno}")


if __name__ == "__main__":
    main()
