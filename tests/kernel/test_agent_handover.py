# SPDX-License-Identifier: Apache-2.0
"""Pod after pod of an agent that fails, or is killed as it starts: the pinned programs keep
deciding.

Each pod is a container of its own, in a cgroup of its own: the previous agent's pinned programs
restrict it until it shows a ticket. An attacker tries without a pause, in another container.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ringfence.bpf.capabilities import mounts_of
from ringfence_linux import syscalls
from tests.escape.program import build, read_attempt
from tests.support import force
from tests.support.agent import Agent
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.policies import PACK
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root

LABEL, POD = "hand", "handpod"
ATTACK = ("unshare", "0x10000000")
BROKEN = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: broken}\nspec: {}\n"
#: a start is killed after each of these milliseconds; RINGFENCE_STARTS=all takes every 50
STEPS = range(0, 2000, 50 if os.environ.get("RINGFENCE_STARTS") == "all" else 250)


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    """A bpffs of the node, which every pod sees."""
    force.need_root()
    path = tmp_path / "bpf"
    path.mkdir()
    subprocess.run(["mount", "-t", "bpf", "pins", str(path)], check=True)
    yield path
    shutil.rmtree(path / "ringfence", ignore_errors=True)
    syscalls.umount2(str(path), syscalls.MNT_DETACH)
    assert str(path) not in mounts_of("bpf")


class Pods:
    """The DaemonSet: one pod after the other, on one state directory and one bpffs."""

    def __init__(self, directory: Path, pins: Path) -> None:
        self.directory, self.pins = directory, pins
        self.policies = directory / "policies"
        self.policies.mkdir()
        for path in PACK.rglob("*.yaml"):
            (self.policies / path.name).write_text(path.read_text())

    def agent(self, home: Cgroup) -> Agent:
        """Returns the next agent, in its own cgroup and mounts."""
        made = Agent(
            self.directory / "agent", policies=[self.policies], patterns=[f"{PREFIX}hand*"],
            flags={"pins": str(self.pins), "containers-adopt": "yes"},
        )  # fmt: skip
        made.argv = home.command(made.argv)
        return made


@pytest.fixture
def pods(tmp_path: Path, pins: Path) -> Pods:
    """No pod has run yet."""
    return Pods(tmp_path, pins)


class Attacker:
    """Attacks without a pause for the time of a `with` block."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup, self._stop = cgroup, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.stopped = self.through = 0

    def _run(self) -> None:
        while not self._stop.is_set():
            done = self._cgroup.run([str(build()), *ATTACK], stdout=subprocess.PIPE, text=True)
            attempt = read_attempt(done.returncode, done.stdout)
            assert attempt.tried, done
            if attempt.killed or attempt.refused:
                self.stopped += 1
            else:
                self.through += 1

    def __enter__(self) -> Attacker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(patience(60))


def has_ended(agent: Agent) -> bool:
    """Returns True if the agent's process has ended."""
    return agent.status is not None


def is_past(moment: float) -> bool:
    """Returns True if that time (of time.monotonic) has passed."""
    return time.monotonic() >= moment


def end(agent: Agent) -> None:
    """Send SIGKILL, as the kubelet finally does."""
    if agent.status is None:
        os.kill(agent.pid, signal.SIGKILL)
    wait_for(partial(has_ended, agent), "its end")


def test_a_policy_with_a_mistake_ends_no_enforcement(pods: Pods) -> None:
    """Three pods in a row do not start; the next one, with
    the corrected policy, takes over with a remaining ticket.
    """
    with new_cgroup(LABEL) as target, new_cgroup(POD) as home:
        first = pods.agent(home)
        first.start()
        with Attacker(target) as attacker:
            (pods.policies / "zz-broken.yaml").write_text(BROKEN)
            end(first)
            for _ in range(3):
                with new_cgroup(POD) as next_home:
                    failing = pods.agent(next_home)
                    failing.start(wait=False)
                    wait_for(partial(has_ended, failing), "it to fail")
                    assert failing.status == 2
                    assert "zz-broken.yaml" in failing.tail()
            (pods.policies / "zz-broken.yaml").unlink()
            with new_cgroup(POD) as last_home:
                last = pods.agent(last_home)
                last.start()
                assert "no ticket" not in last.log.read_text()
                tried = attacker.stopped
                wait_for(lambda: attacker.stopped > tried + 2, "attacks under it")
                assert last.stop() == 0
    assert attacker.through == 0
    assert attacker.stopped > 5


def test_a_killed_start_loses_neither_pins_nor_the_next_ticket(pods: Pods) -> None:
    """Killed at each moment of its start, repeatedly:
    no attack succeeds, and every pod has a ticket.
    """
    with new_cgroup(LABEL) as target, new_cgroup(POD) as home:
        first = pods.agent(home)
        first.start()
        with Attacker(target) as attacker:
            end(first)
            for milliseconds in STEPS:
                with new_cgroup(POD) as next_home:
                    cut = pods.agent(next_home)
                    cut.start(wait=False)
                    deadline = time.monotonic() + milliseconds / 1000
                    wait_for(partial(is_past, deadline), "the moment")
                    end(cut)
            with new_cgroup(POD) as last_home:
                last = pods.agent(last_home)
                last.start()
                assert "no ticket" not in last.log.read_text()
                assert last.stop() == 0
    assert attacker.through == 0
    assert attacker.stopped > 5
