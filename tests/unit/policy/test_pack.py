# SPDX-License-Identifier: Apache-2.0
"""The bundled policies: complete, documented, and cheap."""

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
from ringfence.policy.samples import rule_matches
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
HOT = {"splice", "vmsplice", "tee"}


def test_the_pack_only_audits_by_default() -> None:
    """Every file is in audit mode; one override changes it."""
    assert all(policy.mode == "audit" for policy in BOTH)
    audit = compile_policies(DEFAULT, NodeTiers.usual())
    assert {rule.action for rule in audit.rules.values()} == {Action.ALERT}
    enforce = compile_policies(DEFAULT, NodeTiers.usual(), "enforce")
    assert {rule.action for rule in enforce.rules.values()} == {Action.ALERT, Action.KILL, Action.DENY}


def test_the_pack_applies_from_the_first_instruction() -> None:
    """It applies to a container about which nothing is known yet."""
    compiled = compile_policies(DEFAULT, NodeTiers.usual())
    assert compiled.at_birth == frozenset(range(len(DEFAULT.policies)))


def test_every_policy_but_the_invariants_can_exclude_containers() -> None:
    """As the README documents; with `unidentified: apply` it still applies from the first instruction."""
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
def test_every_rule_is_documented(rule: object) -> None:
    """It has a technique, a row of the checklist, and a title that starts with its subject."""
    from ringfence.policy import Rule

    assert isinstance(rule, Rule)
    assert rule.attack
    assert any(re.fullmatch(r"escape \d+", reference) for reference in rule.references)
    subjects = ("A container ", "A process ", "A chrooted process ", "A 64-bit program ", "The kernel ")
    assert rule.title.startswith(subjects)


def test_each_row_of_the_checklist_is_covered() -> None:
    """Each row has a rule or a detector."""
    rows = range(1, len(TECHNIQUES) + 1)
    assert [technique.row for technique in TECHNIQUES] == list(rows)
    by_rule = {row for rule in RULES for row in rows_of(rule)}
    by_detector = {row for detector in DETECTORS.values() for row in detector.rows}
    assert by_rule | by_detector == set(rows)


def test_every_row_has_an_attack() -> None:
    """The tests of ringfence-runtime that a row names exist, too."""
    for technique in TECHNIQUES:
        assert cases_of(technique.row), technique
    for guard in {guard for technique in TECHNIQUES for guard in technique.guards}:
        file, _, name = guard.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), guard


def test_a_row_that_is_only_reported_gives_the_reason() -> None:
    """This applies if, on some kernel, no rule stops the row's attacks."""
    for technique in TECHNIQUES:
        cases = cases_of(technique.row)
        everywhere = any(case.outcome in ("denied", "killed") for case in cases)
        by_hook = any(case.with_lsm in ("denied", "killed") for case in cases)
        assert (everywhere and by_hook) or technique.why, technique


def test_cases_and_references_agree() -> None:
    """A rule or detector names every row of its attacks."""
    named = {rule.id: set(rows_of(rule)) for rule in RULES} | {
        detector.id: set(detector.rows) for detector in DETECTORS.values()
    }
    for case in CASES:
        assert set(case.rows) <= named[case.rule], case.id


#: not escapes, so they have no row: tests/kernel/test_watchdog.py, test_preemption_switch.py
OF_THE_NODE = {"agent-tampered", "preemption-changed"}


def test_every_rule_has_an_attack_and_a_twin() -> None:
    """Without them, nobody has seen the rule match an attack, or not match a legitimate action."""
    assert {case.rule for case in (*PACK, *OPTIONAL)} == {rule.id for rule in RULES}
    for case in CASES:
        assert case.bundle or (case.attack and case.twin), case.id
    assert {case.rule for case in CASES if case.detector} == set(DETECTORS) - OF_THE_NODE


#: rules whose benign twin is not an event of the rule, and the reason
NO_TWIN_OF_THE_EVENT = {
    "file-by-handle": "every such call is denied: the twin opens the same file by its name",
    "kernel-module": "every such call is denied: the twin is another call with the same hook, capable",
    "swap-space": "every such call is denied: the twin is another call with the same hook, capable",
    "process-accounting": "every such call is denied: the twin is another call with the same hook, capable",
    "process-control": "the twin reads a file that the kernel checks less for, from the same process",
    "process-object-foreign": "the twin opens what the process itself holds",
    "kexec-load": "every such call is denied: the twin is another call with the same hook, capable",
    "bpf-call": "every such call is denied: the twin sets a classic filter",
    "io-uring": "every such call is denied: the twin is another call with the same hook",
    "mount-new-api": "every such call is denied: the twin opens a mount without cloning it",
    "umount-call": "every such call is denied: the twin changes the propagation of the same mount",
    "pivot-root": "every such call is denied: the twin changes the root by a legitimate call",
    "cgroup-leave": "the twin stays in its cgroup, which gives no event",
    "task-drift": "an unchanged task gives no event",
    "host-loads-container-code": "the twin maps a file of the host, which gives no event",
    "host-symlink": "the event has the link's target, the sample has its location",
}


def test_a_twin_is_the_nearest_legitimate_action() -> None:
    """It is an event of its rule, so that the rule could match it; otherwise there is a reason."""
    rules = {rule.id: rule for rule in RULES}
    far = set()
    for case in (*PACK, *OPTIONAL):
        twin = event_of(case)
        if twin is None or twin.kind not in rules[case.rule].events:
            far.add(case.rule)
        elif case.twin_kind is None:
            assert not rule_matches(rules[case.rule], twin), case.id
    assert far == set(NO_TWIN_OF_THE_EVENT)


def test_the_tables_of_the_readme_are_current() -> None:
    """`python -m tests.escape.tables` rewrites them."""
    assert regenerated(README) == README


def test_the_default_pack_attaches_to_no_hot_call() -> None:
    """A program on splice slows every process of the node.

    ioctl is as frequent, but nothing else sees a freeze or an open by handle without BPF-LSM.
    """
    compiled = compile_policies(DEFAULT, NodeTiers.usual())
    assert not HOT & set(names_of(compiled.events))


def test_an_ordinary_open_is_decided_by_the_cheap_dims() -> None:
    """An open for reading of a file on an overlay, in a mount of the container.

    No rule remains after filesystem, access and mount, and the thread caches this for the next such open.
    """
    compiled = compile_policies(DEFAULT, NodeTiers.usual(), "enforce")
    table = compiled.events[EventKind.FILE_OPEN]

    def remaining(dim: int, value: int) -> int:
        """Returns the rules that remain after the lookup of a number."""
        key = (EventKind.FILE_OPEN, dim, value & table.masks[dim])
        return compiled.sets[compiled.operands.get(key, table.other[dim])]

    overlay, regular = 0x794C7630, 0o100000
    assert remaining(0, overlay) & remaining(1, os.O_RDONLY) & remaining(2, regular) == 0
    assert remaining(2, regular | 1 << 16) != 0  # reached through a foreign mount


def test_rules_of_one_event_share_a_word() -> None:
    """The kernel then tests the rules themselves at every step, not only whether a word remains."""
    compiled = compile_policies(DEFAULT, NodeTiers.usual(), "enforce")
    for kind in (EventKind.FILE_OPEN, EventKind.SYS_SOCKET, EventKind.NET_CONNECT, EventKind.PROCESS_EXEC):
        words = {number // 64 for number, rule in compiled.rules.items() if kind in rule.events}
        assert len(words) == 1, kind


def test_few_stopping_rules_are_decided_by_a_string_in_the_process() -> None:
    """A rule that kills or denies may test such a string only if there is nothing better: these rules."""
    known = {
        "userns-create",
        "runtime-socket",
        "host-socket",
        "shim-socket",
        "setuid-on-disk",
        "kubelet-api",
        "capability-on-disk",
    }
    weak = {
        rule.id
        for rule in RULES
        if rule.action is not Action.ALERT and any("decided by a string" in text for text in cautions(rule))
    }
    assert weak <= known
