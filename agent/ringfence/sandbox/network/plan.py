# SPDX-License-Identifier: Apache-2.0
"""`--network` as plain values. Nothing is looked up here."""

from __future__ import annotations

from typing import NamedTuple

from ringfence.sandbox.errors import UsageError

__all__ = ["Plan", "plan"]

MODES = "none, host, bridge[:NAME], macvlan:PARENT, ipvlan:PARENT[:l2|l3], container:NAME"
DEFAULT_BRIDGE = "ringfence"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_KEYS = ("subnet", "gateway", "ip", "mtu", "internal")


class Plan(NamedTuple):
    """The network that a sandbox requests."""

    mode: str = "none"
    name: str = ""
    """of the bridge network, the parent link or the container"""
    variant: str = ""
    """of ipvlan: l2 or l3"""
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """addresses that the sandbox must get"""
    mtu: int = 0
    internal: bool = False
    """no route out of the host"""

    @property
    def leased(self) -> bool:
        """True if the network needs leased addresses and links."""
        return self.mode in ("bridge", "macvlan", "ipvlan")


def plan(text: str, *, publishes: bool = False) -> Plan:
    """Parses `--network`. Empty means `none`, or `bridge` if ports are published."""
    text = text or ("bridge" if publishes else "none")
    head, *words = text.split(",")
    mode, colon, name = head.partition(":")
    if mode in ("none", "host") and not colon and not words:
        result = Plan(mode)
    elif mode == "container" and name and not words:
        result = Plan(mode, name)
    elif mode == "bridge" and (name or not colon):
        result = _extended(Plan(mode, _network_name(name or DEFAULT_BRIDGE)), words)
    elif mode in ("macvlan", "ipvlan") and name:
        parent, _, variant = name.partition(":") if mode == "ipvlan" else (name, "", "")
        if variant not in ("", "l2", "l3"):
            raise UsageError(f"--network: ipvlan has the modes l2 and l3, not {variant!a}")
        variant = (variant or "l2") if mode == "ipvlan" else ""
        result = _extended(Plan(mode, _link_name(parent), variant), words)
    else:
        raise UsageError(f"--network: {text!a} is not one of {MODES}")
    if publishes and result.mode != "bridge":
        raise UsageError(f"--publish needs a bridge, not --network {result.mode}", hint="--network bridge")
    return result


def _network_name(name: str) -> str:
    if set(name) - _LETTERS or len(name) > 64 or name[0] in ".-":
        raise UsageError(f"--network: {name!a} is not a valid network name", hint="letters, digits and _ . -")
    return name


def _link_name(name: str) -> str:
    """Checks a link's name by the kernel's rules (dev_valid_name)."""
    bad = not name or len(name.encode()) > 15 or set(name) & {"/", ":"} or name in (".", "..")
    if bad or any(letter.isspace() or not letter.isprintable() for letter in name):
        raise UsageError(f"--network: {name!a} is not a valid link name")
    return name


def _extended(base: Plan, words: list[str]) -> Plan:
    given: dict[str, list[str]] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _KEYS:
            raise UsageError(f"--network: unknown key {key!a}", hint=", ".join(_KEYS))
        given.setdefault(key, []).append(value)
    mtu = given.get("mtu", ["0"])[-1]
    if not mtu.isdecimal() or not (mtu == "0" or 68 <= int(mtu) <= 65535):
        raise UsageError(f"--network: mtu: {mtu!a} is not between 68 and 65535")
    if given.get("internal", [""])[-1] not in ("", "true", "false"):
        raise UsageError("--network: internal: must be true or false")
    result = base._replace(
        subnets=tuple(_subnet(text) for text in given.get("subnet", ())),
        gateways=tuple(_address("gateway", text) for text in given.get("gateway", ())),
        addresses=tuple(_address("ip", text) for text in given.get("ip", ())),
        mtu=int(mtu),
        internal="internal" in given and given["internal"][-1] != "false",
    )
    if base.mode != "bridge" and result.addresses and not result.subnets:
        raise UsageError(
            "--network: ip= needs subnet=", hint=f"{base.mode}:{base.name},subnet=192.0.2.0/24,ip=192.0.2.9"
        )
    return result


def _subnet(text: str) -> str:
    import ipaddress

    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise UsageError(f"--network: subnet: {error}") from None
    if network.num_addresses < 4 or network.is_loopback or network.is_multicast:
        raise UsageError(f"--network: subnet: {text} cannot hold sandboxes")
    return str(network)


def _address(key: str, text: str) -> str:
    import ipaddress

    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise UsageError(f"--network: {key}: {error}") from None
