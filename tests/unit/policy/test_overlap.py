# SPDX-License-Identifier: Apache-2.0
"""Rules with different actions that can match the same event."""

from __future__ import annotations

import pytest

from ringfence.policy import review
from tests.unit.policy.reviewed import noted, policy, rule


def test_a_rule_covered_by_a_stronger_one_gives_a_warning() -> None:
    """It would never be reported."""
    wide = rule("unshare", "any", "deny", "wide")
    narrow = rule("unshare", "{flags: CLONE_NEWUSER}", "alert", "narrow")
    (note,) = [note for note in noted(policy(wide, narrow)) if note.rule == "narrow"]
    assert note.level == "warning"
    assert (
        note.note
        == "has no effect on unshare: rule wide (0.yaml:7) matches all of its events, with action deny"
    )
    chosen = policy(narrow, name="q").replace(b"containers: all", b"names: [x]")
    assert [note.level for note in noted(policy(wide), chosen) if note.rule == "narrow"] == ["warning"]


def test_overlapping_rules_with_different_actions_give_a_note() -> None:
    """Neither covers the other: where both match, the stronger wins, even from another file."""
    one = rule("unshare", "{flags: {all: [CLONE_NEWUSER]}}", "kill", "one")
    two = rule("unshare", "{flags: {all: [CLONE_NEWNS]}}", "alert", "two")
    (note,) = [note for note in noted(policy(one), policy(two, name="q")) if "wins" in note.note]
    assert (note.rule, note.level, note.file) == ("two", "note", "1.yaml")
    assert note.note == "has action alert; where rule one (0.yaml:7) also matches, kill wins"


@pytest.mark.parametrize(
    ("event", "weak", "strong"),
    [
        ("unshare", "any", "{flags: CLONE_NEWUSER}"),  # a general rule, and a special one, which is stronger
        ("unshare", "{flags: {none: [CLONE_NEWUSER]}}", "{flags: {all: [CLONE_NEWUSER]}}"),
        ("socket", "{family: AF_INET}", "{family: AF_PACKET}"),
        ("socket", "{family: {not: [AF_PACKET]}}", "{family: AF_PACKET}"),
        ("file.open", "{path: 'proc:kcore'}", "{path: 'proc:kallsyms'}"),
        ("file.open", "{path: 'proc:sys/**'}", "{path: 'sysfs:**', access: write}"),
        ("device.access", "{device: 'c 81:*'}", "{device: 'c 1:11'}"),
        ("network.connect", "{address: 10.0.0.0/8}", "{address: 192.168.0.0/16}"),
        ("sysctl.access", "{sysctl: 'vm/*', access: write}", "{sysctl: kernel/core_pattern}"),
    ],
)
def test_rules_without_an_unintended_overlap_give_no_note(event: str, weak: str, strong: str) -> None:
    """They do not overlap, or the stronger one is an intended special case."""
    document = policy(rule(event, weak, "alert", "weak"), rule(event, strong, "deny", "strong"))
    assert [
        note.note for note in noted(document) if "wins" in note.note or "has no effect" in note.note
    ] == []


def test_an_exception_removes_the_overlap() -> None:
    """What a rule excepts is left to the other rule."""
    more = ", exceptions: [{path: 'sysfs:kernel/uevent_helper'}]"
    weak = rule("file.open", "{path: 'sysfs:**', access: write}", "alert", "weak", more)
    strong = rule(
        "file.open", "{path: ['sysfs:kernel/uevent_helper', 'proc:kcore'], access: write}", "deny", "strong"
    )
    assert [note.note for note in noted(policy(weak, strong)) if "wins" in note.note] == []


def test_very_many_rules_are_not_compared_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time would grow with the square of their number."""
    pair = policy(
        rule("unshare", "any", "deny", "wide"), rule("unshare", "{flags: CLONE_NEWUSER}", "alert", "narrow")
    )

    def compared() -> int:
        return sum("has no effect" in note.note for note in noted(pair))

    assert compared() == 1
    monkeypatch.setattr(review, "_MOST_PAIRS", 3)
    assert compared() == 0
    monkeypatch.setattr(review, "_MOST_PAIRS", 4)
    assert compared() == 1


@pytest.mark.parametrize(
    ("narrow", "covered"),
    [
        ("[vm/x, kernel/a]", True),
        ("['vm/sub/*', kernel/a]", True),
        ("[vm/x, kernel/b]", False),
        ("['v*', kernel/a]", False),
        ("[kernel/a]", True),
    ],
)
def test_a_rule_on_texts_is_covered_only_if_each_of_them_is(narrow: str, *, covered: bool) -> None:
    """Whole texts and beginnings alike."""
    wide = rule("sysctl.access", "{sysctl: ['vm/*', kernel/a]}", "deny", "wide")
    other = rule("sysctl.access", f"{{sysctl: {narrow}}}", "alert", "narrow")
    notes = [note for note in noted(policy(wide, other)) if note.rule == "narrow"]
    assert any("has no effect" in note.note for note in notes) is covered
