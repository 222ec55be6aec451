# SPDX-License-Identifier: Apache-2.0
"""Published ports: `-p [IP:][HOST:]CONTAINER[/udp]`, and a check that a host port is free."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

from ringfence.sandbox.errors import SandboxError, UsageError

__all__ = ["Port", "choose", "exposed", "parse"]

_MOST = 1024  # maximum ports of one range


class Port(NamedTuple):
    """One published port. An empty address means all addresses of the host; host port 0: any free one."""

    protocol: str
    address: str
    host: int
    container: int

    def __str__(self) -> str:
        shown = f"[{self.address}]" if ":" in self.address else self.address or "*"
        return f"{shown}:{self.host}->{self.container}/{self.protocol}"


def parse(text: str) -> list[Port]:
    """`80`, `8080:80`, `127.0.0.1:8080:80/tcp`, `[::1]:53:53/udp`, `8000-8010:8000-8010`."""
    rest, slash, protocol = text.partition("/")
    protocol = protocol if slash else "tcp"
    if protocol not in ("tcp", "udp"):
        raise UsageError(f"--publish: {protocol!a} is neither tcp nor udp")
    rest, _, inner = rest.rpartition(":")
    if rest.startswith("["):
        address, bracket, outer = rest[1:].partition("]")
        if not bracket or (outer and not outer.startswith(":")):
            raise _wrong(text)
        outer = outer[1:]
    else:
        address, _, outer = rest.rpartition(":")
    inside, outside = _range(inner, text), _range(outer or "0", text)
    if outer and len(inside) != len(outside):
        raise UsageError(f"--publish: {text!a}: the two ranges differ in length")
    if 0 in inside or (outer and 0 in outside):
        raise UsageError(f"--publish: {text!a}: ports begin at 1")
    hosts = list(outside) if outer else [0] * len(inside)
    checked = _address(address, text)
    return [Port(protocol, checked, host, container) for host, container in zip(hosts, inside, strict=True)]


def _wrong(text: str) -> UsageError:
    return UsageError(f"--publish: {text!a} is not [IP:][HOST:]CONTAINER[/udp]")


def _address(text: str, whole: str) -> str:
    import ipaddress

    try:
        address = ipaddress.ip_address(text) if text else None
    except ValueError:
        raise _wrong(whole) from None
    if address is not None and address.version == 6 and address.is_loopback:
        raise UsageError(
            f"--publish: {whole!a}: the kernel does not route from ::1", hint="publish on 127.0.0.1, or on *"
        )
    return "" if address is None or address.is_unspecified else str(address)


def _range(text: str, whole: str) -> range:
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()):
        raise _wrong(whole)
    low, high = int(first), int(last)
    if not low <= high <= 65535 or high - low >= _MOST:
        raise UsageError(f"--publish: {whole!a}: a port is at most 65535, a range at most {_MOST} long")
    return range(low, high + 1)


def exposed(ports: list[str]) -> list[Port]:
    """Returns the ports that an image declares, for --publish-all. Invalid text of the image is ignored."""
    found = []
    for text in ports:
        try:
            found += parse(text if "/" in text else f"{text}/tcp") if ":" not in text else []
        except UsageError:
            continue
    return found


def choose(wanted: list[Port], taken: dict[Port, str]) -> list[Port]:
    """Returns ports with free numbers. SandboxError if another sandbox or host program uses one."""
    chosen: list[Port] = []
    for port in wanted:
        for other, owner in taken.items():
            if port.host and _clash(port, other):
                raise SandboxError(
                    f"port {port.host}/{port.protocol} is already published by sandbox {owner}",
                    hint="choose another one, or omit it: -p CONTAINER",
                )
        for other in chosen:
            if port.host and _clash(port, other):
                raise UsageError(f"--publish: port {port.host}/{port.protocol} is duplicate")
        chosen.append(_free(port, [*taken, *chosen]))
    return chosen


def _clash(one: Port, other: Port) -> bool:
    same = one.host == other.host and one.protocol == other.protocol
    return same and (not one.address or not other.address or one.address == other.address)


def _free(port: Port, others: list[Port]) -> Port:
    """Returns the port, or one that the kernel chooses, if it can be bound now."""
    for _ in range(64):
        number = _bind(port)
        found = port._replace(host=number)
        if port.host or not any(_clash(found, other) for other in others):
            return found
    raise SandboxError("no free port was found")


def _bind(port: Port) -> int:
    family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as probe:
        # A closing connection of an earlier server does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if port.protocol == "tcp" else 0)
        try:
            probe.bind((port.address, port.host))
            if port.protocol == "tcp":
                probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SandboxError(
                    f"port {port.host}/{port.protocol} is in use by a program of this host",
                    hint="`ss -lntup` shows it",
                ) from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise SandboxError(f"{port.address} is not an address of this host") from None
            raise
        return int(probe.getsockname()[1])
