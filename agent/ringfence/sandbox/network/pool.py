# SPDX-License-Identifier: Apache-2.0
"""The leases of addresses, links and ports, on disk: one file per network below STATE/networks, one lock.

Everything is recorded before it is created in the kernel, so leftovers of a crash are found by record.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import os
from collections.abc import Iterator
from typing import Any

from ringfence.sandbox.errors import SandboxError, UsageError
from ringfence.sandbox.network.plan import DEFAULT_BRIDGE, Plan
from ringfence.sandbox.network.ports import Port, choose
from ringfence.sandbox.network.rules import ports_of

__all__ = ["Pool", "link_of"]

_USUAL = "/run/ringfence"
_SUPERNET = ipaddress.ip_network("10.119.0.0/16")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


def _hash(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def link_of(state: str, sandbox: str) -> str:
    """Returns the name of the host's link of a sandbox, derived from its name, to find it after a crash."""
    return f"rfv{_hash(state, sandbox)[:10]}"


class Pool:
    """All networks below one state directory. Use it in a `with` block, which holds the lock."""

    def __init__(self, state: str) -> None:
        self.state = state
        self.directory = f"{state}/networks"
        self._lock = -1

    def __enter__(self) -> Pool:
        os.makedirs(self.directory, 0o700, exist_ok=True)
        self._lock = os.open(
            f"{self.directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)
        self._lock = -1

    @property
    def table(self) -> str:
        """The name of the nftables table, which depends on the state directory."""
        return "ringfence" if self.state == _USUAL else f"ringfence-{_hash(self.state)[:8]}"

    def networks(self) -> list[dict[str, Any]]:
        """Returns all records, ordered by name."""
        from ringfence_runtime.images.records import read_json

        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []
        found = [read_json(f"{self.directory}/{name}") for name in names if name.endswith(".json")]
        return [record for record in found if record is not None]

    def save(self, network: dict[str, Any]) -> None:
        """Writes a record; removes one without a lease."""
        from ringfence_runtime.images.records import write_json

        path = f"{self.directory}/{network['file']}.json"
        if network["leases"]:
            write_json(path, network, durable=False)
        elif os.path.exists(path):
            os.unlink(path)

    def held_by(self, sandbox: str) -> Iterator[dict[str, Any]]:
        """Yields the networks in which a sandbox has a lease."""
        return (network for network in self.networks() if sandbox in network["leases"])

    def lease(self, plan: Plan, sandbox: str, ports: list[Port]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Records and returns (network, lease) of a new sandbox. SandboxError if nothing is left."""
        networks = self.networks()
        network = next((each for each in networks if each["file"] == self._file(plan)), None)
        if network is None:
            network = self._new(plan, networks)
        _agree(plan, network)
        taken = {
            port: name
            for each in networks
            for name, lease in each["leases"].items()
            for port in ports_of(lease)
        }
        lease = {
            "link": link_of(self.state, sandbox),
            "addresses": [str(address) for address in _addresses(plan, network)],
            "ports": [list(port) for port in choose(ports, taken)],
        }
        network["leases"][sandbox] = lease
        self.save(network)
        return network, lease

    def _file(self, plan: Plan) -> str:
        """Returns a name that is safe in a directory, for any link's name."""
        if plan.mode == "bridge":
            return f"bridge-{plan.name}"
        return f"{plan.mode}-{_hash(plan.name, *plan.subnets)[:16]}"

    def _new(self, plan: Plan, others: list[dict[str, Any]]) -> dict[str, Any]:
        subnets = [ipaddress.ip_network(text) for text in plan.subnets]
        if plan.mode == "bridge" and not subnets:
            subnets = [
                _free_subnet([ipaddress.ip_network(text) for each in others for text in each["subnets"]])
            ]
        gateways = [ipaddress.ip_address(text) for text in plan.gateways]
        if plan.mode == "bridge":
            gateways = [_gateway_in(subnet, gateways) for subnet in subnets]
        for gateway in gateways:
            if not any(gateway in subnet for subnet in subnets):
                raise UsageError(f"--network: the gateway {gateway} is in no subnet of it")
        own = (
            "ringfence0"
            if (self.state, plan.name) == (_USUAL, DEFAULT_BRIDGE)
            else f"rfb{_hash(self.state, plan.name)[:10]}"
        )
        return {
            "file": self._file(plan),
            "mode": plan.mode,
            "name": plan.name,
            "variant": plan.variant,
            "link": own if plan.mode == "bridge" else plan.name,
            "subnets": [str(subnet) for subnet in subnets],
            "gateways": [str(gateway) for gateway in gateways],
            "mtu": plan.mtu,
            "internal": plan.internal,
            "leases": {},
        }


def _agree(plan: Plan, network: dict[str, Any]) -> None:
    """Checks that a request matches an existing network's properties."""
    same = (
        (list(plan.subnets), network["subnets"], "subnet"),
        (plan.mtu, network["mtu"], "mtu"),
        (plan.internal, network["internal"], "internal"),
    )
    for asked, there, key in same:
        if asked and asked != there:
            shown = ", ".join(there) if isinstance(there, list) else there
            raise UsageError(
                f"--network: network {network['name']} exists with {key} {shown}",
                hint="end its sandboxes first, or use another name",
            )


def _gateway_in(subnet: Subnet, wanted: list[Address]) -> Address:
    """Returns the bridge's address: the requested one, else the subnet's first."""
    return next((address for address in wanted if address in subnet), subnet.network_address + 1)


def _addresses(plan: Plan, network: dict[str, Any]) -> list[Address]:
    """Returns one address of each subnet."""
    used = {address for lease in network["leases"].values() for address in lease["addresses"]}
    used.update(network["gateways"])
    wanted = [ipaddress.ip_address(text) for text in plan.addresses]
    subnets = [ipaddress.ip_network(text) for text in network["subnets"]]
    for address in wanted:
        if not any(address in subnet for subnet in subnets):
            raise UsageError(
                f"--network: {address} is in no subnet of {network['name']}",
                hint=", ".join(network["subnets"]),
            )
        if str(address) in used:
            raise SandboxError(f"address {address} is taken")
    return [_one(subnet, wanted, used) for subnet in subnets]


def _one(subnet: Subnet, wanted: list[Address], used: set[str]) -> Address:
    for address in wanted:
        if address in subnet:
            return address
    last = subnet.num_addresses - (1 if subnet.version == 4 else 0)  # IPv4 has a broadcast address
    for offset in range(1, min(last, len(used) + 3)):
        address = subnet.network_address + offset
        if str(address) not in used:
            return address
    raise SandboxError(f"no address is left in {subnet}", hint="remove sandboxes, or choose a larger subnet")


def _free_subnet(others: list[Subnet]) -> Subnet:
    """Returns a /24 that overlaps neither another network nor a route of the host."""
    busy = [*others, *_routes()]
    for subnet in _SUPERNET.subnets(new_prefix=24):
        if not any(subnet.version == other.version and subnet.overlaps(other) for other in busy):
            return subnet
    raise SandboxError(f"every subnet of {_SUPERNET} is in use", hint="--network bridge:NAME,subnet=CIDR")


def _routes() -> list[Subnet]:
    """Returns this host's IPv4 routes except the default (/proc/net/route: little-endian hexadecimal)."""
    found: list[Subnet] = []
    with open("/proc/net/route", encoding="ascii") as file:
        for line in file.readlines()[1:]:
            fields = line.split()
            target, mask = (int.from_bytes(bytes.fromhex(fields[n])[::-1], "big") for n in (1, 7))
            if mask:
                found.append(ipaddress.ip_network((target, mask.bit_count())))
    return found
