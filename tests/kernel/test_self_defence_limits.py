# SPDX-License-Identifier: Apache-2.0
"""What the self-defence does not restrict, its audit mode, and what outlives its agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.bpf.capabilities import NodeCapabilities
from tests.escape.program import build, read_attempt
from tests.kernel.tamper import LABEL, TAMPER, Target, attack, target_of
from tests.kernel.test_self_defence import POLICY
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.policies import USERNS
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A directory of policies."""
    force.need_root()
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "policy.yaml").write_text(POLICY)
    return directory


@pytest.fixture
def target(policies: Path, tmp_path: Path) -> Iterator[Target]:
    """An agent that defends itself."""
    with target_of(policies, tmp_path) as made:
        yield made


def test_root_of_the_host_is_not_restricted(target: Target, tamper: str) -> None:
    """A process outside of containers is not restricted: not refused, not killed, not reported."""
    with new_cgroup("ordinary") as cgroup:
        for words in (
            ("signal", target.pid, int(signal.SIGCONT)), ("limit", target.pid), ("nice", target.pid),
            ("open", f"/proc/{target.pid}/environ", os.O_RDONLY),
            ("open", target.state / "rules.json", os.O_WRONLY),
            ("open", target.state / "ticket", os.O_RDONLY),
            ("connect", target.agent.socket, '{"op": "status"}\n'),
            ("by-pin", target.pins / "maps" / "generation"),
        ):  # fmt: skip
            assert attack(cgroup, tamper, *words).result == 0, words
    status = [sys.executable, "-m", "ringfence", "status", "--socket", str(target.agent.socket)]
    assert subprocess.run(status, capture_output=True, check=False).returncode == 0
    # By now the watchdog may have reported that limits were changed, without an author, and
    # restored them.
    assert {alert["rule"]["id"] for alert in target.agent.alerts()} <= {"agent-tampered"}


def test_a_container_may_make_these_calls_on_its_own_processes(target: Target, tamper: str) -> None:
    """The calls are ordinary ones; only the agent as a target is not allowed."""
    with new_cgroup(LABEL) as cgroup:
        child = cgroup.popen(["sleep", "600"])
        try:
            for words in (
                ("signal", child.pid, int(signal.SIGCONT)), ("limit", child.pid), ("nice", child.pid),
                ("scheduler", child.pid), ("open", f"/proc/{child.pid}/environ", os.O_RDONLY),
                ("write", f"/proc/{child.pid}/oom_score_adj", "0"),
                ("open", f"/proc/{target.pid}/status", os.O_RDONLY),
            ):  # fmt: skip
                assert attack(cgroup, tamper, *words).result == 0, words
        finally:
            child.kill()
            child.wait()
    assert [(alert["rule"]["id"], alert["details"]) for alert in target.agent.alerts()] == []


@pytest.mark.parametrize("how", ["alert", "off"])
def test_without_enforcement_nothing_is_refused(
    how: str, policies: Path, tmp_path: Path, tamper: str
) -> None:
    """`self_defence: alert` reports what would have been
    done; `off` loads no program and reports nothing.
    """
    with target_of(policies, tmp_path, **{"self-defence": how}) as target, new_cgroup(LABEL) as cgroup:
        for words in (("signal", target.pid, int(signal.SIGCONT)), ("limit", target.pid)):
            assert attack(cgroup, tamper, *words) == (False, 0)
        guards = [path for path in (target.pins / "links").iterdir() if "guard" in path.name]
        if how == "off":
            assert not guards
            assert [(alert["rule"]["id"], alert["details"]) for alert in target.agent.alerts()] == []
            return
        hooked = bool(NodeCapabilities.detect().lsm_hooks)
        alert = target.agent.wait_alert(TAMPER, cgroup.name)
        assert alert["outcome"] == ("would-deny" if hooked else "would-kill")
        assert guards


def userns(cgroup: Cgroup, *before: str) -> bool:
    """Returns True if the policy's attack was stopped."""
    argv = [*before, str(build()), "unshare", "0x10000000"]
    done = cgroup.run(argv, stdout=subprocess.PIPE, text=True)
    attempt = read_attempt(done.returncode, done.stdout)
    assert attempt.tried or done.returncode in (-9, 137), done
    return attempt.killed or attempt.refused or done.returncode in (-9, 137)


def test_a_process_with_the_pid_of_a_killed_agent_is_restricted(
    policies: Path, tmp_path: Path, tamper: str
) -> None:
    """Pinned programs identify their agent by more
    than its pid: any process can get that by clone3.
    """
    (policies / "policy.yaml").write_text(USERNS)
    with target_of(policies, tmp_path) as target, new_cgroup(LABEL) as cgroup:
        number = target.pid
        os.kill(number, signal.SIGKILL)
        wait_for(lambda: target.agent.status is not None, "its end")
        assert userns(cgroup)
        assert userns(cgroup, tamper, "as", str(number))
