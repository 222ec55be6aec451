# SPDX-License-Identifier: Apache-2.0
"""policies/: complete, described, and cheap."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringfence.abi import Action, EventKind
from ringfence.bpf.syscalls import names_of
from ringfence.policy import NodeTiers, compile_policies, load_policies
from ringfence.policy.explain import cautions
from tests.escape.rows import OPTIONAL, PACK

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "policies" / "README.md").read_text()
DEFAULT = load_policies([ROOT / "policies"])
EXTRA = load_policies([ROOT / "policies" / "optional"])
BOTH = [*DEFAULT.policies, *EXTRA.policies]
RULES = [rule for policy in BOTH for rule in policy.rules]
#: rows that no rule on a container's own calls can reach; the README says why of each
OUT_OF_REACH = {33, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 59, 62, 63}
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


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_rule_says_what_it_is_for(rule: object) -> None:
    """A technique, a row of the checklist, a title in the form `A container ...`."""
    from ringfence.policy import Rule

    assert isinstance(rule, Rule)
    assert rule.attack
    assert any(re.fullmatch(r"escape \d+", reference) for reference in rule.references)
    assert rule.title.startswith(("A container", "A process", "A 64-bit program"))


def _rows() -> set[int]:
    references = [reference for rule in RULES for reference in rule.references]
    return {int(found[1]) for reference in references if (found := re.fullmatch(r"escape (\d+)", reference))}


def test_every_row_of_the_checklist_is_covered_or_said_to_be_out_of_reach() -> None:
    """63 rows, none twice."""
    assert _rows() | OUT_OF_REACH == set(range(1, 64))
    assert not _rows() & OUT_OF_REACH
    said = re.search(r"## Rows that no rule here reaches\n(.*)", README, re.DOTALL)
    assert said
    assert {int(n) for n in re.findall(r"^\| (\d+) \|", said[1], re.MULTILINE)} == OUT_OF_REACH


def test_every_rule_has_an_attack_and_a_twin() -> None:
    """In tests/escape, and in the table of the README."""
    tested = {row.rule for row in (*PACK, *OPTIONAL)}
    assert tested >= {rule.id for policy in DEFAULT.policies for rule in policy.rules}
    assert tested <= {rule.id for rule in RULES}
    assert all(f"| `{row.attack}` | `{row.twin}` |" in README for row in (*PACK, *OPTIONAL))
    table = re.findall(r"^\| `([a-z0-9-]+)` \| ([0-9, ]+) \|", README, re.MULTILINE)
    listed = {rule: {int(n) for n in rows.split(",")} for rule, rows in table}
    assert listed == {
        rule.id: {int(r.split()[1]) for r in rule.references if r.startswith("escape ")} for rule in RULES
    }


def test_the_default_pack_attaches_to_no_hot_call() -> None:
    """ioctl and splice are paid for by every process of the node."""
    compiled = compile_policies(DEFAULT, NodeTiers.usual())
    assert not HOT & set(names_of(compiled.events))


def test_an_ordinary_open_leaves_at_the_first_look_up() -> None:
    """A file on an overlay is in no rule: the empty set is its answer."""
    compiled = compile_policies(DEFAULT, NodeTiers.usual(), "enforce")
    table = compiled.events[EventKind.FILE_OPEN]
    assert table.other[0] == 0
    overlay = 0x794C7630
    assert (EventKind.FILE_OPEN, 0, overlay) not in compiled.operands


def test_rules_of_one_event_lie_in_one_word() -> None:
    """The kernel then tests the rules themselves at every step, and not only whether some word is left."""
    compiled = compile_policies(DEFAULT, NodeTiers.usual(), "enforce")
    for kind in (EventKind.FILE_OPEN, EventKind.SYS_SOCKET, EventKind.NET_CONNECT, EventKind.PROCESS_EXEC):
        words = {number // 64 for number, rule in compiled.rules.items() if kind in rule.events}
        assert len(words) == 1, kind


def test_stopping_is_never_decided_on_a_string_that_the_process_holds() -> None:
    """A rule that kills or denies may look at one only where there is nothing better; these are known."""
    known = {"userns-create", "runtime-socket", "shim-socket", "terminal-injection"}
    weak = {
        rule.id
        for rule in RULES
        if rule.action is not Action.ALERT and any("decided on a string" in text for text in cautions(rule))
    }
    assert weak <= known
