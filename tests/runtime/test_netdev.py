# SPDX-License-Identifier: Apache-2.0
"""linux.netDevices: an interface moves into the container with its addresses, and works there.

The runtime runs in a private network namespace, which has the host's role.
"""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.runtime.conftest import Box, Runtime
from tests.runtime.sandboxes import Host

pytestmark = pytest.mark.root


class Inside(Runtime):
    """The runtime in the test's network."""

    def __init__(self, runtime: Runtime, host: Host) -> None:
        super().__init__(runtime.executable, runtime.root)
        self.host = host

    def __call__(self, *words: str, capture: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [*self.host.enter(), str(self.executable), "--root", str(self.root), *words]
        options.setdefault("stdin", subprocess.DEVNULL)
        where = subprocess.PIPE if capture else subprocess.DEVNULL
        return subprocess.run(command, text=True, check=False, stdout=where, stderr=where, **options)


@pytest.fixture
def moved(box: Box, host: Host) -> Box:
    """A container that gets the host's `give`, a veth with addresses of several kinds."""
    lifetime = ("valid_lft", "600", "preferred_lft", "300")
    host("ip", "link", "add", "give", "type", "veth", "peer", "name", "other")
    host("ip", "link", "set", "other", "up")
    host("ip", "addr", "add", "198.51.100.7/24", "brd", "198.51.100.200", "dev", "give")
    host("ip", "addr", "add", "198.51.100.9/32", "peer", "198.51.100.10/32", "dev", "give")
    host("ip", "addr", "add", "169.254.9.9/16", "scope", "link", "dev", "give")
    host("ip", "-6", "addr", "add", "2001:db8::7/64", "nodad", "dev", "give")
    host("ip", "-6", "addr", "add", "2001:db8::8/64", "nodad", "dev", "give", *lifetime)
    host("ip", "link", "set", "give", "up")
    box.runtime = Inside(box.runtime, host)
    box.config["linux"]["netDevices"] = {"give": {}}
    return box


def shown(box: Box, name: str) -> list[str]:
    """Returns the words of `ip addr` for an interface in the container."""
    return box.args("/bin/ip", "addr", "show", "dev", name).output().split()


def test_it_moves_with_its_permanent_addresses_and_is_up(moved: Box, host: Host) -> None:
    """Global and permanent ones with broadcast and peer; neither link-local nor temporary ones."""
    words = shown(moved, "give")
    text = " ".join(words)
    assert "UP" in words[2].strip("<>").split(",")
    assert "inet 198.51.100.7/24 brd 198.51.100.200 scope global give" in text
    assert "inet 198.51.100.9 peer 198.51.100.10/32 scope global give" in text
    assert "inet6 2001:db8::7/64 scope global" in text
    assert "169.254" not in text
    assert "2001:db8::8" not in text
    assert "give" not in host.links()


def test_an_address_without_a_broadcast_has_none(moved: Box, host: Host) -> None:
    """None is invented."""
    host("ip", "addr", "flush", "dev", "give")
    host("ip", "addr", "add", "198.51.100.7/24", "dev", "give")
    assert "inet 198.51.100.7/24 scope global give" in " ".join(shown(moved, "give"))


@pytest.mark.parametrize(("new", "name"), [("renamed", "renamed"), ("net%d", "net0")])
def test_it_gets_the_configured_name(moved: Box, new: str, name: str) -> None:
    """A template gets a number from the kernel."""
    moved.config["linux"]["netDevices"] = {"give": {"name": new}}
    assert "198.51.100.7/24" in shown(moved, name)


def test_a_name_that_the_container_has_is_an_error(moved: Box, host: Host) -> None:
    """Reported before anything is moved; a template avoids it."""
    moved.config["linux"]["netDevices"] = {"give": {"name": "lo"}}
    message = moved.refused()
    assert "config: linux.netDevices.give: the container has an interface lo already" in message
    assert "give" in host.links()


def test_a_missing_interface_is_an_error(moved: Box) -> None:
    """With its place."""
    moved.config["linux"]["netDevices"] = {"nosuch": {}}
    assert "config: linux.netDevices.nosuch: there is no such interface" in moved.refused()


def test_an_interface_that_cannot_be_moved_is_an_error(moved: Box) -> None:
    """The kernel keeps some in their namespace; the error has its message."""
    moved.config["linux"]["netDevices"] = {"lo": {"name": "lo2"}}
    assert "config: linux.netDevices.lo: Invalid argument" in moved.refused()


def test_it_moves_into_a_namespace_that_is_joined(boxes: Any, moved: Box, host: Host) -> None:
    """Like a container of a pod."""
    pod = boxes().start()
    for item in moved.config["linux"]["namespaces"]:
        if item["type"] == "network":
            item["path"] = f"/proc/{pod.state()['pid']}/ns/net"
    assert "198.51.100.7/24" in shown(moved, "give")
    assert "198.51.100.7/24" in pod.exec("/bin/ip", "addr").stdout
    assert "give" not in host.links()
