# SPDX-License-Identifier: Apache-2.0
"""The part of the host that only a virtual machine may have: disks, a network, a metadata service."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.adversary.servers import Servers

__all__ = ["Node", "new_node"]

NETWORK = "rfadversary"
_METADATA = "169.254.169.254"
_DISK_BYTES = 32 << 20
_UPCALL = Path("/usr/sbin/request-key")
_UEVENT_GROUPS = 3  # of the kernel and of udev
_MODULES = ("veth", "tun", "nf_tables", "nft_chain_nat", "nft_nat", "nf_nat", "sch_ingress", "cls_u32")
_NAT = "table ip rf{name} {{\nchain out {{\ntype nat hook output priority -100\n"
_NAT += "ip daddr {source} udp dport 9 dnat to {target}\n}}\n}}\n"
_REWRITE = "qdisc replace dev eth0 clsact\n"
_REWRITE += "filter add dev eth0 egress protocol ip u32 match ip dst {source}/32 "
_REWRITE += "action pedit munge ip dst set {target} pipe csum ip and udp\n"


def run(*argv: str) -> None:
    """Runs a command of the host."""
    subprocess.run(argv, check=True, capture_output=True)


class Node:
    """A disk of the host, and what its servers answer to."""

    def __init__(self, directory: Path, servers: Servers) -> None:
        self.directory, self.servers = directory, servers
        self.disk = directory / "disk"
        self.upcalls = directory / "upcalls"
        self.network = f"/run/netns/{NETWORK}"
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def mount_disk(self) -> None:
        """Mounts a new filesystem with files like a host's."""
        self.disk.mkdir(exist_ok=True)
        while os.path.ismount(self.disk):
            run("umount", "--lazy", str(self.disk))
        mount_image(self.directory / "disk.img", self.disk)
        for name in ("etc/cron.d", "opt", "srv", "usr/bin"):
            (self.disk / name).mkdir(parents=True)
        (self.disk / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")

    def start(self) -> None:
        """Creates all of it."""
        for name in (*_MODULES, "act_pedit", "act_csum"):
            subprocess.run(["modprobe", name], check=False, capture_output=True)
        self.mount_disk()
        self._network()
        self._upcalls()
        self._serve_udp()
        for address, port in ((_METADATA, 80), ("127.0.0.1", 10250), ("127.0.0.1", 10251)):
            self._serve_tcp(address, port)
        self._listen_for_devices()

    def _network(self) -> None:
        run("ip", "link", "set", "lo", "up")
        run("ip", "address", "add", f"{_METADATA}/32", "dev", "lo")
        run("ip", "netns", "add", NETWORK)
        run("ip", "link", "add", "rfadv0", "type", "veth", "peer", "name", "eth0", "netns", NETWORK)
        run("ip", "address", "add", "10.99.0.1/24", "dev", "rfadv0")
        run("ip", "link", "set", "rfadv0", "up")
        inside = ("ip", "-n", NETWORK)
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "address", "add", "10.99.0.2/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "route", "add", "default", "via", "10.99.0.1")

    def _upcalls(self) -> None:
        _UPCALL.write_text(f'#!/bin/sh\necho "$@" >> {self.upcalls}\nexit 1\n')
        _UPCALL.chmod(0o755)

    def _serve_udp(self) -> None:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((_METADATA, 80))
        self._receive(server)

    def _serve(self, server: socket.socket, once: Callable[[], None]) -> None:
        """Calls `once` again and again in a thread, until the node is closed."""
        server.settimeout(0.2)

        def serve() -> None:
            with server:
                while not self._over.is_set():
                    with contextlib.suppress(OSError):
                        once()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _receive(self, server: socket.socket) -> None:
        self._serve(server, lambda: self.servers.received.append(server.recv(4096)))

    def _serve_tcp(self, address: str, port: int) -> None:
        server = socket.create_server((address, port))

        def once() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(self.servers.secret.encode())
                client.settimeout(2)
                self.servers.received.append(client.recv(256))

        self._serve(server, once)

    def _listen_for_devices(self) -> None:
        server = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)  # NETLINK_KOBJECT_UEVENT
        server.bind((0, _UEVENT_GROUPS))
        self._receive(server)

    def scripts(self, directory: Path) -> None:
        """Writes what tools of the container need: to the metadata service, and to the host."""
        for name, last, target in (("nat", 7, _METADATA), ("own", 17, "10.99.0.1")):
            port = 80 if name == "nat" else 9
            text = _NAT.format(name=name, source=f"192.0.2.{last}", target=f"{target}:{port}")
            (directory / f"{name}.nft").write_text(text)
        (directory / "rewrite.tc").write_text(_REWRITE.format(source="192.0.2.8", target=_METADATA))
        (directory / "own.tc").write_text(_REWRITE.format(source="192.0.2.18", target="10.99.0.1"))

    def close(self) -> None:
        """Removes what outlasts the tests of a module."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        subprocess.run(["ip", "netns", "del", NETWORK], check=False, capture_output=True)
        subprocess.run(["ip", "address", "del", f"{_METADATA}/32", "dev", "lo"], check=False)
        _UPCALL.unlink(missing_ok=True)
        while os.path.ismount(self.disk):
            run("umount", "--lazy", str(self.disk))


def mount_image(image: Path, where: Path) -> None:
    """Mounts a new ext4 filesystem in a file."""
    if not Path("/dev/loop-control").exists():
        run("modprobe", "loop")
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(_DISK_BYTES)
    run("mkfs.ext4", "-q", "-F", str(image))
    run("mount", "-o", "loop", str(image), str(where))


@contextlib.contextmanager
def new_node(directory: Path, servers: Servers) -> Iterator[Node]:
    """Creates it for the time of the block."""
    node = Node(directory, servers)
    try:
        node.start()
        yield node
    finally:
        node.close()
