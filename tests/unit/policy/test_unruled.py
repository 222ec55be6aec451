# SPDX-License-Identifier: Apache-2.0
"""The default pack has a rule on every event, or a written reason why there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence.abi import EventKind
from ringfence.cli.main import main
from ringfence.policy import load_policies
from ringfence.policy.unruled import REASONS, coverage
from ringfence.policy.vocabulary import EVENTS
from tests.support.policies import PACK


def test_the_pack_has_no_blind_event() -> None:
    """An event without a rule is one that an attacker can use unseen."""
    assert [one.event for one in coverage(load_policies([PACK])) if one.blind] == []


def test_no_reason_is_left_over() -> None:
    """A reason for an event that has a rule would hide the loss of that rule."""
    ruled = {one.event for one in coverage(load_policies([PACK])) if one.rules}
    assert ruled.isdisjoint(EVENTS[kind].label for kind in REASONS)


def test_an_event_without_rule_and_reason_is_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is what makes the difference."""
    monkeypatch.delitem(REASONS, EventKind.SYS_SECCOMP)
    assert [one.event for one in coverage(load_policies([PACK])) if one.blind] == ["seccomp"]


def test_check_fails_for_a_blind_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --events alone: a policy file of a user need not have a rule on every event."""
    assert main(["policy", "check", "--events", str(PACK)]) == 0
    shown = capsys.readouterr().out
    assert REASONS[EventKind.SYS_SECCOMP] in shown
    few = tmp_path / "few.yaml"
    few.write_text((PACK / "credentials.yaml").read_text())
    assert main(["policy", "check", str(few)]) == 0
    capsys.readouterr()
    assert main(["policy", "check", "--events", "-o", "json", str(few)]) == 1
    events = json.loads(capsys.readouterr().out)["events"]
    assert {"event": "swap", "rules": [], "reason": ""} in events
