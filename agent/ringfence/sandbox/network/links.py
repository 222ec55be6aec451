# SPDX-License-Identifier: Apache-2.0
"""Links, addresses and routes by pyroute2: the only module that imports it, in a short-lived process.

The bridge and the host's end of a veth pair are created here, the sandbox's end in its own network
namespace, which removes it when its last process ends.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from typing import Any

from ringfence.sandbox.errors import SandboxError
from ringfence.sandbox.network.netlink import delete_link
from ringfence.sandbox.network.rules import reaches_loopback

__all__ = ["attach"]

INSIDE = "eth0"
_NODAD = 2  # IFA_F_NODAD: the pool guarantees that the address is unique


def attach(network: dict[str, Any], lease: dict[str, Any], pid: int, owner: str) -> None:
    """Gives process `pid` the link `eth0` with the lease's addresses. Raises SandboxError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as host:
            if network["mode"] == "bridge":
                bridge = _bridge(host, network)
                _cable(host, network, lease, pid, bridge, owner)
            else:
                _child_of(host, network, lease, pid)
        _enter(pid)
        with IPRoute() as inside:
            _configure(inside, network, lease)
    except NetlinkError as error:
        raise SandboxError(
            f"network {network['name']}: {_reason(error, network)}", hint=_hint(error, network)
        ) from None


def _reason(error: Any, network: dict[str, Any]) -> str:
    if error.code == errno.EOPNOTSUPP and network["mode"] != "bridge":
        return f"this kernel has no {network['mode']}"
    return str(os.strerror(error.code)).lower()


def _hint(error: Any, network: dict[str, Any]) -> str:
    if error.code == errno.EBUSY and network["mode"] != "bridge":
        return f"{network['link']} is already the parent of links of the other kind (macvlan or ipvlan)"
    return "is the kernel module available?" if error.code == errno.EOPNOTSUPP else ""


def _index(netlink: Any, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    return int(found[0]) if found else 0


def _bridge(host: Any, network: dict[str, Any]) -> int:
    """Returns the bridge, creating or completing it with its addresses if necessary."""
    name = network["link"]
    index = _index(host, name)
    if not index:
        # A fixed MAC address: else it would change with every added and removed link.
        mac = "02:" + ":".join(f"{byte:02x}" for byte in _digest(network["file"], 5))
        host.link("add", ifname=name, kind="bridge", address=mac, **_mtu(network))
        index = _index(host, name)
    elif host.get_links(index)[0].get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") != "bridge":
        raise SandboxError(f"{name} exists and is not a bridge", hint="another program created it: rename it")
    host.link("set", index=index, ifalias=f"ringfence: {network['name']}")
    for gateway, subnet in zip(network["gateways"], network["subnets"], strict=True):
        _add_address(host, index, gateway, subnet)
    _believe_no_router(name)
    host.link("set", index=index, state="up")
    if reaches_loopback(network):
        # Replies of sandboxes to 127.0.0.1 arrive at the own bridge: no other link is changed.
        with open(f"/proc/sys/net/ipv4/conf/{name}/route_localnet", "w", encoding="ascii") as file:
            file.write("1")
    return index


def _believe_no_router(name: str) -> None:
    """Disables router advertisements: by one, a sandbox could become this host's default gateway.

    CVE-2020-13401, CVE-2020-10749.
    """
    try:
        with open(f"/proc/sys/net/ipv6/conf/{name}/accept_ra", "w", encoding="ascii") as file:
            file.write("0")
    except FileNotFoundError:
        return  # a host without IPv6


def _digest(text: str, size: int) -> bytes:
    import hashlib

    return hashlib.sha256(text.encode()).digest()[:size]


def _mtu(network: dict[str, Any]) -> dict[str, int]:
    return {"mtu": network["mtu"]} if network["mtu"] else {}


def _add_address(netlink: Any, index: int, address: str, subnet: str) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    flags = {"flags": _NODAD} if ":" in address else {}
    prefix = ipaddress.ip_network(subnet).prefixlen
    try:
        netlink.addr("add", index=index, address=address, prefixlen=prefix, **flags)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


def _cable(
    host: Any, network: dict[str, Any], lease: dict[str, Any], pid: int, bridge: int, owner: str
) -> None:
    """Creates a veth pair: one end in the bridge, the other directly in the namespace of `pid`."""
    delete_link(lease["link"])  # left by a killed sandbox with the same name
    peer = {"ifname": INSIDE, "net_ns_pid": pid, **_mtu(network)}
    host.link("add", ifname=lease["link"], kind="veth", peer=peer, **_mtu(network))
    index = _index(host, lease["link"])
    host.link("set", index=index, master=bridge, ifalias=f"ringfence: {owner}", state="up")
    if lease["ports"]:
        # Its own published port leads back to it: a bridge does that only in hairpin mode.
        host.brport("set", index=index, mode=1)


def _child_of(host: Any, network: dict[str, Any], lease: dict[str, Any], pid: int) -> None:
    """Creates a macvlan or ipvlan of the parent under the recorded name, then moves it."""
    parent = _index(host, network["link"])
    if not parent:
        raise SandboxError(f"there is no link {network['link']!a} on this host", hint="`ip link` lists them")
    delete_link(lease["link"])
    modes = {"l2": 0, "l3": 1}
    special = (
        {"macvlan_mode": "bridge"}
        if network["mode"] == "macvlan"
        else {"ipvlan_mode": modes[network["variant"]]}
    )
    host.link("add", ifname=lease["link"], kind=network["mode"], link=parent, **special, **_mtu(network))
    host.link("set", index=_index(host, lease["link"]), net_ns_pid=pid, ifname=INSIDE)


def _enter(pid: int) -> None:
    """Enters the namespace permanently: this process is a helper that ends afterwards."""
    from ringfence_linux import syscalls

    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(fd, syscalls.CLONE_NEWNET)
    os.close(fd)


def _configure(inside: Any, network: dict[str, Any], lease: dict[str, Any]) -> None:
    index = _index(inside, INSIDE)
    for address, subnet in zip(lease["addresses"], network["subnets"], strict=True):
        _add_address(inside, index, address, subnet)
    inside.link("set", index=index, state="up")
    if network["internal"]:
        return
    for gateway in network["gateways"]:
        inside.route("add", dst="::/0" if ":" in gateway else "0.0.0.0/0", gateway=gateway)
    if network["variant"] == "l3" and not network["gateways"]:
        # Nothing answers ARP in this mode: all packets leave through the link, and the parent routes them.
        for subnet in network["subnets"]:
            inside.route("add", dst="::/0" if ":" in subnet else "0.0.0.0/0", oif=index)
