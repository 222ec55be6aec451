# SPDX-License-Identifier: Apache-2.0
"""Names in rules that do not exist on this machine."""

from __future__ import annotations

import pytest

from tests.unit.policy.reviewed import noted, policy, rule

NOTHING = "does not exist on this machine, nor is any other name of this list: the rule matches nothing here"


@pytest.mark.parametrize(
    ("event", "match", "expected"),
    [
        (
            "sysctl.access",
            "{sysctl: kernel/hostnam}",
            "'kernel/hostnam' does not exist on this machine; did you mean 'hostname'?",
        ),
        (
            "file.open",
            "{path: 'proc:meminf'}",
            "'proc:meminf' does not exist on this machine; did you mean 'meminfo'?",
        ),
        (
            "unshare",
            "{exe: /usr/bin/python33}",
            "'/usr/bin/python33' does not exist on this machine; did you mean 'python3'?",
        ),
        ("sysctl.access", "{sysctl: zzz/qqq}", f"'zzz/qqq' {NOTHING}"),
        ("file.open", "{path: ['proc:qqqq', 'proc:zzzz']}", f"'proc:zzzz' {NOTHING}"),
        ("device.access", "{device: ['c 3999:0']}", f"'c 3999:0' {NOTHING}"),
        ("device.access", "{device: ['b 3999:*']}", f"'b 3999:*' {NOTHING}"),
    ],
)
def test_an_absent_name_gives_a_warning(event: str, match: str, expected: str) -> None:
    """If it is the only one, or similar to an existing one. It may be for another kernel: not an error."""
    found = [note for note in noted(policy(rule(event, match, "alert"))) if note.level == "warning"]
    assert any(note.note.endswith(expected) for note in found), found


@pytest.mark.parametrize(
    ("event", "match"),
    [
        ("sysctl.access", "{sysctl: [kernel/hostname, 'vm/*', zzz/qqq], access: write}"),
        ("file.open", "{path: ['proc:meminfo', 'proc:qqqq'], access: write}"),
        ("device.access", "{device: ['c 1:11', 'c 3999:0'], access: write}"),
        ("unshare", "{exe: /usr/bin/nothing-like-it, flags: CLONE_NEWUSER}"),
    ],
)
def test_an_absent_name_among_existing_ones_gives_only_a_note(event: str, match: str) -> None:
    """Lists are written for many kernels, and a program may exist only in an image."""
    assert [note for note in noted(policy(rule(event, match))) if note.level == "warning"] == []


def test_an_absent_name_gives_one_warning() -> None:
    """Even if the rule has two events."""
    document = policy(rule("[file.open, file.map]", "{path: 'proc:meminf'}", "alert"))
    assert len([note for note in noted(document) if "meminf" in note.note]) == 1
