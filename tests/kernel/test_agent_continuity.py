# SPDX-License-Identifier: Apache-2.0
"""An agent is killed repeatedly while a container attacks: each attack is stopped and counted."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.bpf.capabilities import NodeCapabilities
from tests.escape.program import build, read_attempt
from tests.support import force
from tests.support.agent import Agent, pinned_agent
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.policies import PACK
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root

LABEL = "cont"
KILLS = int(os.environ.get("RINGFENCE_KILLS", "5"))
#: rule -> the attack that it stops here: three by SIGKILL, three by cgroup-BPF
ATTACKS = {
    "userns-create": "unshare 0x10000000",
    "mount-call": "mount tmpfs",
    "bpf-call": "bpf 5",
    "block-device": "mknod b 259 1048575",
    "sysctl-hardening": "rewrite /proc/sys/kernel/randomize_va_space",
    "docker-tcp": "connect 127.0.0.1 2375",
}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An enforcing agent with all included policies and its own pins, not started."""
    force.need_root()
    with pinned_agent(tmp_path, policies=[PACK], patterns=[f"{PREFIX}{LABEL}*"]) as made:
        yield made


def attack(cgroup: Cgroup, rule: str) -> bool:
    """Make one attempt. Returns True if it was stopped.
    An attempt that could not be made is an error.
    """
    ended = cgroup.run([str(build()), *ATTACKS[rule].split()], stdout=subprocess.PIPE, text=True)
    attempt = read_attempt(ended.returncode, ended.stdout)
    assert attempt.tried, ended.stdout
    return attempt.killed or attempt.refused


class Attacker:
    """A thread that attacks from inside a cgroup, each
    kind in turn, for the time of the `with` block.
    """

    def __init__(self, cgroup: Cgroup, *, pause: float = 0.0) -> None:
        """`pause`: seconds between two attempts."""
        self._cgroup, self._pause = cgroup, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.stopped: Counter[str] = Counter()
        self.through: Counter[str] = Counter()

    def _run(self) -> None:
        for rule in itertools.cycle(ATTACKS):
            if self._stop.is_set():
                return
            (self.stopped if attack(self._cgroup, rule) else self.through)[rule] += 1
            self._stop.wait(self._pause)

    def round(self, what: str) -> None:
        """Wait until each kind was tried once more, from start to end."""
        enough = self.stopped.total() + len(ATTACKS) + 1
        wait_for(lambda: self.stopped.total() + self.through.total() >= enough, what)

    def __enter__(self) -> Attacker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(patience(60))


def kill(agent: Agent) -> None:
    """Send SIGKILL, and wait for the end of the agent."""
    os.kill(agent.pid, signal.SIGKILL)
    wait_for(lambda: agent.status is not None, "the end")


def counted(agent: Agent) -> Counter[str]:
    """Returns the alerts of these rules that this agent
    counted, including those of the gap before it.
    """
    found: Counter[str] = Counter()
    for (name, labels), value in agent.metrics().items():
        rule = dict(labels).get("rule", "")
        if name == "ringfence_alerts_total" and rule in ATTACKS:
            found[rule] += int(value)
    return found


def wait_counted(agent: Agent, attempts: Counter[str]) -> None:
    """Wait until this agent has counted at least these attempts."""
    wait_for(lambda: attempts <= counted(agent), "the attempts of the gap")


def taken_over(agent: Agent, outcome: str) -> float:
    """Returns the number of records that the previous agent left, by outcome."""
    return agent.metrics()["ringfence_takeover_records_total", (("outcome", outcome),)]


def test_no_attack_gets_through_a_series_of_kills(
    agent: Agent, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """In a loop of six kinds. `RINGFENCE_KILLS=100` gives the figure of the docs."""
    agent.start()
    with new_cgroup(LABEL) as cgroup, Attacker(cgroup) as attacker:
        for _ in range(KILLS):
            attacker.round("attacks under an agent")
            kill(agent)
            before = attacker.stopped.copy()
            attacker.round("attacks without one")
            between = attacker.stopped - before
            agent.start()
            wait_counted(agent, between)
    record_testsuite_property("kills", KILLS)
    record_testsuite_property("attacks stopped", attacker.stopped.total())
    assert not attacker.through
    assert attacker.stopped.total() >= 2 * len(ATTACKS) * KILLS


def test_each_attempt_is_counted_once_by_the_next_agent(agent: Agent) -> None:
    """Including those of the gap, and those that both agents saw during the takeover."""
    agent.start()
    with new_cgroup(LABEL) as cgroup:
        kill(agent)
        # Nobody reads the old ring until the end of the overlap. A flood would fill it; that is
        # counted, and another test covers it.
        with Attacker(cgroup, pause=0.02) as attacker:
            attacker.round("attacks without an agent")
            agent.start()
            wait_for(lambda: '"taken over"' in agent.log.read_text(), "the end of the overlap")
        wait_for(lambda: counted(agent) == attacker.stopped, "each attempt once")
    assert not attacker.through
    assert taken_over(agent, "reported") >= len(ATTACKS)
    # At an LSM hook the older program refuses first, and the younger one does not run.
    assert taken_over(agent, "duplicate") > 0 or NodeCapabilities.detect().lsm_hooks
    assert (taken_over(agent, "unreadable"), taken_over(agent, "dropped")) == (0, 0)


def test_attempts_without_a_running_agent_are_reported_with_names(agent: Agent) -> None:
    """Rule, place, container: also of a container that was created and removed in between."""
    agent.start()
    with new_cgroup(LABEL) as old:
        kill(agent)
        assert attack(old, "userns-create")
        with new_cgroup(LABEL) as young:
            assert attack(young, "userns-create")
        agent.start()
        for name in (old.name, young.name):
            alert = agent.wait_alert("userns-create", name)
            assert alert["outcome"] in ("killed", "denied")
            assert alert["rule"]["file"].endswith("namespaces.yaml")


def test_an_open_fail_mode_ends_enforcement_with_an_orderly_stop_only(agent: Agent) -> None:
    """After SIGKILL enforcement continues. After SIGTERM it ends."""
    agent.argv += ["--fail-mode", "open"]
    agent.start()
    with new_cgroup(LABEL) as cgroup:
        kill(agent)
        assert attack(cgroup, "userns-create")
        agent.start()
        assert agent.stop() == 0
        wait_for(lambda: not attack(cgroup, "userns-create"), "the end of enforcement")


def test_leftovers_do_not_prevent_a_start(agent: Agent, tmp_path: Path) -> None:
    """Half a pin directory, a directory of another kind, another product's, and half a rule file."""
    agent.start()
    kill(agent)
    base, other = tmp_path / "bpf" / "ringfence", tmp_path / "bpf" / "another-product"
    (base / "00000090-1" / "maps").mkdir(parents=True)
    (base / "zz").mkdir()
    other.mkdir()
    (agent.directory / "state" / "rules.json").write_text('{"1": [')
    agent.start()
    with new_cgroup(LABEL) as cgroup:
        assert attack(cgroup, "userns-create")
        agent.wait_alert("userns-create", cgroup.name)
    wait_for(lambda: [path.name[:8] for path in base.iterdir()] == ["00000091"], "the old pins to go")
    assert other.is_dir()
