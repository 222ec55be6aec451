# SPDX-License-Identifier: Apache-2.0
"""The node's addresses, for rules with `address: node`.

They are the addresses of all interfaces of the host's network namespace, except the loopback, which every
network namespace has. They are read from /proc/1/net, which shows the host's namespace from any other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from ringfence.policy.operand import Network

__all__ = ["Addresses", "node_addresses"]

Address = IPv4Address | IPv6Address

_EVERY = 30.0  # seconds between two reads: the routing table can be long
_MOST = 8 << 20  # maximum bytes read of it
_LOCAL = re.compile(r"\|-- ([0-9.]+)\n +/32 host LOCAL")


def node_addresses(proc: Path = Path("/proc")) -> frozenset[Network]:
    """Returns the node's addresses as ranges of one address. Unreadable files are skipped."""
    return frozenset(_ranges(address for address in _read(proc) if not address.is_loopback))


def _read(proc: Path) -> Iterator[Address]:
    net = proc / "1/net"
    with suppress(OSError), (net / "fib_trie").open() as table:
        for found in _LOCAL.finditer(table.read(_MOST)):
            yield IPv4Address(found[1])
    with suppress(OSError):
        for line in (net / "if_inet6").read_text().splitlines():
            yield ip_address(int(line.split()[0], 16).to_bytes(16, "big"))


def _ranges(addresses: Iterable[Address]) -> Iterator[Network]:
    for address in addresses:
        packed = address.packed
        yield Network(address.version, packed, address.max_prefixlen)
        if address.version == 4:
            # An IPv6 socket reaches IPv4 addresses as ::ffff:a.b.c.d.
            yield Network(6, bytes(10) + b"\xff\xff" + packed, 128)


class Addresses:
    """The node's current addresses, with change detection."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._read_at = time.monotonic()
        self.now = node_addresses(proc)

    def changed(self, *, every: float = _EVERY) -> bool:
        """Reads the addresses if `every` seconds have passed. Returns True if they changed."""
        if time.monotonic() - self._read_at < every:
            return False
        self._read_at = time.monotonic()
        before, self.now = self.now, node_addresses(self._proc)
        return self.now != before
