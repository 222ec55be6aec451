# SPDX-License-Identifier: Apache-2.0
"""The node's own addresses, from the files of a process of the host's network namespace."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.containers.host_addresses import Addresses, _read, node_addresses
from ringfence.policy.operand import Network

ROUTES = """\
Main:
  +-- 0.0.0.0/0 3 0 4
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.1.0.0/16 2 0 2
        |-- 10.1.0.0
           /16 link UNICAST
        |-- 10.1.2.3
           /32 host LOCAL
        |-- 10.1.255.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
"""
INTERFACES = """\
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000002 02 40 00 80     eth0
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of a node with one address of each family."""
    net = tmp_path / "1/net"
    net.mkdir(parents=True)
    (net / "fib_trie").write_text(ROUTES)
    (net / "if_inet6").write_text(INTERFACES)
    return tmp_path


def test_every_address_but_the_loopback(proc: Path) -> None:
    """Neither networks nor broadcast; IPv4 in the clothes of IPv6, too."""
    mapped = bytes(10) + b"\xff\xff" + bytes((10, 1, 2, 3))
    assert node_addresses(proc) == {
        Network(4, bytes((10, 1, 2, 3)), 32),
        Network(6, mapped, 128),
        Network(6, bytes.fromhex("fd000000000000000000000000000002"), 128),
    }


def test_a_node_of_which_nothing_can_be_read_has_none(tmp_path: Path) -> None:
    """And rules that ask for them match nothing."""
    assert node_addresses(tmp_path) == frozenset()


def test_a_change_is_reported_once(proc: Path) -> None:
    """Also when an address goes; not before it is time to look again."""
    addresses = Addresses(proc)
    (proc / "1/net/if_inet6").write_text("")
    assert not addresses.changed()
    assert addresses.changed(every=0)
    assert not addresses.changed(every=0)
    assert {network.family for network in addresses.now if network.prefix == 32} == {4}


def test_this_machine_can_be_asked() -> None:
    """What is read here is what the kernel writes; loopback, which is left out, any machine has."""
    assert any(address.is_loopback for address in _read(Path("/proc")))
    assert all(network.prefix == 8 * len(network.address) for network in node_addresses())
