# SPDX-License-Identifier: Apache-2.0
"""Tables that are not as the agent wrote them decide for the worst; a condemned container does nothing."""

from __future__ import annotations

import signal

import pytest

from ringfence import abi
from ringfence.abi import EventKind
from tests.kernel.probes import LABEL, Probes, results, run, running
from tests.kernel.rules import Rule
from tests.support.cgroups import Cgroup, new_cgroup

pytestmark = pytest.mark.root
NEWUTS, NEWIPC = 0x4000000, 0x8000000
NO_SET = 1 << 20
KILLS = Rule(EventKind.SYS_UNSHARE, "kill", {0: {NEWUTS}})


def u32(number: int) -> bytes:
    """An index, a slot, the number of a set."""
    return number.to_bytes(4, "little")


def test_a_container_whose_set_is_missing_has_all_rules(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Its profile names a set that is not there. Without a container's rules there is no verdict."""
    generation = probes.enforce(KILLS)
    half, slots = generation % abi.GENERATIONS, probes.kernel.map("slots")
    place = u32(probes.slot(cgroup) * abi.GENERATIONS + half)
    probes.kernel.map("rule_sets").set(u32(100 * abi.GENERATIONS + half), bytes(abi.RULESET.size))
    for number, killed in ((100, False), (NO_SET, True)):
        slots.writer.set(abi.WRITE_PROFILES, place, u32(number), 1)
        assert (run(cgroup, act, f"unshare:{NEWUTS}").returncode == -signal.SIGKILL) is killed
        assert results(run(cgroup, act, f"unshare:{NEWIPC}")) == {"unshare": 0}
    slots.writer.set(abi.WRITE_PROFILES, place, u32(0), 1)


def test_a_value_whose_set_is_missing_matches_every_rule(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The set of values that no rule names is not there."""
    generation = probes.enforce(KILLS)
    index = u32(int(EventKind.SYS_UNSHARE) * abi.GENERATIONS + generation % abi.GENERATIONS)
    events = probes.kernel.map("rule_events")
    rules, dims, first, *rest = abi.EVENT_RULES.unpack(events.get(index) or b"")
    assert results(run(cgroup, act, f"unshare:{NEWIPC}")) == {"unshare": 0}
    assert first != NO_SET
    events.set(index, abi.EVENT_RULES.pack(rules, dims, NO_SET, *rest))
    assert run(cgroup, act, f"unshare:{NEWIPC}").returncode == -signal.SIGKILL


def test_no_exception_holds_for_a_value_whose_set_is_missing(
    probes: Probes, cgroup: Cgroup, act: str
) -> None:
    """The set would have said which exceptions the value has."""
    holds = Rule(EventKind.SYS_UNSHARE, clears=0, operands={0: {NEWIPC}})
    generation = probes.enforce(Rule(EventKind.SYS_UNSHARE, "kill"), holds)
    index = u32(int(EventKind.SYS_UNSHARE) * abi.GENERATIONS + generation % abi.GENERATIONS)
    events = probes.kernel.map("rule_events")
    rules, dims, _, *rest = abi.EVENT_RULES.unpack(events.get(index) or b"")
    events.set(index, abi.EVENT_RULES.pack(rules, dims, NO_SET, *rest))
    assert results(run(cgroup, act, f"unshare:{NEWIPC}")) == {"unshare": 0}
    assert run(cgroup, act, f"unshare:{NEWUTS}").returncode == -signal.SIGKILL


def test_an_event_whose_set_is_missing_is_killed(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """It has rules, and they are not known."""
    generation = probes.enforce(KILLS)
    index = u32(int(EventKind.SYS_UNSHARE) * abi.GENERATIONS + generation % abi.GENERATIONS)
    events = probes.kernel.map("rule_events")
    _, *rest = abi.EVENT_RULES.unpack(events.get(index) or b"")
    events.set(index, abi.EVENT_RULES.pack(NO_SET, *rest))
    assert run(cgroup, act, f"unshare:{NEWIPC}").returncode == -signal.SIGKILL


def test_rules_beyond_the_first_words_decide(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """The last of 2,500 rules that match one event denies; the others only alert."""
    alerts = [Rule(EventKind.SYS_UNSHARE, operands={0: {NEWUTS}}) for _ in range(2500)]
    probes.enforce(*alerts, KILLS)
    assert run(cgroup, act, f"unshare:{NEWUTS}").returncode == -signal.SIGKILL


@pytest.mark.parametrize("lsm", [True, False], ids=["lsm", "calls"])
def test_a_condemned_container_is_killed_at_any_call(act: str, *, lsm: bool) -> None:
    """Without a rule; another container is not, nor the next one in its slot."""
    with running(lsm=lsm) as probes, new_cgroup(LABEL) as cgroup, new_cgroup(LABEL) as other:
        assert results(run(cgroup, act, f"unshare:{NEWUTS}")) == {"unshare": 0}
        assert probes.kernel.map("condemned").get_int(0) == 0
        for _ in range(2):  # counted once
            probes.kernel.map("slots").writer.set(abi.WRITE_CONDEMNED, u32(probes.slot(cgroup)), b"", 1)
        assert probes.kernel.map("condemned").get_int(0) == 1
        assert run(cgroup, act, f"unshare:{NEWUTS}").returncode == -signal.SIGKILL
        assert results(run(other, act, f"unshare:{NEWUTS}")) == {"unshare": 0}
        probes.kernel.map("slots").set(probes.slot(cgroup), bytes(abi.CONTAINER.size))
        assert probes.kernel.map("condemned").get_int(0) == 0
