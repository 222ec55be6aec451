# SPDX-License-Identifier: Apache-2.0
"""Names in rules that this machine does not have."""

from __future__ import annotations

import pytest

from tests.unit.policy.reviewed import noted, policy, rule

NOTHING = "is not on this machine, nor anything else of this list: here the rule matches nothing"


@pytest.mark.parametrize(
    ("event", "match", "said"),
    [
        (
            "sysctl.access",
            "{sysctl: kernel/hostnam}",
            "'kernel/hostnam' is not on this machine; did you mean 'hostname'?",
        ),
        (
            "file.open",
            "{path: 'proc:meminf'}",
            "'proc:meminf' is not on this machine; did you mean 'meminfo'?",
        ),
        (
            "unshare",
            "{exe: /usr/bin/python33}",
            "'/usr/bin/python33' is not on this machine; did you mean 'python3'?",
        ),
        ("sysctl.access", "{sysctl: zzz/qqq}", f"'zzz/qqq' {NOTHING}"),
        ("file.open", "{path: ['proc:qqqq', 'proc:zzzz']}", f"'proc:zzzz' {NOTHING}"),
        ("device.access", "{device: ['c 3999:0']}", f"'c 3999:0' {NOTHING}"),
        ("device.access", "{device: ['b 3999:*']}", f"'b 3999:*' {NOTHING}"),
    ],
)
def test_a_name_that_this_machine_lacks_is_warned_of(event: str, match: str, said: str) -> None:
    """Where it is the only one, or nearly one that is there. It may be meant for another kernel: no more."""
    found = [note for note in noted(policy(rule(event, match, "alert"))) if note.level == "warning"]
    assert any(note.note.endswith(said) for note in found), found


@pytest.mark.parametrize(
    ("event", "match"),
    [
        ("sysctl.access", "{sysctl: [kernel/hostname, 'vm/*', zzz/qqq], access: write}"),
        ("file.open", "{path: ['proc:meminfo', 'proc:qqqq'], access: write}"),
        ("device.access", "{device: ['c 1:11', 'c 3999:0'], access: write}"),
        ("unshare", "{exe: /usr/bin/nothing-like-it, flags: CLONE_NEWUSER}"),
    ],
)
def test_a_name_among_others_that_are_there_is_only_noted(event: str, match: str) -> None:
    """Lists are written for many kernels. A program lies in an image, of which this machine knows nothing."""
    assert [note for note in noted(policy(rule(event, match))) if note.level == "warning"] == []


def test_what_is_absent_is_warned_of_once() -> None:
    """A rule on two events has its words once."""
    document = policy(rule("[file.open, file.map]", "{path: 'proc:meminf'}", "alert"))
    assert len([note for note in noted(document) if "meminf" in note.note]) == 1
