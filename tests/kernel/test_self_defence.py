# SPDX-License-Identifier: Apache-2.0
"""Attacks on the agent from a container with all capabilities and the host's processes and mounts.

Where BPF-LSM decides each is refused without effect. Elsewhere the attacker is killed where its
target is certain, and each attempt is reported. docs/explanation/self-defence.md has the table.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ringfence.bpf.capabilities import NodeCapabilities
from tests.kernel.tamper import DENIED, KILLED, LOOKS, NAME, SEEN, TAMPER, Target, attack, target_of
from tests.support import force
from tests.support.cgroups import new_cgroup
from tests.support.policies import one_rule
from tests.support.waiting import process_state, wait_for

pytestmark = pytest.mark.root
#: has nothing to do with the attacks, so only the self-defence can stop them
POLICY = one_rule(
    "other-matters",
    "{id: other, title: x, severity: low, attack: [T1082], event: personality, match: any, action: alert}",
)
WHO_PROCESS, WHO_PGRP = 1, 2  # of ioprio_set


class Attack(NamedTuple):
    """`words` for fixtures/tamper.c. `calls`: the outcome without BPF-LSM, and the rule."""

    id: str
    words: Callable[[Target], list[object]]
    calls: tuple[str, str] = (KILLED, TAMPER)
    lsm: tuple[str, str] = (DENIED, TAMPER)
    late: bool = False  # without BPF-LSM it is recognised by its effect, which was undone


def _proc(name: str) -> Callable[[Target], list[object]]:
    return lambda t: ["open", f"/proc/{t.pid}/{name}", os.O_RDONLY]


def _process(word: str, *more: object) -> Callable[[Target], list[object]]:
    return lambda t: [word, t.pid, *more]


_LOOKED, _SEEN = (SEEN, LOOKS), (SEEN, NAME)
ATTACKS = (
    Attack("SIGSTOP", _process("signal", int(signal.SIGSTOP))),
    Attack("SIGCONT", _process("signal", int(signal.SIGCONT))),
    Attack("SIGSTOP by pidfd", _process("pidfd-signal", int(signal.SIGSTOP))),
    Attack("SIGSTOP to its process group", lambda t: ["signal", -t.pid, int(signal.SIGSTOP)]),
    Attack("SIGSTOP by F_SETOWN and F_SETSIG", _process("sigio", int(signal.SIGSTOP)), lsm=(DENIED, TAMPER)),
    Attack("prlimit", _process("limit")),
    Attack("setpriority", _process("nice")),
    Attack("setpriority of all of root's", lambda t: ["nice-user", 0]),
    Attack("sched_setscheduler", _process("scheduler")),
    Attack("sched_setaffinity", _process("affinity")),
    Attack("ioprio_set", _process("ioprio", WHO_PROCESS)),
    Attack("ioprio_set of its process group", _process("ioprio", WHO_PGRP)),
    Attack("oom_score_adj", lambda t: ["write", f"/proc/{t.pid}/oom_score_adj", "1000"]),
    Attack("ptrace", _process("seize")),
    Attack("process_vm_readv", lambda t: ["vm-read", t.pid, t.address]),
    Attack("pidfd_getfd", _process("getfd")),
    Attack("ptrace of another thread", lambda t: ["seize", t.thread]),
    Attack("process_vm_readv by another thread", lambda t: ["vm-read", t.thread, t.address]),
    Attack("prlimit of another thread", lambda t: ["limit", t.thread]),
    Attack("pidfd_getfd by another thread", lambda t: ["getfd", t.thread]),
    Attack("/proc/PID/mem", _proc("mem")),
    Attack("/proc/PID/environ", _proc("environ"), calls=_LOOKED, lsm=(DENIED, LOOKS)),
    Attack("/proc/PID/maps", _proc("maps"), calls=_LOOKED, lsm=(DENIED, LOOKS)),
    Attack("move it into a frozen cgroup", lambda t: ["freeze", t.pid, *t.cgroups]),
    Attack("freeze its cgroup", lambda t: ["open", t.home_freezer, os.O_WRONLY]),
    Attack("take processes out of its cgroup", lambda t: ["open", t.home / "cgroup.procs", os.O_WRONLY]),
    Attack("a map by its id", lambda t: ["by-id", "map", t.map_id]),
    Attack("a program by its id", lambda t: ["by-id", "prog", t.program_id]),
    Attack("a link by its id", lambda t: ["by-id", "link", t.link_id]),
    Attack("a map by its pin", lambda t: ["by-pin", t.pins / "maps/generation"]),
    # no hook refuses that: the attacker is killed after the call
    Attack("a link by its pin", lambda t: ["by-pin", t.a_link], lsm=(KILLED, TAMPER)),
    Attack("unlink a pin", lambda t: ["unlink", t.pins / "maps/slots"], late=True),
    Attack("unlink a pin, by its directory", lambda t: ["unlink", f"{t.pins}/maps/./tasks"]),
    Attack("rename the pins", lambda t: ["rename", t.pins, t.pins.with_name("x")], late=True),
    # elsewhere only its effect is seen, by the watchdog, which cannot attribute it
    Attack("rename what leads to them", lambda t: ["rename", t.agent.directory, f"{t.agent.directory}.x"],
           calls=("", "")),
    Attack("rename a file over the rule book", lambda t: ["rename", t.bait(), t.state / "rules.json"],
           late=True),
    Attack("unmount the pins", lambda t: ["umount", t.pins.parents[1]], calls=_SEEN),
    Attack("write the rule book", lambda t: ["open", t.state / "rules.json", os.O_WRONLY]),
    Attack("truncate the rule book", lambda t: ["truncate", t.state / "rules.json", 0], late=True),
    Attack("remove the rule book", lambda t: ["unlink", t.state / "rules.json"], late=True),
    Attack("chmod the rule book", lambda t: ["chmod", t.state / "rules.json", "666"], late=True),
    Attack("fchmod the rule book", lambda t: ["fchmod", t.state / "rules.json", "644"]),
    Attack("chown the rule book", lambda t: ["chown", t.state / "rules.json"], late=True),
    Attack("read the ticket", lambda t: ["open", t.state / "ticket", os.O_RDONLY]),
    Attack("link the ticket elsewhere", lambda t: ["link", t.state / "ticket", f"{t.agent.directory}.t"],
           late=True),
    Attack("make a directory in its state", lambda t: ["mkdir", t.state / "more"], calls=_SEEN),
    Attack("add a policy", lambda t: ["open", t.policies / "mine.yaml", os.O_WRONLY | os.O_CREAT]),
    Attack("connect to agent.sock", lambda t: ["connect", t.agent.socket, '{"op": "status"}\n'],
           calls=(DENIED, TAMPER)),
    Attack("connect to enroll.sock", lambda t: ["connect", t.agent.socket.with_name("enroll.sock"), "{}"],
           calls=(DENIED, TAMPER)),
    Attack("SIGKILL", _process("signal", int(signal.SIGKILL))),
)  # fmt: skip


@pytest.fixture(scope="module")
def hooked() -> bool:
    """True if BPF-LSM decides here."""
    force.need_root()
    return bool(NodeCapabilities.detect().lsm_hooks)


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of policies."""
    directory = tmp_path_factory.mktemp("policies")
    (directory / "policy.yaml").write_text(POLICY)
    return directory


@pytest.fixture(scope="module")
def target(policies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """An agent in a cgroup and a process group of its own, with pins; restarted if it was killed."""
    with target_of(policies, tmp_path_factory.mktemp("self")) as made:
        yield made


@pytest.mark.parametrize("one", ATTACKS, ids=lambda one: one.id)
def test_an_attack_on_the_agent_is_stopped_or_reported(
    one: Attack, target: Target, tamper: str, *, hooked: bool
) -> None:
    """Refused without effect where hooks decide;
    otherwise reported with the container that did it.
    """
    outcome, rule = one.lsm if hooked else one.calls
    if not rule:
        force.elsewhere("nothing but BPF-LSM sees it")
    target.revive()
    # elsewhere the agent may still be about to undo the attack before
    before, pid = target.state_of_things() if hooked else None, target.pid
    with new_cgroup("victim") as cgroup:
        target.cgroups = [cgroup.paths[kind] for kind in ("freezer", "v2") if kind in cgroup.paths]
        done = attack(cgroup, tamper, *one.words(target))
        if one.id == "pidfd_getfd by another thread" and done.result == -errno.EINVAL:
            force.elsewhere("this kernel has no pidfd of a thread (6.9)")
        # before anything of the agent is waited for: it may be frozen by now
        assert hooked or one.late or outcome != KILLED or done.killed, done
        assert hooked is False or process_state(target.pid) not in "Tt"
        if hooked is False and one.id == "SIGKILL":
            wait_for(lambda: target.agent.status is not None, "its end")
            target.revive()  # the next agent reports what this one could not report before its end
        os.kill(target.pid, signal.SIGCONT)
        alert = target.agent.wait_record(
            lambda record: record["kind"] == "alert" and record["container"].get("id") == cgroup.name,
            "an alert",
        )
    assert (alert["outcome"], alert["rule"]["id"]) == (outcome, rule), alert
    assert alert["event"] == "agent.tamper"
    assert alert["details"]["agent"] == pid
    if hooked:
        assert done.killed or done.refused or (outcome == DENIED and one.id.startswith("SIGSTOP by F_")), done
        assert target.state_of_things() == before
    elif one.late:
        wait_for(target.is_complete, "the changes to be corrected")
