# SPDX-License-Identifier: Apache-2.0
"""One container floods: the flood is counted for
it, others' alerts arrive, lost state is recovered.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import EventKind
from ringfence.cli.client import request
from ringfence.proof.program import REFUSED
from tests.escape.program import build
from tests.support import force
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.policies import PACK
from tests.support.waiting import busy, patience, wait_for

pytestmark = pytest.mark.root

LABEL = "flood"
FORKS = "i=0; while :; do i=$((i+1)); /bin/true; done"
#: child cgroups of one container; the figure of the docs is 50,000
CHILDREN = int(os.environ.get("RINGFENCE_CHILDREN", "3000"))
THREADS = """
import threading, time
threading.stack_size(1 << 16)
for number in range(14_000):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
time.sleep(600)
"""
#: short sleeps, each a process: alive long enough to be missing from the tree when their forks are
#: lost
SLEEPS = "for i in $(seq 400); do sleep 600 & done; wait"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent that allows each container little activity."""
    force.need_root()
    flags = {"activity-rate": "20", "activity-burst": "20", "containers-adopt": "yes"}
    with running_agent(
        tmp_path_factory.mktemp("agent"), policies=[PACK], patterns=[f"{PREFIX}{LABEL}*"], flags=flags
    ) as made:
        yield made


@contextlib.contextmanager
def inside(cgroup: Cgroup, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run something in a cgroup for the time of a `with` block."""
    process = cgroup.popen(list(argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def is_stopped(cgroup: Cgroup) -> bool:
    """Returns True if making a user namespace there is
    stopped: killed, or refused where BPF-LSM decides.
    """
    status = cgroup.run([str(build()), "unshare", "0x10000000"], stdout=subprocess.DEVNULL).returncode
    return status in (-signal.SIGKILL, REFUSED)


def lost(agent: Agent, cgroup: Cgroup) -> float:
    """Returns the records of that container that its own rate limit dropped."""
    labels = (("container", cgroup.name), ("reason", "rate_limit"))
    return agent.metrics().get(("ringfence_container_events_dropped_total", labels), 0.0)


def test_a_flood_is_counted_for_the_container_that_caused_it(agent: Agent) -> None:
    """Its total stays when the container and its slot are gone."""
    total = ("ringfence_events_dropped_total", (("event", "process.fork"), ("reason", "rate_limit")))
    with new_cgroup(LABEL) as quiet, new_cgroup(LABEL) as loud, inside(quiet, "sleep", "600"):
        with inside(loud, "/bin/sh", "-c", FORKS):
            wait_for(lambda: lost(agent, loud) > 200, "losses of the loud one")
        assert lost(agent, quiet) == 0
        before = agent.metrics()[total]
    wait_for(lambda: lost(agent, loud) == 0, "the end of its series")
    assert agent.metrics()[total] >= before > 0


def test_after_a_loss_the_processes_are_read_again(agent: Agent) -> None:
    """400 live processes, most of their forks dropped:
    `tree` has all of them, and the loss is reported.
    """

    def known(cgroup: Cgroup) -> int:
        (tree,) = request(agent.socket, "tree", containers=[cgroup.name])
        # not their programs: if a fork was reported and the exec dropped, the tree has the shell
        return len(tree["processes"]) + int(tree["more"])

    with new_cgroup(LABEL) as cgroup, inside(cgroup, "/bin/sh", "-c", SLEEPS):
        wait_for(lambda: len(cgroup.pids()) > 400, "the processes to start")
        assert lost(agent, cgroup) > 0
        wait_for(lambda: known(cgroup) >= 400, "the tree to know them")
    assert agent.metrics()["ringfence_repairs_total", (("what", "processes"),)] >= 1
    assert "records of processes were lost: read again from the kernel" in agent.log.read_text()


def connects(agent: Agent) -> int:
    """Returns the refused connects of all containers:
    reported by the kernel, or dropped and counted.
    """
    samples = agent.metrics()
    event = ("event", EventKind.NET_CONNECT.label)
    held = [("rate_limit", 0.0), ("ring_full", 0.0)]
    lost = sum(
        samples.get(("ringfence_events_dropped_total", (event, ("reason", reason))), none)
        for reason, none in held
    )
    return int(samples["ringfence_events_total", (event,)] + lost)


def test_alerts_of_others_arrive_while_one_container_floods(agent: Agent) -> None:
    """One container is refused tens of thousands of times a second. Each alert of
    another is on time, and each refusal was reported or counted as dropped, exactly.
    """
    program, before = str(build()), connects(agent)
    storm = [program, "storm", "3000", "127.0.0.1", "2375"]
    with new_cgroup(LABEL) as loud:
        processes = [loud.popen(storm, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        wait_for(lambda: agent.alerts(loud.name), "the storm")
        for number in range(20):
            with new_cgroup(f"{LABEL}-{number}") as one:
                assert is_stopped(one)
                agent.wait_alert("userns-create", one.name)
        refused = sum(int(process.communicate()[0].split()[-1]) for process in processes)
        wait_for(lambda: connects(agent) - before == refused, f"{refused} refusals, reported or counted")
    delays = [alert["latency_us"] / 1000 for alert in agent.alerts(rule="userns-create")]
    assert len(delays) == 20
    # Where other work loads the machine as well, one or two may wait for a CPU.
    assert sorted(delays)[-3] < patience(50) * busy()
    assert refused > 30_000


def test_many_cgroups_of_one_container_do_not_affect_others(tmp_path: Path) -> None:
    """With two slots: another container is still enrolled and
    restricted, also by an agent that starts in the middle.
    """
    force.need_root()
    flags = {"containers-adopt": "yes", "containers-max": "2"}
    agent = Agent(tmp_path / "agent", policies=[PACK], patterns=[f"{PREFIX}{LABEL}*"], flags=flags)
    agent.start()
    try:
        with new_cgroup(LABEL) as loud, inside(loud, "sleep", "600"):
            for number in range(CHILDREN):
                (loud.path / f"c{number}").mkdir()
            for _ in range(2):
                with new_cgroup(LABEL) as other:
                    assert is_stopped(other)
                    agent.wait_alert("userns-create", other.name)
                wait_for(lambda: used(agent) == 1, "the slot of the other one to be free")
                assert agent.stop() == 0
                agent.start()
            assert used(agent) == 1
            assert (
                "ringfence_events_dropped_total",
                (("event", "cgroup.mkdir"), ("reason", "table_full")),
            ) not in (agent.metrics())
    finally:
        agent.stop()


def used(agent: Agent) -> float:
    """Returns the used slots of the kernel's table."""
    return agent.metrics()["ringfence_capacity_used", (("of", "containers"),)]


def test_an_agent_at_its_cpu_limit_reduces_activity_and_reports_it(tmp_path: Path) -> None:
    """With a twentieth of a CPU, and a container whose activity needs more:
    the activity rate is reduced, this is visible, and an alert is reported.
    """
    force.need_root()
    flags = {"containers-adopt": "yes", "activity-rate": "100000", "activity-burst": "100000"}
    with new_cgroup(f"{LABEL}room") as room:
        for name, value in (("cpu.cfs_quota_us", "5000"), ("cpu.max", "5000 100000")):
            path = next((path / name for path in room.paths.values() if (path / name).exists()), None)
            if path is not None:
                path.write_text(value)
        agent = Agent(tmp_path / "agent", policies=[PACK], patterns=[f"{PREFIX}{LABEL}-*"], flags=flags)
        agent.argv = room.command(agent.argv, armed=False)
        agent.start(wait=False)
        try:
            wait_for(lambda: ready(agent), "the agent to be ready with little CPU", seconds=120)
            with new_cgroup(LABEL) as loud, inside(loud, "/bin/sh", "-c", FORKS):
                wait_for(lambda: metric(agent, "ringfence_activity_halvings"), "the rate to go down")
                wait_for(lambda: metric(agent, "ringfence_agent_cpu_limit") == 0.05, "its limit")
                throttled = "ringfence_agent_throttled_seconds_total"
                wait_for(lambda: metric(agent, throttled), "it to be throttled")
                with new_cgroup(LABEL) as other:
                    assert is_stopped(other)
                    agent.wait_alert("userns-create", other.name, seconds=60)
            assert '"message": "the rate of activity was changed"' in agent.log.read_text()
        finally:
            agent.stop(60)


def test_unlimited_threads_do_not_exhaust_the_agents_memory(tmp_path: Path) -> None:
    """Where the agent may use 120 MiB, a container may have 12,112 tasks. Above
    that it is killed and reported, and no task of another container is missed.
    """
    force.need_root()
    with new_cgroup(f"{LABEL}room") as room:
        for name in ("memory.limit_in_bytes", "memory.max"):
            path = next((path / name for path in room.paths.values() if (path / name).exists()), None)
            if path is not None:
                path.write_text(f"{120 << 20}")
        agent = Agent(tmp_path / "agent", policies=[PACK], patterns=[f"{PREFIX}{LABEL}-*"])
        agent.argv = room.command(agent.argv, armed=False)
        agent.start()
        try:
            with new_cgroup(LABEL) as loud, new_cgroup(LABEL) as other:
                bomb = loud.popen([sys.executable, "-c", THREADS], stdout=subprocess.DEVNULL)
                assert bomb.wait(timeout=patience(60)) == -signal.SIGKILL
                alert = agent.wait_alert("agent-tamper", loud.name)
                assert alert["outcome"] == "killed"
                assert alert["details"]["what"] == "tasks"
                assert alert["details"]["tasks"] == 12112
                assert is_stopped(other)
                agent.wait_alert("userns-create", other.name)
            full = ("ringfence_events_dropped_total", (("event", "process.fork"), ("reason", "table_full")))
            assert full not in agent.metrics()
        finally:
            agent.stop()


def ready(agent: Agent) -> bool:
    """Returns True if the agent reports that it is ready."""
    with contextlib.suppress(OSError):
        return agent.get("/readyz")[0] == 200
    return False


def metric(agent: Agent, name: str) -> float:
    """Returns one sample; 0 where the agent has no time to answer."""
    with contextlib.suppress(OSError):
        return agent.metrics()[name, ()]
    return 0.0
