# SPDX-License-Identifier: Apache-2.0
"""The rules of all bridge networks, from what is on record of them: a pure function."""

from __future__ import annotations

from typing import Any

from ringfence.sandbox.network import nft
from ringfence.sandbox.network.nft import Chain, Rule
from ringfence.sandbox.network.ports import Port

__all__ = ["chains", "ports_of", "reaches_loopback"]

LOOPBACK = "127.0.0.0/8"


def ports_of(lease: dict[str, Any]) -> list[Port]:
    """The published ports of a lease on record."""
    return [Port(*fields) for fields in lease["ports"]]


def reaches_loopback(network: dict[str, Any]) -> bool:
    """Whether a port of it is published on 127.0.0.1, too."""
    ports = [port for lease in network["leases"].values() for port in ports_of(lease)]
    return any(not port.address or port.address.startswith("127.") for port in ports)


def chains(networks: list[dict[str, Any]]) -> list[Chain]:
    """Every chain of the table. Networks without a bridge (macvlan, ipvlan) have no rules."""
    bridges = [network for network in networks if network["mode"] == "bridge"]
    if not bridges:
        return []
    published = [rule for network in bridges for rule in _published(network)]
    # From outside nobody reaches what is published on 127.0.0.1 alone, by whatever address a packet bears.
    outside = [rule for network in bridges for rule in _published(network, loopback=False)]
    return [
        # A bridge that carries loopback's published ports routes 127.0.0.0/8 (CVE-2020-8558): not from its
        # sandboxes.
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
    """Sources are rewritten on the way out of the host, on the way back in to a published port, and for
    loopback.
    """
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
    """Into a bridge comes what was asked for, what is published, and what its own sandboxes say: nothing
    else.
    """
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
