# SPDX-License-Identifier: Apache-2.0
"""The file with the meaning of rule numbers, for the next agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.policy import NodeTiers, compile_policies, load_policies
from ringfence.policy.rulebook import RuleBook, read, write
from tests.support.policies import PACK


def test_every_rule_of_the_pack_is_read_back(tmp_path: Path) -> None:
    """All fields, for every rule number of two generations."""
    rules = compile_policies(load_policies([PACK]), NodeTiers.usual(), "enforce").rules
    assert len(rules) > 50
    book = RuleBook({6: {}, 7: rules})
    write(tmp_path / "rules.json", book)
    assert read(tmp_path / "rules.json") == book
    assert [path.name for path in tmp_path.iterdir()] == ["rules.json"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b'{"1": [{}]}', b'{"x": []}', b"\xff", b'{"1": 2}']
)
def test_an_invalid_rule_book_is_none(tmp_path: Path, content: bytes) -> None:
    """A file of another build, or one damaged by a power failure."""
    (tmp_path / "rules.json").write_bytes(content)
    assert read(tmp_path / "rules.json") is None


def test_a_missing_rule_book_is_none(tmp_path: Path) -> None:
    """As for the first agent of a node."""
    assert read(tmp_path / "rules.json") is None
