# SPDX-License-Identifier: Apache-2.0
"""Networks after kill -9 at each step: links, rules, addresses and ports are all removed."""

from __future__ import annotations

import signal

import pytest

from tests.runtime.sandboxes import UPLINK, Host, Sandboxes
from tests.runtime.test_run_life import killed_at
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root

STEPS = (
    "ringfence.sandbox.network.pool:Pool.save",
    "ringfence.sandbox.network.attach:lease",
    "ringfence.sandbox.network.attach:Helper.attach",
    "ringfence_runtime.launch.parent:create",
    "ringfence_runtime.launch.parent:Launched.start",
    "ringfence.sandbox.network.links:_bridge",
    "ringfence.sandbox.network.links:_cable",
    "ringfence.sandbox.network.links:_configure",
    "ringfence.sandbox.network.attach:release",
    "ringfence.sandbox.network.attach:delete_link",
    "ringfence.sandbox.network.attach:delete_table",
)


@pytest.mark.long
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_nothing_is_left_of_a_start_that_was_killed(
    sandboxes: Sandboxes, host: Host, step: str, after: bool
) -> None:
    """The next command sweeps; the port and the name are free again."""
    host.forward(True)
    name = sandboxes.name()
    status = killed_at(sandboxes, step, name, "--network", "bridge", "-p", "8080:80", after=after)
    assert status == -signal.SIGKILL
    wait_for(lambda: not sandboxes.listed("--all"), "it to be swept")
    assert sandboxes.left() == []
    assert host.links() == {"lo", UPLINK}
    assert host.tables() == set()
    got = sandboxes("run", *sandboxes.named("-p", "8080:80", name=name), str(sandboxes.rootfs), "true")
    assert got.returncode == 0, got.stderr


def test_a_killed_sandbox_does_not_affect_a_running_one(sandboxes: Sandboxes, host: Host) -> None:
    """The sweep after it keeps the other's bridge, rules and address."""
    host.forward(True)
    runs = sandboxes.detached("-p", "8080:80")
    before = host("nft", "list", "ruleset")
    step = "ringfence_runtime.launch.parent:Launched.start"
    assert killed_at(sandboxes, step, sandboxes.name(), "-p", "8081:80", after=False) == -signal.SIGKILL
    assert host("nft", "list", "ruleset") != before
    wait_for(lambda: set(sandboxes.listed("--all")) == {runs}, "the other to be swept")
    assert host("nft", "list", "ruleset") == before
    assert len(host.links()) == 4  # lo, the uplink, the bridge, one veth


def test_a_bridge_that_was_deleted_by_hand_is_made_again(sandboxes: Sandboxes, host: Host) -> None:
    """A missing part is no error at removal."""
    first = sandboxes.detached("--network", "bridge,internal")
    bridge = next(link for link in host.links() if link.startswith("rfb"))
    host("ip", "link", "delete", bridge)
    host("nft", "flush", "ruleset")
    second = sandboxes.detached("--network", "bridge,internal")
    address = sandboxes.listed()[second]["addresses"][0]
    host("busybox", "ping", "-c1", "-W3", address)
    assert sandboxes("rm", "-f", first, second).returncode == 0
    assert host.links() == {"lo", UPLINK}
