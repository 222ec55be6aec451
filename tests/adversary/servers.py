# SPDX-License-Identifier: Apache-2.0
"""Servers of the host: they give the secret to a client, and keep what they received."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["Servers", "running_servers"]


class Servers:
    """Unix sockets of three kinds, an abstract one, and a FIFO that the host reads."""

    def __init__(self, directory: Path, secret: str) -> None:
        self.directory, self.secret = directory, secret
        self.received: list[bytes] = []
        self._open: list[socket.socket] = []
        self.abstract = f"rfadversary-{secret[:6]}"

    def words(self) -> dict[str, str]:
        """Returns the names of the servers, for the words of an attack."""
        return {"run": str(self.directory), "abstract": self.abstract}

    def got(self, token: str) -> bool:
        """Returns True if a client's message with the token arrived."""
        return any(token.encode() in one for one in list(self.received))

    def _start(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()

    def stream(self, address: str, kind: int = socket.SOCK_STREAM) -> None:
        """Gives the secret to every client that connects."""
        server = socket.socket(socket.AF_UNIX, kind)
        server.bind(address)
        server.listen(64)
        self._open.append(server)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client, contextlib.suppress(OSError):
                        client.sendall(self.secret.encode())
                        client.settimeout(2)
                        self.received.append(client.recv(256))

        self._start(serve)

    def datagram(self, address: str) -> None:
        """Keeps every datagram."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        server.bind(address)
        self._open.append(server)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while data := server.recv(256):
                    self.received.append(data)

        self._start(serve)

    def fifo(self, path: Path) -> None:
        """Reads a FIFO of the host."""
        os.mkfifo(path)
        reader = os.open(path, os.O_RDWR)  # never at its end

        def serve() -> None:
            while data := os.read(reader, 256):
                if data == b"end":
                    break
                self.received.append(data)
            os.close(reader)

        self._start(serve)

    def close(self) -> None:
        """Ends all of them."""
        for server in self._open:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        for path in self.directory.rglob("*.fifo"):
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, b"end")
            os.close(fd)


@contextlib.contextmanager
def running_servers(directory: Path, secret: str) -> Iterator[Servers]:
    """The servers, below a directory of the host and in one that containers are given."""
    made = Servers(directory, secret)
    try:
        made.stream(str(directory / "bus.sock"))
        made.stream(str(directory / "given/bus.sock"))
        made.stream(str(directory / "seq.sock"), socket.SOCK_SEQPACKET)
        made.stream(f"\0{made.abstract}")
        made.datagram(str(directory / "dgram.sock"))
        made.fifo(directory / "host.fifo")
        made.fifo(directory / "given/host.fifo")
        yield made
    finally:
        made.close()
