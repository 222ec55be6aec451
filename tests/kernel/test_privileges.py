# SPDX-License-Identifier: Apache-2.0
"""The capabilities that the agent needs, found by running it with fewer of them.

With those of ringfence.bpf.privileges it does all its work, and without any one of them a named
function fails.

As in a pod, tracefs and a bpffs are mounted externally (here in a mount namespace of the test).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from ringfence.bpf.privileges import NEEDED, Privilege, lacking
from tests.support.agent import Agent
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("setpriv", "unshare")]

ROOT = Path(__file__).resolve().parents[2]
MOUNTS = "mount -t tracefs tracefs /sys/kernel/tracing; mount -t bpf bpf /sys/fs/bpf; "


def limited(argv: Iterable[str], names: Iterable[str]) -> list[str]:
    """Returns the command, run as root with only these capabilities and with a pod's mounts."""
    bounding = ",".join(["-all", *(f"+{name.lower()}" for name in names)])
    drop = f'exec setpriv --inh-caps=-all --bounding-set={bounding} -- "$@"'
    return ["unshare", "-m", "--", "sh", "-ec", MOUNTS + drop, "sh", *argv]


def new_agent(directory: Path, names: Iterable[str]) -> Agent:
    """An agent with the project's policies and these capabilities."""
    agent = Agent(directory, policies=[ROOT / "policies"], flags={"pins": "auto"})
    agent.argv = limited(agent.argv, names)
    return agent


def names_without(left_out: Privilege | None = None) -> list[str]:
    """Returns the list without one capability."""
    return [one.name for one in NEEDED if one is not left_out]


def test_with_the_needed_capabilities_the_agent_works_fully(tmp_path: Path) -> None:
    """Ready, pinned, a sysctl denied or an attack
    killed, and the alert has the container's posture.
    """
    agent = new_agent(tmp_path / "agent", names_without())
    try:
        agent.start()
        with new_cgroup("caps") as cgroup:
            name = cgroup.name
            ended = cgroup.run(["unshare", "-U", "true"], capture_output=True)
            assert ended.returncode != 0
            alert = agent.wait_alert("userns-create", name)
            assert alert["outcome"] in ("denied", "killed")
            assert agent.metrics()["ringfence_ready", ()] == 1
        log = agent.tail(20_000)
        assert "not attached" not in log
        assert "assumed" not in log
    finally:
        assert agent.stop() == 0


@pytest.mark.parametrize("privilege", [one for one in NEEDED if one.vital], ids=lambda one: str(one.name))
def test_without_a_vital_capability_it_does_not_start_and_names_it(
    tmp_path: Path, privilege: Privilege
) -> None:
    """Two lines and an exit code; no partly working agent."""
    agent = new_agent(tmp_path / "agent", names_without(privilege))
    agent.start(wait=False)
    try:
        assert wait_for(lambda: agent.status, "the agent to give up") == 4
        assert f"CAP_{privilege.name}" in agent.tail()
    finally:
        agent.stop()


def test_without_ptrace_it_reports_its_assumption(tmp_path: Path) -> None:
    """Using its own mount namespace as the host's is a guess, and every guess is reported."""
    ptrace = next(one for one in NEEDED if one.name == "SYS_PTRACE")
    agent = new_agent(tmp_path / "agent", names_without(ptrace))
    try:
        agent.start()
        assert "/proc/1/ns/mnt cannot be read" in agent.tail(20_000)
    finally:
        assert agent.stop() == 0


KILL = """
import sys
from ringfence_linux.procfs import TICK_NS, start_ticks
from ringfence.response.kill import kill_process
pid = int(sys.argv[1])
print(kill_process(pid, start_ticks(pid) * TICK_NS, "test").outcome)
"""


@pytest.mark.parametrize(("held", "outcome"), [(True, "killed"), (False, "failed")])
def test_only_with_cap_kill_it_kills_processes_of_other_users(
    cgroup: Cgroup, held: bool, outcome: str
) -> None:
    """A process of user 1000 in a container."""
    kill = next(one for one in NEEDED if one.name == "KILL")
    victim = cgroup.popen(["setpriv", "--reuid=1000", "--clear-groups", "sleep", "600"])
    try:
        status = Path(f"/proc/{victim.pid}/status")
        wait_for(lambda: "Uid:\t1000" in status.read_text(), "the change of user")
        argv = [sys.executable, "-c", KILL, str(victim.pid)]
        done = subprocess.run(
            limited(argv, names_without(None if held else kill)), capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == outcome
    finally:
        victim.kill()
        victim.wait()


def test_probe_names_the_missing_capabilities(tmp_path: Path) -> None:
    """The same list in readable form."""
    kill = next(one for one in NEEDED if one.name == "KILL")
    argv = [sys.executable, "-m", "ringfence", "probe", "-o", "json", "--policies", str(ROOT / "policies")]
    done = subprocess.run(limited(argv, names_without(kill)), capture_output=True, text=True, check=True)
    rows = {row["capability"]: row["held"] for row in json.loads(done.stdout)["capabilities"]}
    assert rows == {f"CAP_{one.name}": "no" if one is kill else "yes" for one in NEEDED}


def test_sys_admin_includes_the_capabilities_split_from_it() -> None:
    """As in the kernel since 5.8: bpf_capable(), perfmon_capable(), and net_admin for BPF."""
    assert {one.name for one in lacking({21})} == {"SYS_PTRACE", "KILL"}
    assert not lacking({one.number for one in NEEDED})
