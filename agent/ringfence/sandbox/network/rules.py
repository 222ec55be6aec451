# SPDX-License-Identifier: Apache-2.0
"""The rules of all bridge networks, derived from their records: a pure function."""

from __future__ import annotations

from typing import Any

from ringfence.sandbox.network import nft
from ringfence.sandbox.network.nft import Chain, Rule
from ringfence.sandbox.network.ports import Port

__all__ = ["chains", "ports_of", "reaches_loopback"]

LOOPBACK = "127.0.0.0/8"


def ports_of(lease: dict[str, Any]) -> list[Port]:
    """Returns the published ports of a recorded lease."""
    return [Port(*fields) for fields in lease["ports"]]


def reaches_loopback(network: dict[str, Any]) -> bool:
    """Returns True if a port of the network is published on 127.0.0.1."""
    ports = [port for lease in network["leases"].values() for port in ports_of(lease)]
    return any(not port.address or port.address.startswith("127.") for port in ports)


def chains(networks: list[dict[str, Any]]) -> list[Chain]:
    """Returns every chain of the table. Networks without a bridge (macvlan, ipvlan) have no rules."""
    bridges = [network for network in networks if network["mode"] == "bridge"]
    if not bridges:
        return []
    published = [rule for network in bridges for rule in _published(network)]
    # Ports published on 127.0.0.1 only are not reachable from outside, with any address in the packet.
    outside = [rule for network in bridges for rule in _published(network, loopback=False)]
    return [
        # A bridge with ports on loopback routes 127.0.0.0/8, but not from its sandboxes (CVE-2020-8558).
        Chain("guard", "filter", nft.PREROUTING, -300, tuple(_guards(bridges))),
        Chain("publish", "nat", nft.PREROUTING, -100, tuple(outside)),
        Chain("publish-local", "nat", nft.OUTPUT, -100, tuple(published)),
        Chain(
            "leave", "nat", nft.POSTROUTING, 100, tuple(r for network in bridges for r in _leaving(network))
        ),
        Chain(
            "forward", "filter", nft.FORWARD, 0, tuple(r for network in bridges for r in _crossing(network))
        ),
    ]


def _guards(bridges: list[dict[str, Any]]) -> list[Rule]:
    return [
        Rule((nft.incoming(network["link"]), nft.destination(LOOPBACK), nft.DROP))
        for network in bridges
        if reaches_loopback(network)
    ]


def _published(network: dict[str, Any], *, loopback: bool = True) -> list[Rule]:
    rules = []
    for name, lease in sorted(network["leases"].items()):
        for port in ports_of(lease):
            if port.address.startswith("127.") and not loopback:
                continue
            for address in lease["addresses"]:
                version = 6 if ":" in address else 4
                if port.address and (":" in port.address) != (version == 6):
                    continue
                where = nft.destination(port.address) if port.address else nft.to_this_host(version)
                match = (where, nft.port(port.protocol, port.host), nft.dnat(address, port.container))
                rules.append(Rule(match, name))
    return rules


def _leaving(network: dict[str, Any]) -> list[Rule]:
    """Rewrites source addresses of packets that leave the host, return to a published port, or loop back."""
    link = network["link"]
    rules = (
        [Rule((nft.outgoing(link), nft.source(LOOPBACK), nft.MASQUERADE))]
        if reaches_loopback(network)
        else []
    )
    for subnet in network["subnets"]:
        rules.append(Rule((nft.source(subnet), nft.outgoing(link), nft.translated(), nft.MASQUERADE)))
        if not network["internal"]:
            rules.append(Rule((nft.source(subnet), nft.outgoing(link, equal=False), nft.MASQUERADE)))
    return rules


def _crossing(network: dict[str, Any]) -> list[Rule]:
    """Allows only replies, published ports and the network's own sandboxes into a bridge."""
    link = network["link"]
    inside = [Rule((nft.incoming(link), nft.outgoing(link), nft.ACCEPT))]
    if network["internal"]:
        inside.append(Rule((nft.incoming(link), nft.DROP), "internal"))
    return [
        *inside,
        Rule((nft.outgoing(link), nft.known(), nft.ACCEPT)),
        Rule((nft.outgoing(link), nft.translated(), nft.ACCEPT)),
        Rule((nft.outgoing(link), nft.DROP)),
    ]
