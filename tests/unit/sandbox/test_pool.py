# SPDX-License-Identifier: Apache-2.0
"""Recorded addresses and ports, without a kernel."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from ringfence.sandbox.errors import SandboxError, UsageError
from ringfence.sandbox.network import pool as pools
from ringfence.sandbox.network import rules
from ringfence.sandbox.network.plan import plan
from ringfence.sandbox.network.pool import Pool, link_of
from ringfence.sandbox.network.ports import Port, parse
from tests.support.agent import free_port


@pytest.fixture(autouse=True)
def _no_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has none."""
    monkeypatch.setattr(pools, "_routes", list)


def lease(state: Path, network: str, name: str, *ports: Port) -> dict[str, Any]:
    """A lease of a new sandbox."""
    with Pool(str(state)) as pool:
        return pool.lease(plan(network), name, list(ports))[1]


def test_every_address_of_a_pool_is_given_once(tmp_path: Path) -> None:
    """Network, gateway and broadcast never; then it is full."""
    network = "bridge:n,subnet=10.0.0.0/29"
    given = [lease(tmp_path, network, f"s{n}")["addresses"][0] for n in range(5)]
    assert given == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(SandboxError, match="no address is left"):
        lease(tmp_path, network, "more")


def test_a_released_lease_is_available_again(tmp_path: Path) -> None:
    """A network without leases is removed."""
    for name in ("a", "b"):
        lease(tmp_path, "bridge", name)
    with Pool(str(tmp_path)) as pool:
        [network] = pool.held_by("a")
        del network["leases"]["a"]
        pool.save(network)
    assert lease(tmp_path, "bridge", "c")["addresses"] == ["10.119.0.2"]
    with Pool(str(tmp_path)) as pool:
        [network] = pool.networks()
        network["leases"] = {}
        pool.save(network)
        assert pool.networks() == []


def test_a_chosen_address(tmp_path: Path) -> None:
    """It must be free and in the subnet."""
    assert lease(tmp_path, "bridge:n,subnet=10.0.0.0/24,ip=10.0.0.9", "a")["addresses"] == ["10.0.0.9"]
    with pytest.raises(SandboxError, match="is taken"):
        lease(tmp_path, "bridge:n,ip=10.0.0.9", "b")
    with pytest.raises(SandboxError, match="is taken"):
        lease(tmp_path, "bridge:n,ip=10.0.0.1", "b")
    with pytest.raises(UsageError, match="is in no subnet"):
        lease(tmp_path, "bridge:n,ip=10.0.1.9", "b")


def test_networks_do_not_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither each other nor routes of the host; an end of the supply is said."""
    monkeypatch.setattr(pools, "_routes", lambda: [ipaddress.ip_network("10.119.1.0/25")])
    assert lease(tmp_path, "bridge:a", "a")["addresses"] == ["10.119.0.2"]
    assert lease(tmp_path, "bridge:b", "b")["addresses"] == ["10.119.2.2"]
    monkeypatch.setattr(pools, "_routes", lambda: [ipaddress.ip_network("10.0.0.0/8")])
    with pytest.raises(SandboxError, match="every subnet"):
        lease(tmp_path, "bridge:c", "c")


def test_links_have_names_that_the_kernel_takes(tmp_path: Path) -> None:
    """At most fifteen characters, for any names of sandbox and network, and distinct."""
    names = {link_of(str(tmp_path), name) for name in ("a", "b", "x" * 200)}
    assert len(names) == 3
    lease(tmp_path, "bridge:" + "n" * 64, "a")
    with Pool(str(tmp_path)) as pool:
        names.add(pool.networks()[0]["link"])
    assert max(map(len, names)) <= 15


def test_macvlan_without_a_subnet_has_no_address(tmp_path: Path) -> None:
    """There is no DHCP here."""
    assert lease(tmp_path, "macvlan:eth0", "a")["addresses"] == []


def test_ports_of_others_are_taken(tmp_path: Path) -> None:
    """The same number on another address or protocol is not."""
    [tcp] = parse(f"127.0.0.1:{free_port()}:1")
    lease(tmp_path, "bridge", "a", tcp)
    with pytest.raises(SandboxError, match="published by sandbox a"):
        lease(tmp_path, "bridge:other", "b", tcp._replace(address=""))
    lease(tmp_path, "bridge", "b", tcp._replace(protocol="udp"))
    [one] = parse(f"127.0.0.1:{free_port()}:1")
    with pytest.raises(UsageError, match="is duplicate"):
        lease(tmp_path, "bridge", "c", one, one._replace(container=2))


def test_rules_follow_from_records(tmp_path: Path) -> None:
    """None without a bridge; a guard and route_localnet only where loopback is published."""
    lease(tmp_path, "macvlan:eth0", "a")
    with Pool(str(tmp_path)) as pool:
        assert rules.chains(pool.networks()) == []
    lease(tmp_path, "bridge,internal", "b")
    with Pool(str(tmp_path)) as pool:
        chains = {chain.name: chain.rules for chain in rules.chains(pool.networks())}
    assert (len(chains["guard"]), len(chains["publish"]), len(chains["publish-local"])) == (0, 0, 0)
    lease(tmp_path, "bridge:out", "c", *parse(f"127.0.0.1:{free_port()}:80"))
    with Pool(str(tmp_path)) as pool:
        networks = pool.networks()
    chains = {chain.name: chain.rules for chain in rules.chains(networks)}
    assert (len(chains["guard"]), len(chains["publish"]), len(chains["publish-local"])) == (1, 0, 1)
    assert [rules.reaches_loopback(network) for network in networks] == [True, False, False]
