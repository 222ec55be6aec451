# SPDX-License-Identifier: Apache-2.0
"""The kernel is switched to preempt itself while the agent runs: noticed, reported, and no call passes.

The machine's own kernel is not switched: there the agent reads a file that is a fake of debugfs. In a
virtual machine without `bpf` in lsm= it is the kernel's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.abi import Mechanism
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.preemption import Preemption, find
from tests.kernel.test_agent_handover import Attacker, Pods, pins, pods
from tests.support import force
from tests.support.agent import Agent
from tests.support.cgroups import new_cgroup
from tests.support.waiting import wait_for

__all__ = ["pins", "pods"]

pytestmark = pytest.mark.root
LABEL, POD = "hand", "handpod"
DEBUGFS = Path("/sys/kernel/debug/sched/preempt")
#: the agent, with a directory that it takes for debugfs, and looks each second
WRAPPER = """
import sys
from ringfence.bpf import preemption
from ringfence.daemon import agent
from ringfence.cli.main import main
preemption._MOUNTED, agent._LOOK = sys.argv[1], 1.0
sys.argv[1:2] = []
sys.exit(main())
"""


@pytest.fixture
def debugfs(tmp_path: Path) -> Path:
    """A fake of the file sched/preempt."""
    file = tmp_path / "debug/sched/preempt"
    file.parent.mkdir(parents=True)
    file.write_text("none (voluntary) full\n")
    return file


def wrapped(agent: Agent, debugfs: Path) -> Agent:
    """Returns the same agent, which reads the fake."""
    at = agent.argv.index("-m")
    agent.argv[at : at + 2] = ["-c", WRAPPER, str(debugfs.parents[1])]
    return agent


def starts(agent: Agent) -> int:
    """Returns how often it was ready."""
    return agent.log.read_text().count('"message": "ready"')


@pytest.mark.parametrize("pod", [False, True], ids=["host", "pod"])
def test_a_switch_is_reported_and_the_agent_starts_again(pods: Pods, debugfs: Path, *, pod: bool) -> None:
    """The same process, without a gap; back again without an alert."""
    if NodeCapabilities.detect().hook_mechanism is not Mechanism.HOOK and force.in_guest():
        force.elsewhere("BPF-LSM decides, which is never skipped")
    preempting = replace(NodeCapabilities.detect(), preemption=Preemption.FULL)
    skipped = "killed" if preempting.backstop else "passes"
    with new_cgroup(LABEL) as target, new_cgroup(POD) as home:
        agent = wrapped(pods.agent(home), debugfs)
        if not pod:
            agent.argv = agent.argv[agent.argv.index("-c") - 1 :]
        agent.start()
        try:
            with Attacker(target) as attacker:
                debugfs.write_text("none voluntary (full)\n")
                alert = agent.wait_alert("preemption-changed")
                wait_for(lambda: starts(agent) == 2, "the second start")
                tried = attacker.stopped
                wait_for(lambda: attacker.stopped > tried + 2, "attacks under the second")
                facts = node_info(agent)
                debugfs.write_text("none (voluntary) full\n")
                wait_for(lambda: starts(agent) == 3, "the third start")
                tried = attacker.stopped
                wait_for(lambda: attacker.stopped > tried + 2, "attacks under the third")
            assert agent.status is None
            assert (attacker.through, len(agent.alerts(rule="preemption-changed"))) == (0, 1)
            assert (alert["details"]["before"], alert["details"]["now"]) == ("voluntary", "full")
            assert (facts["when_skipped"], node_info(agent)["when_skipped"]) == (skipped, "never")
            assert "no ticket" not in agent.log.read_text()
        finally:
            assert agent.stop() == 0


def node_info(agent: Agent) -> dict[str, str]:
    """Returns the labels of the node's facts."""
    [labels] = (dict(labels) for name, labels in agent.metrics() if name == "ringfence_node_info")
    return labels


@pytest.fixture
def switch(in_a_machine: None) -> Iterator[Path]:
    """The kernel's own file, restored."""
    if NodeCapabilities.detect().hook_mechanism is not Mechanism.HOOK:
        force.elsewhere("BPF-LSM decides, which is never skipped")
    if find().may_skip:
        force.elsewhere("this kernel preempts itself as it boots")
    before = str(find())
    yield DEBUGFS
    DEBUGFS.write_text(before)


def test_a_kernel_that_is_switched_gets_backstops(pods: Pods, switch: Path) -> None:
    """Within a minute, by the usual interval."""
    with new_cgroup(LABEL) as target, new_cgroup(POD) as home:
        agent = pods.agent(home)
        agent.start()
        try:
            before = node_info(agent)
            with Attacker(target) as attacker:
                switch.write_text("full")
                agent.wait_alert("preemption-changed", seconds=60)
                wait_for(lambda: starts(agent) == 2, "the second start")
                tried = attacker.stopped
                wait_for(lambda: attacker.stopped > tried + 2, "attacks under the second")
            assert attacker.through == 0
            after = node_info(agent)
            assert (before["tier"], before["when_skipped"]) == ("hook", "never")
            assert (after["tier"], after["when_skipped"]) == ("hook", "killed")
        finally:
            assert agent.stop() == 0
