# SPDX-License-Identifier: Apache-2.0
"""The real agent where BPF-LSM decides: from a policy file to EPERM and an alert, and back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.bpf.capabilities import NodeCapabilities
from tests.support import force
from tests.support.agent import Agent
from tests.support.cgroups import Cgroup
from tests.support.hooks import hook_mechanism
from tests.support.scenes import agent_fixture, cgroup_fixture
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root
LABEL = "lsmagent"
RULES = """
    - id: test-secret
      title: A container opens the secret
      severity: high
      event: file.open
      match: {name: secret}
      action: deny
      require: deny
"""
POLICY = """
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: test}
spec:
  selector: {containers: all}
  mode: enforce
  rules:
    - id: test-mount
      title: A container mounts a tmpfs
      severity: high
      event: mount
      match: {fstype: tmpfs}
      action: deny
      require: deny
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A directory with one policy."""
    force.need_root()
    node = NodeCapabilities.detect()
    if not node.lsm_hooks:
        force.no_lsm(node.lsm_lack)
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "test.yaml").write_text(POLICY + RULES)
    return directory


agent = agent_fixture(LABEL)
cgroup = cgroup_fixture(LABEL, after="agent")


def read(cgroup: Cgroup, path: Path) -> subprocess.CompletedProcess[str]:
    """Run `cat` on a file in the container."""
    return cgroup.run(["cat", str(path)], capture_output=True, text=True)


def test_a_policy_denies_until_it_is_removed(
    agent: Agent, cgroup: Cgroup, policies: Path, tmp_path: Path
) -> None:
    """The call fails and the process lives; the alert has
    the mechanism. Without the rule the call succeeds.
    """
    secret = tmp_path / "secret"
    secret.write_text("readable\n")
    refused = read(cgroup, secret)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Operation not permitted" in refused.stderr
    alert = agent.wait_alert("test-secret", seconds=10)
    assert (alert["action"], alert["mechanism"]) == ("deny", hook_mechanism().label)
    mount = cgroup.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True)
    assert mount.returncode != 0
    assert agent.wait_alert("test-mount", seconds=10)["mechanism"] == hook_mechanism().label
    (policies / "test.yaml").write_text(POLICY)
    wait_for(lambda: read(cgroup, secret).stdout == "readable\n", "the file to be readable again")
    assert cgroup.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True).returncode != 0


def test_probe_names_the_hooks(policies: Path) -> None:
    """The effective mechanism of each event and rule; none is missing."""
    done = subprocess.run(
        [sys.executable, "-m", "ringfence", "probe", "-o", "json", "--policies", str(policies)],
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=True,
    )
    report = json.loads(done.stdout)
    events = {row["event"]: row for row in report["events"]}
    assert events["mount"]["here"] == "deny"
    assert events["mount"]["by"].split(":")[0] == report["node"]["hook_mechanism"] == hook_mechanism().label
    assert "sb_mount" in events["mount"]["by"]
    assert {row["here"] for row in report["rules"]} == {"deny"}
