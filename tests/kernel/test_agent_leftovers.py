# SPDX-License-Identifier: Apache-2.0
"""What an agent finds at its start: another agent's
incomplete pins, another build's pins, a full filesystem.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from ringfence.bpf import _libbpf
from ringfence.bpf.maps import MapType, create_map
from ringfence.bpf.pins import PinDirectory
from ringfence_linux import syscalls
from tests.escape.program import build, read_attempt
from tests.support import force
from tests.support.agent import Agent, pinned_agent
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.policies import PACK
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root

LABEL = "left"
RULE, ATTACK = "userns-create", ("unshare", "0x10000000")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An enforcing agent with pins of its own, not started."""
    force.need_root()
    with pinned_agent(tmp_path, policies=[PACK], patterns=[f"{PREFIX}{LABEL}*"]) as made:
        yield made


@contextmanager
def full(path: Path) -> Iterator[None]:
    """A bpffs that accepts nothing more; read-only is the closest available state."""
    subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(path)], check=True)


def base_of(agent: Agent) -> Path:
    """Returns the directory of the agent's pins."""
    return Path(agent.argv[agent.argv.index("--pins") + 1]) / "ringfence"


def kill(agent: Agent) -> None:
    """Send SIGKILL, and wait for the end of the agent."""
    os.kill(agent.pid, signal.SIGKILL)
    wait_for(lambda: agent.status is not None, "the end")


def stopped(cgroup: Cgroup) -> bool:
    """Make one attempt. Returns True if it was stopped."""
    done = cgroup.run([str(build()), *ATTACK], stdout=subprocess.PIPE, text=True)
    attempt = read_attempt(done.returncode, done.stdout)
    assert attempt.tried
    return attempt.killed or attempt.refused


def metric(agent: Agent, name: str, **labels: str) -> float:
    """Returns one sample."""
    return agent.metrics()[name, tuple(sorted(labels.items()))]


def names(agent: Agent) -> list[str]:
    """Returns the names of the pin directories."""
    return sorted(path.name for path in base_of(agent).iterdir())


@pytest.mark.parametrize("half", ["links only", "maps only", "unfinished"])
def test_an_incomplete_pin_directory_is_removed_when_the_next_agent_is_complete(
    agent: Agent, half: str
) -> None:
    """It is the only one: its programs decide until then, and not longer."""
    agent.start()
    kill(agent)
    (left,) = PinDirectory.all(base_of(agent))
    if half == "links only":
        shutil.rmtree(left.path / "maps")
    elif half == "maps only":
        shutil.rmtree(left.path / "links")
    else:
        left.path.rename(left.path.with_name(f"new-{left.name}"))
    with new_cgroup(LABEL) as cgroup:
        if half != "maps only":
            assert stopped(cgroup)
        agent.start()
        wait_for(
            lambda: len(names(agent)) == 1 and not names(agent)[0].endswith(left.name), "the old pins to go"
        )
        assert stopped(cgroup)
        agent.wait_alert(RULE, cgroup.name)


def test_pins_of_agents_killed_in_a_row_do_not_accumulate(agent: Agent) -> None:
    """Each is killed right after it has pinned. A cgroup holds at most 64 programs of one kind."""
    agent.start()
    with new_cgroup(LABEL) as cgroup:
        for _ in range(6):
            last = newest(agent)
            kill(agent)
            assert stopped(cgroup)
            agent.start(wait=False)
            wait_for(partial(is_newer, agent, last), "its pins")
            assert len(names(agent)) <= 4
        kill(agent)
        assert stopped(cgroup)
        agent.start()
        wait_for(lambda: len(names(agent)) == 1, "the old pins to go")
        wait_for(lambda: counted(agent) >= 2, "the gap to be reported")


def is_newer(agent: Agent, last: int) -> bool:
    """Returns True if the agent has pinned since."""
    return newest(agent) > last


def newest(agent: Agent) -> int:
    """Returns the number of the last directory of pins."""
    return max(int(name.removeprefix("new-").partition("-")[0]) for name in names(agent))


def counted(agent: Agent) -> float:
    """Returns the alerts of the rule that the agent counted."""
    samples = agent.metrics().items()
    return sum(
        v for (name, labels), v in samples if name == "ringfence_alerts_total" and ("rule", RULE) in labels
    )


def test_pins_of_a_newer_build_are_replaced_and_not_read(agent: Agent) -> None:
    """Tables of another shape, and another ABI: not
    read, removed in the end; the start does not fail.
    """
    agent.start()
    kill(agent)
    (left,) = PinDirectory.all(base_of(agent))
    (left.path / "abi").unlink()
    (left.path / "abi").symlink_to("99")
    for name, key, value in (
        ("tickets", 128, 8),
        ("processes", 4, 64),
        ("drops", 16, 16),
        ("generation", 4, 16),
    ):
        (left.path / "maps" / name).unlink()
        with create_map(MapType.HASH, name, key, value, 4) as strange:
            _libbpf.pin(strange.fd, str(left.path / "maps" / name))
    agent.start()
    with new_cgroup(LABEL) as cgroup:
        assert stopped(cgroup)
        agent.wait_alert(RULE, cgroup.name)
    wait_for(lambda: left.name not in names(agent), "the old pins to go")


def test_without_the_rule_file_no_wrong_rule_is_reported(agent: Agent) -> None:
    """Numbers continue from the kernel's: a record of the gap has no rule, and not a wrong one."""
    agent.start()
    with new_cgroup(LABEL) as cgroup:
        kill(agent)
        assert stopped(cgroup)
        (agent.directory / "state" / "rules.json").write_text('{"1": [')
        agent.start()
        alert = agent.wait_record(lambda one: one.get("kind") == "alert", "the alert of the gap")
        assert alert["rule"]["id"] in ("", "unknown")
        assert metric(agent, "ringfence_policy_generation") == 2


def test_enforcement_works_where_nothing_can_be_pinned(agent: Agent) -> None:
    """It is reported in the log, the status and a
    metric; what was pinned before is still taken over.
    """
    agent.start()
    kill(agent)
    with full(base_of(agent).parent):
        agent.start()
        with new_cgroup(LABEL) as cgroup:
            assert stopped(cgroup)
            agent.wait_alert(RULE, cgroup.name)
        assert metric(agent, "ringfence_pinned") == 0
        assert '"level": "error"' in agent.log.read_text()
        assert "enforcement ends with this agent" in agent.log.read_text()
        assert agent.stop() == 0
    agent.start()
    assert metric(agent, "ringfence_pinned") == 1


def test_a_task_that_left_its_cgroup_stays_restricted_across_restarts(agent: Agent) -> None:
    """Whether its container still exists or has only
    this task: two agents later its call is stopped.
    """
    agent.start()
    program = str(build())
    script = f"once() {{ read a; {program} {' '.join(ATTACK)} >/dev/null 2>&1; echo $?; }}; once; once"
    with new_cgroup(LABEL) as cgroup:
        left = cgroup.popen(
            ["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert left.stdin is not None
        assert left.stdout is not None
        wait_for(lambda: (Path(f"/proc/{left.pid}/comm").read_text()) == "sh\n", "the program")
        wait_for(lambda: metric(agent, "ringfence_armed_tasks") == 1, "it to be armed")
        for path in set(cgroup.paths.values()):
            (path.parent / "cgroup.procs").write_text(f"{left.pid}\n")
        kill(agent)
        agent.start()
        assert metric(agent, "ringfence_armed_tasks") == 1
        name = cgroup.name
        left.stdin.write("\n")
        left.stdin.flush()
        assert left.stdout.readline().strip() == str(128 + signal.SIGKILL)
        agent.wait_alert(RULE, name)
    kill(agent)  # its cgroup is removed; this task is all that is left of the container
    agent.start()
    assert metric(agent, "ringfence_armed_tasks") == 1
    before = len(agent.alerts(rule=RULE))
    left.stdin.write("\n")
    left.stdin.flush()
    assert left.stdout.readline().strip() == str(128 + signal.SIGKILL)
    wait_for(lambda: len(agent.alerts(rule=RULE)) > before, "its alert")
    left.stdin.close()
    left.wait()
    wait_for(lambda: metric(agent, "ringfence_capacity_used", of="containers") == 0, "its slot to be free")


def test_another_products_pins_are_kept(agent: Agent) -> None:
    """In the same bpffs, and in the agent's own directory a name that is not a number."""
    agent.start()
    kill(agent)
    other = base_of(agent).parent / "another-product"
    other.mkdir()
    with create_map(MapType.ARRAY, "foreign", 4, 4, 1) as foreign:
        _libbpf.pin(foreign.fd, str(other / "map"))
    agent.start()
    wait_for(lambda: len(names(agent)) == 1, "the old pins to go")
    assert (other / "map").exists()
    (other / "map").unlink()


def test_a_full_state_directory_does_not_stop_enforcement(agent: Agent, tmp_path: Path) -> None:
    """Neither rules, tickets nor runtime enrolments can
    be written: policies stay in force, alerts arrive.
    """
    state = tmp_path / "agent" / "state"
    state.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "full", str(state)], check=True)
    try:
        with suppress(OSError), open(state / "filler", "wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        agent.start()
        with new_cgroup(LABEL) as cgroup:
            assert stopped(cgroup)
            agent.wait_alert(RULE, cgroup.name)
            said = [json.loads(line)["message"] for line in agent.log.read_text().splitlines()]
            assert "the next agent will not know the rules of this one" in said
            kill(agent)
            assert stopped(cgroup)
            agent.start()
            wait_for(
                lambda: metric(agent, "ringfence_takeover_records_total", outcome="reported") >= 1, "the gap"
            )
            assert agent.stop() == 0
    finally:
        syscalls.umount2(str(state), syscalls.MNT_DETACH)
