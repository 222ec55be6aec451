# SPDX-License-Identifier: Apache-2.0
"""`linux.netDevices`: interfaces of the host moved into the container's network namespace, by rtnetlink.

The kernel forgets an interface's addresses when it is moved, and leaves it down. So those that were meant to
last (permanent, of global scope: config-linux.md#network-devices) are read before and given to it again.
"""

from __future__ import annotations

import errno
import os
from _struct import Struct

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.netlink import Netlink, attribute, attributes

__all__ = ["move_devices"]

_NEWLINK, _GETLINK, _NEWADDR, _GETADDR = 16, 18, 20, 22
_CREATE, _EXCL, _DUMP = 0x400, 0x200, 0x300
_IFLA_IFNAME, _IFLA_NET_NS_FD = 3, 28
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS, _IFA_RT_PRIORITY = 1, 2, 4, 8, 9
_KEPT = frozenset((_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_RT_PRIORITY))
_PERMANENT, _UNIVERSE = 0x80, 0
# What may be asked for when an address is made (if_addr.h): NODAD, HOMEADDRESS, MANAGETEMPADDR,
# NOPREFIXROUTE, MCAUTOJOIN. The other flags are what the kernel says of it.
_ASKED = 0x02 | 0x10 | 0x100 | 0x200 | 0x400
_UP = 1
_IFINFO = Struct("BxHiII")  # family, type, index, flags, change
_IFADDR = Struct("BBBBi")  # family, prefix length, flags, scope, index


def move_devices(namespace: int, devices: dict[str, str]) -> None:
    """Move each to the namespace, under its new name; `%d` in it is a number of the kernel's choice."""
    here = Netlink()
    try:
        there = _socket_in(namespace)
        try:
            for name, new in devices.items():
                try:
                    _move(here, there, namespace, name, new)
                except OSError as error:
                    raise Error(f"config: linux.netDevices.{name}: {error.strerror}") from None
        finally:
            there.close()
    finally:
        here.close()


def _socket_in(namespace: int) -> Netlink:
    """A socket of the other namespace: it stays there when we are back."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        try:
            return Netlink()
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)


def _links(socket: Netlink) -> dict[int, str]:
    """Names of the interfaces by their index."""
    found: dict[int, str] = {}
    for kind, body in socket.ask(_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0), _DUMP):
        if kind == _NEWLINK:
            name = attributes(body[_IFINFO.size :]).get(_IFLA_IFNAME, b"")
            found[_IFINFO.unpack_from(body)[2]] = name.rstrip(b"\0").decode(errors="surrogateescape")
    return found


def _move(here: Netlink, there: Netlink, namespace: int, name: str, new: str) -> None:
    index = next((number for number, each in _links(here).items() if each == name), 0)
    if not index:
        raise OSError(errno.ENODEV, "there is no such interface")
    before = _links(there)
    # The kernel would find out only after the move, and leave it there under its old name.
    if new in before.values():
        raise OSError(errno.EEXIST, f"the container has an interface {new} already")
    addresses = _addresses(here, index)
    body = _IFINFO.pack(0, 0, index, 0, 0) + attribute(_IFLA_NET_NS_FD, namespace.to_bytes(4, "little"))
    here.ask(_NEWLINK, body + attribute(_IFLA_IFNAME, new.encode() + b"\0"))
    [moved] = set(_links(there)) - set(before)
    for family, length, flags, attrs in addresses:
        asked = attribute(_IFA_FLAGS, (flags & _ASKED).to_bytes(4, "little"))
        there.ask(
            _NEWADDR, _IFADDR.pack(family, length, 0, _UNIVERSE, moved) + attrs + asked, _CREATE | _EXCL
        )
    there.ask(_NEWLINK, _IFINFO.pack(0, 0, moved, _UP, _UP))


def _addresses(socket: Netlink, index: int) -> list[tuple[int, int, int, bytes]]:
    """(family, prefix length, flags, attributes) of the interface's permanent addresses of global scope."""
    found = []
    for kind, body in socket.ask(_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0), _DUMP):
        family, length, flags, scope, owner = _IFADDR.unpack_from(body)
        if kind != _NEWADDR or owner != index or scope != _UNIVERSE:
            continue
        attrs = attributes(body[_IFADDR.size :])
        flags = int.from_bytes(attrs[_IFA_FLAGS], "little") if _IFA_FLAGS in attrs else flags
        if flags & _PERMANENT:
            kept = b"".join(attribute(number, attrs[number]) for number in attrs if number in _KEPT)
            found.append((family, length, flags, kept))
    return found
