# SPDX-License-Identifier: Apache-2.0
"""A container that has a descriptor of one of the agent's links, by whatever way it got it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.bpf import _libbpf
from ringfence.bpf.capabilities import NodeCapabilities
from tests.kernel.probes import results
from tests.kernel.tamper import TAMPER, Target, target_of
from tests.kernel.test_self_defence import POLICY
from tests.support import force
from tests.support.cgroups import new_cgroup

pytestmark = pytest.mark.root
BPF = 321  # the number of bpf(2) on x86-64
LINK_UPDATE, LINK_DETACH = 29, 34  # enum bpf_cmd


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """An agent that defends itself."""
    node = NodeCapabilities.detect()
    if not node.lsm_hooks:
        force.no_lsm(node.lsm_lack)
    directory = tmp_path_factory.mktemp("links")
    policies = directory / "policies"
    policies.mkdir()
    (policies / "policy.yaml").write_text(POLICY)
    with target_of(policies, directory) as made:
        yield made


@pytest.mark.parametrize("command", [LINK_UPDATE, LINK_DETACH], ids=["update", "detach"])
def test_a_link_is_not_changed_by_its_descriptor(target: Target, act: str, command: int) -> None:
    """The agent could not hold the kernel to anything without its links."""
    pins = target.state_of_things().pins
    fd = _libbpf.get_pinned(str(target.a_link))
    # the first byte of union bpf_attr is the descriptor; what is missing counts as zero
    call = f"sys:{BPF}:{command}:={chr(fd)}:1"
    try:
        with new_cgroup("victim") as cgroup:
            done = cgroup.run([act, call], capture_output=True, pass_fds=(fd,))
            assert results(done) == {"sys": -errno.EPERM}, done
            alert = target.agent.wait_record(
                lambda record: record["kind"] == "alert" and record["container"].get("id") == cgroup.name,
                "an alert",
            )
    finally:
        os.close(fd)
    assert (alert["outcome"], alert["rule"]["id"]) == ("denied", TAMPER)
    assert target.state_of_things().pins == pins


def test_a_descriptor_of_no_link_of_the_agents_is_its_own_matter(
    target: Target, act: str, tmp_path: Path
) -> None:
    """The kernel answers, and not the agent."""
    with open(tmp_path / "file", "w") as file, new_cgroup("victim") as cgroup:
        call = f"sys:{BPF}:{LINK_DETACH}:={chr(file.fileno())}:1"
        done = cgroup.run([act, call], capture_output=True, pass_fds=(file.fileno(),))
    assert results(done) == {"sys": -errno.EINVAL}, done
