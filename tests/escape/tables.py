# SPDX-License-Identifier: Apache-2.0
"""The tables of policies/README.md, generated from the policies and from the table of attacks.

`python -m tests.escape.tables` rewrites them; a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ringfence.policy import NodeTiers, Policy, Rule, load_policies
from ringfence.response.detectors import DETECTORS
from tests.escape.cases import CASES, TECHNIQUES, cases_of

__all__ = ["PAGE", "TABLES", "regenerated", "rows_of"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "policies/README.md"


def rows_of(rule: Rule) -> list[int]:
    """Returns the rows of the checklist that a rule references."""
    return [int(found[1]) for r in rule.references if (found := re.fullmatch(r"escape (\d+)", r))]


def _policies() -> list[tuple[str, Policy]]:
    files = [
        *sorted((ROOT / "policies").glob("*.yaml")),
        *sorted((ROOT / "policies/optional").glob("*.yaml")),
    ]
    return [
        (str(file.relative_to(ROOT / "policies")), policy)
        for file in files
        for policy in load_policies([file]).policies
    ]


def _rules() -> Iterator[str]:
    tiers = NodeTiers.usual()
    for file, policy in _policies():
        yield f"### {file}\n"
        yield "| rule | rows | action | without LSM | attack | twin |"
        yield "|---|---|---|---|---|---|"
        for rule in policy.rules:
            here = {tiers.outcome_of(rule, event).action.label for event in rule.events}
            cases = [case for case in CASES if case.rule == rule.id]
            attacks = "; ".join(f"`{case.attack}`" for case in cases) or "-"
            twins = "; ".join(dict.fromkeys(f"`{case.twin}`" for case in cases)) or "-"
            rows = ", ".join(map(str, rows_of(rule)))
            actions = f"{rule.action.label} | {', '.join(sorted(here))}"
            yield f"| `{rule.id}` | {rows} | {actions} | {attacks} | {twins} |"
        yield ""


def _detectors() -> Iterator[str]:
    yield "| detector | rows | severity | reports that |"
    yield "|---|---|---|---|"
    for one in DETECTORS.values():
        title = one.title[0].lower() + one.title[1:]
        yield f"| `{one.id}` | {', '.join(map(str, one.rows))} | {one.severity} | {title} |"


def _checklist() -> Iterator[str]:
    named: dict[int, list[str]] = {}
    for _, policy in _policies():
        for rule in policy.rules:
            for row in rows_of(rule):
                named.setdefault(row, []).append(rule.id)
    for detector in DETECTORS.values():
        for row in detector.rows:
            named.setdefault(row, []).append(detector.id)
    yield "| row | technique | rules and detectors | Ringfence's runtime | why a rule only alerts |"
    yield "|---|---|---|---|---|"
    for technique in TECHNIQUES:
        proven = {case.rule for case in cases_of(technique.row)}
        names = ", ".join(f"`{name}`" if name in proven else name for name in named.get(technique.row, []))
        guard = "refuses it" if technique.guards else ""
        yield f"| {technique.row} | {technique.title} | {names} | {guard} | {technique.why} |"


TABLES = {"rules": _rules, "detectors": _detectors, "checklist": _checklist}


def regenerated(page: str) -> str:
    """Returns the page with its tables generated again."""
    for name, lines in TABLES.items():
        head, begin, rest = page.partition(f"<!-- table: {name} -->\n")
        _, end, tail = rest.partition("<!-- end -->\n")
        assert (bool(begin), bool(end)) == (True, True), name
        body = "\n".join(lines()).rstrip()
        page = f"{head}{begin}\n{body}\n\n{end}{tail}"
    return page


if __name__ == "__main__":
    PAGE.write_text(regenerated(PAGE.read_text()))
