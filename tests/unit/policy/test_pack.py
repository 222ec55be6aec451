# SPDX-License-Identifier: Apache-2.0
"""policies/: complete, described, and cheap."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ringfence.abi import Action, EventKind
from ringfence.bpf.syscalls import names_of
from ringfence.errors import PolicyError
from ringfence.policy import NodeTiers, compile_policies, load_bytes, load_policies
from ringfence.policy.explain import cautions
from ringfence.policy.samples import meets
from ringfence.proof.benign_twins import event_of
from ringfence.response.detectors import DETECTORS
from tests.escape.cases import CASES, OPTIONAL, PACK, TECHNIQUES, cases_of
from tests.escape.tables import regenerated, rows_of

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "policies" / "README.md").read_text()
DEFAULT = load_policies([ROOT / "policies"])
EXTRA = load_policies([ROOT / "policies" / "optional"])
BOTH = [*DEFAULT.policies, *EXTRA.policies]
RULES = [rule for policy in BOTH for rule in policy.rules]
HOT = {"ioctl", "splice", "vmsplice", "tee"}


def test_the_pack_stops_nothing_until_it_is_told_to() -> None:
    """Audit by default, every file of it; one switch turns it."""
    assert all(policy.mode == "audit" for policy in BOTH)
    audit = compile_policies(DEFAULT, NodeTiers.usual())
    assert {rule.action for rule in audit.rules.values()} == {Action.ALERT}
    enforce = compile_policies(DEFAULT, NodeTiers.usual(), "enforce")
    assert {rule.action for rule in enforce.rules.values()} == {Action.ALERT, Action.KILL, Action.DENY}


def test_the_pack_holds_from_the_first_instruction() -> None:
    """For a container of which nothing is known yet."""
    compiled = compile_policies(DEFAULT, NodeTiers.usual())
    assert compiled.at_birth == frozenset(range(len(DEFAULT.policies)))


def test_every_policy_but_the_invariants_takes_exceptions_of_containers() -> None:
    """As the README says; `unidentified: apply` keeps what is said of the first instruction."""
    for file in sorted((ROOT / "policies").rglob("*.yaml")):
        text, every = file.read_text(), "    containers: all\n"
        assert text.count(every) == 1, file
        more = every + "    except: {namespaces: [kube-system]}\n    unidentified: apply\n"
        try:
            policies = load_bytes({file.name: text.replace(every, more).encode()}).policies
        except PolicyError:
            assert file.name == "invariants.yaml"
        else:
            assert all(policy.selector.but and policy.selector.at_birth for policy in policies)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_rule_says_what_it_is_for(rule: object) -> None:
    """A technique, a row of the checklist, a title that begins with its subject."""
    from ringfence.policy import Rule

    assert isinstance(rule, Rule)
    assert rule.attack
    assert any(re.fullmatch(r"escape \d+", reference) for reference in rule.references)
    subjects = ("A container ", "A process ", "A chrooted process ", "A 64-bit program ", "The kernel ")
    assert rule.title.startswith(subjects)


def test_the_checklist_has_63_rows_and_each_is_met() -> None:
    """By a rule or a detector."""
    assert [technique.row for technique in TECHNIQUES] == list(range(1, 64))
    by_rule = {row for rule in RULES for row in rows_of(rule)}
    by_detector = {row for detector in DETECTORS.values() for row in detector.rows}
    assert by_rule | by_detector == set(range(1, 64))


def test_every_row_has_an_attack_of_its_own() -> None:
    """And the tests of our own runtime that are named for it are there."""
    for technique in TECHNIQUES:
        assert cases_of(technique.row), technique
    for guard in {guard for technique in TECHNIQUES for guard in technique.guards}:
        file, _, name = guard.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), guard


def test_a_row_that_is_only_told_of_says_why() -> None:
    """Where no rule with an attack of the row stops it on some kernel."""
    for technique in TECHNIQUES:
        cases = cases_of(technique.row)
        everywhere = any(case.outcome in ("denied", "killed") for case in cases)
        by_hook = any(case.with_lsm in ("denied", "killed") for case in cases)
        assert (everywhere and by_hook) or technique.why, technique


def test_cases_and_references_agree() -> None:
    """A rule names every row that its attacks stand for, and so does a detector."""
    named = {rule.id: set(rows_of(rule)) for rule in RULES} | {
        detector.id: set(detector.rows) for detector in DETECTORS.values()
    }
    for case in CASES:
        assert set(case.rows) <= named[case.rule], case.id


#: what it finds is made in tests/kernel/test_watchdog.py: it is no escape, and has no row
WATCHDOG = "agent-tampered"


def test_every_rule_has_an_attack_and_a_twin() -> None:
    """A rule without them is one that nobody has seen work, or has seen spare anything."""
    assert {case.rule for case in (*PACK, *OPTIONAL)} == {rule.id for rule in RULES}
    for case in CASES:
        assert case.bundle or (case.attack and case.twin), case.id
    assert {case.rule for case in CASES if case.detector} == set(DETECTORS) - {WATCHDOG}


#: rules whose twin is no event of theirs, and why there is none that could be
NO_TWIN_OF_THE_EVENT = {
    "file-by-handle": "every such call is refused: the same file is opened by its name",
    "kernel-module": "every such call is refused: another one passes the same hook, capable",
    "kexec-load": "every such call is refused: another one passes the same hook, capable",
    "bpf-call": "every such call is refused: a filter is set in the old way",
    "io-uring": "every such call is refused: another one passes the same hook",
    "mount-new-api": "every such call is refused: a mount is taken and not cloned",
    "umount-call": "every such call is refused: the same mount is changed in how it spreads",
    "pivot-root": "every such call is refused: the root is changed in the way that is lawful",
    "cgroup-leave": "staying where one is: no event comes of it",
    "task-drift": "no event comes of a task that nobody changed",
    "host-loads-container-code": "the host's own file is mapped: no event comes of it",
    "host-symlink": "the event has the target, and the sample of it has the place",
}


def test_a_twin_is_the_nearest_lawful_thing() -> None:
    """It is an event of its rule, so that the rule could meet it; where that cannot be, it is said why."""
    rules = {rule.id: rule for rule in RULES}
    far = set()
    for case in (*PACK, *OPTIONAL):
        twin = event_of(case)
        if twin is None or twin.kind not in rules[case.rule].events:
            far.add(case.rule)
        elif case.twin_kind is None:
            assert not meets(rules[case.rule], twin), case.id
    assert far == set(NO_TWIN_OF_THE_EVENT)


def test_the_tables_of_the_readme_are_current() -> None:
    """Write them again: `python -m tests.escape.tables`."""
    assert regenerated(README) == README


def test_the_default_pack_attaches_to_no_hot_call() -> None:
    """ioctl and splice are paid for by every process of the node."""
    compiled = compile_policies(DEFAULT, NodeTiers.usual())
    assert not HOT & set(names_of(compiled.events))


def test_an_ordinary_open_leaves_by_what_is_cheap_to_know() -> None:
    """Of a file on an overlay that lies in a mount of the container's own, to read it: no rule is left when
    filesystem, access and mount are known, and the thread remembers that for the next open like it."""
    compiled = compile_policies(DEFAULT, NodeTiers.usual(), "enforce")
    table = compiled.events[EventKind.FILE_OPEN]

    def left(dim: int, value: int) -> int:
        """The rules that a number of the open leaves."""
        key = (EventKind.FILE_OPEN, dim, value & table.masks[dim])
        return compiled.sets[compiled.operands.get(key, table.other[dim])]

    overlay, regular = 0x794C7630, 0o100000
    assert left(0, overlay) & left(1, os.O_RDONLY) & left(2, regular) == 0
    assert left(2, regular | 1 << 16) != 0  # reached by a foreign mount


def test_rules_of_one_event_lie_in_one_word() -> None:
    """The kernel then tests the rules themselves at every step, and not only whether some word is left."""
    compiled = compile_policies(DEFAULT, NodeTiers.usual(), "enforce")
    for kind in (EventKind.FILE_OPEN, EventKind.SYS_SOCKET, EventKind.NET_CONNECT, EventKind.PROCESS_EXEC):
        words = {number // 64 for number, rule in compiled.rules.items() if kind in rule.events}
        assert len(words) == 1, kind


def test_stopping_is_never_decided_on_a_string_that_the_process_holds() -> None:
    """A rule that kills or denies may look at one only where there is nothing better; these are known."""
    known = {"userns-create", "runtime-socket", "shim-socket", "setuid-on-disk", "kubelet-api"}
    weak = {
        rule.id
        for rule in RULES
        if rule.action is not Action.ALERT and any("decided on a string" in text for text in cautions(rule))
    }
    assert weak <= known
