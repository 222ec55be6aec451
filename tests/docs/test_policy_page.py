# SPDX-License-Identifier: Apache-2.0
"""The page on the policy language says what the loader does."""

from __future__ import annotations

import re

import pytest

from ringfence.abi import MATCH_TEXT, MAX_RULES
from ringfence.errors import PolicyError
from ringfence.policy import NodeTiers, compile_policies, conditions, load_bytes, lower, reader
from ringfence.policy.load import API_VERSION
from ringfence.policy.rules import RULE_KEYS
from ringfence.severity import SEVERITIES
from tests.unit.policy.reference import PAGE, TABLES, parts, renewed

TEXT = PAGE.read_text()
EXAMPLES = [found[1] for found in re.finditer(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
WHOLE = [text for text in EXAMPLES if "apiVersion" in text]
RULES = [text for text in EXAMPLES if text.startswith("- id:")]
HEAD = f"""apiVersion: {API_VERSION}
kind: Policy
metadata: {{name: example}}
spec:
  selector: {{containers: all}}
  rules:
"""


def test_the_tables_are_those_of_the_vocabulary() -> None:
    """Write them again: `python -m tests.unit.policy.reference`."""
    assert set(parts(TEXT)) == set(TABLES)
    assert renewed(TEXT) == TEXT


def test_there_are_examples_of_both_kinds() -> None:
    """Or the next tests test nothing."""
    assert WHOLE
    assert len(RULES) > 3
    assert len(WHOLE) + len(RULES) + TEXT.count("```yaml\nselector:") == len(EXAMPLES)


@pytest.mark.parametrize("text", WHOLE, ids=range(len(WHOLE)))
def test_whole_examples_load_and_compile(text: str) -> None:
    """On a usual node."""
    assert compile_policies(load_bytes({"x.yaml": text.encode()}), NodeTiers.usual()).rules


@pytest.mark.parametrize("text", RULES, ids=range(len(RULES)))
def test_examples_of_rules_load(text: str) -> None:
    """Inside a policy."""
    indented = "".join(f"    {line}\n" for line in text.splitlines())
    assert load_bytes({"x.yaml": (HEAD + indented).encode()}).rules


def test_examples_of_selectors_load() -> None:
    """Inside a policy with a rule."""
    rule = RULES[0].splitlines()
    selectors = [text for text in EXAMPLES if text.startswith("selector:")]
    assert selectors
    for text in selectors:
        lines = ["apiVersion: " + API_VERSION, "kind: Policy", "metadata: {name: x}", "spec:"]
        lines += [f"  {line}" for line in text.splitlines()] + ["  rules:"] + [f"    {line}" for line in rule]
        load_bytes({"x.yaml": "\n".join(lines).encode()})


def test_the_error_that_is_shown_is_the_error_that_comes() -> None:
    """Word for word."""
    shown = re.search(r"(policies/shell\.yaml:\d+:\d+: .*)", TEXT)
    assert shown
    broken = WHOLE[0].replace("action: kill", "action: kil")
    assert broken != WHOLE[0]
    with pytest.raises(PolicyError) as raised:
        load_bytes({"policies/shell.yaml": broken.encode()})
    assert [str(problem) for problem in raised.value.problems] == [shown[1]]


@pytest.mark.parametrize("word", [*RULE_KEYS, *SEVERITIES, "unidentified", "except", "privileged"])
def test_every_key_is_explained(word: str) -> None:
    """Somewhere on the page."""
    assert f"`{word}`" in TEXT


def test_the_limits_are_those_of_the_code() -> None:
    """Each with its number, wherever a line ends."""
    text = " ".join(TEXT.split())
    for limit in (
        f"{reader.MAX_BYTES >> 20} MiB per file",
        f"{reader.MAX_FILES:,} files",
        f"{reader.MAX_DEPTH} levels",
        f"{conditions.MAX_LIST:,} values in a list",
        f"{conditions.MAX_RANGE:,} numbers in a range",
        f"{MATCH_TEXT - 1} bytes of a text",
        f"{MAX_RULES:,} bits",
        f"{lower.MAX_ATOMS} combinations",
        f"{lower.MAX_EXCEPTIONS} exceptions",
    ):
        assert limit in text, limit
