# SPDX-License-Identifier: Apache-2.0
"""Findings as JSON, and as SARIF 2.1.0 (OASIS), which code hosts and dashboards read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from ringfence import __version__
from ringfence.audit.model import CHECKS, Finding, Unseen
from ringfence.export.escape import escape
from ringfence.severity import SEVERITIES

__all__ = ["as_json", "as_sarif", "ordered", "summary"]

#: SARIF's words, 3.27.10
_LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note", "info": "note"}
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_PROJECT = "https://github.com/ringfence/ringfence"


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Returns the findings, the highest score first."""
    return sorted(findings, key=lambda one: (-one.points, one.subject, one.check.id, one.detail))


def summary(findings: Sequence[Finding]) -> dict[str, int]:
    """Returns the number of findings of each severity, the highest first, without accepted ones."""
    counts = Counter(finding.severity for finding in findings if not finding.accepted)
    return {severity: counts[severity] for severity in reversed(SEVERITIES)}


def as_json(
    findings: Sequence[Finding], node: str, containers: int, unseen: Sequence[Unseen] = ()
) -> dict[str, Any]:
    """Returns one document."""
    return {
        "version": __version__,
        "node": escape(node),
        "containers": containers,
        "summary": summary(findings),
        "findings": [
            {
                "check": one.check.id,
                "scope": one.check.scope,
                "severity": one.severity,
                "score": one.points,
                "subject": escape(one.subject, 256),
                "container": escape(one.identifier, 128),
                "title": one.check.title,
                "detail": escape(one.detail),
                "fix": one.check.fix,
                "attack": list(one.check.attack),
                "accepted": one.accepted,
            }
            for one in ordered(findings)
        ],
        "not_seen": [{"check": one.check, "what": escape(one.what)} for one in unseen],
    }


def as_sarif(findings: Sequence[Finding], node: str, unseen: Sequence[Unseen] = ()) -> dict[str, Any]:
    """Returns one run.

    Its rules are all checks, so that a tool knows which passed. Unexamined facts are notifications of
    the run (3.20.21).
    """
    index = {check: number for number, check in enumerate(CHECKS)}
    rules = [
        {
            "id": check.id,
            "name": "".join(word.capitalize() for word in check.id.split("-")),
            "shortDescription": {"text": check.title},
            "help": {"text": check.fix},
            "defaultConfiguration": {"level": _LEVELS[Finding(check, "", "").severity]},
            "properties": {
                "security-severity": f"{check.score / 10:.1f}",
                "tags": ["security", "containers", *check.attack],
            },
        }
        for check in CHECKS.values()
    ]
    driver = {"name": "Ringfence", "version": __version__, "informationUri": _PROJECT, "rules": rules}
    results = [_result(one, node, index[one.check.id]) for one in ordered(findings)]
    notes = [
        {
            "level": "note",
            "message": {"text": f"not examined: {escape(one.what)}"},
            "associatedRule": {"id": one.check, "index": index[one.check]},
        }
        for one in unseen
    ]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
        "results": results,
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _which(finding: Finding) -> str:
    """Distinguishes findings of one check by the CVE; the rest of a detail can change."""
    return finding.detail.partition(" ")[0] if finding.check.id.endswith("-cve") else ""


def _result(finding: Finding, node: str, rule: int) -> dict[str, Any]:
    subject, detail = escape(finding.subject, 256), escape(finding.detail)
    whole = f"{escape(node)}/{subject}" if finding.check.scope == "container" else subject
    identity = hashlib.sha256(f"{finding.check.id}\0{whole}\0{_which(finding)}".encode()).hexdigest()
    # Code hosts (GitHub) show a result at a file and reject results without one: a stable artificial path.
    place = f"{quote(escape(node), safe='')}/{quote(subject) if subject != node else 'node'}"
    accepted = {"kind": "external", "status": "accepted", "justification": finding.accepted}
    return {
        "ruleId": finding.check.id,
        "ruleIndex": rule,
        "level": _LEVELS[finding.severity],
        "suppressions": [accepted] if finding.accepted else [],
        "message": {"text": f"{subject}: {finding.check.title}: {detail}. Fix: {finding.check.fix}."},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": place}, "region": {"startLine": 1}},
                "logicalLocations": [{"name": subject, "fullyQualifiedName": whole, "kind": "resource"}],
            }
        ],
        "partialFingerprints": {"ringfence/v1": identity, "primaryLocationLineHash": f"{identity[:16]}:1"},
        "properties": {"security-severity": f"{finding.points / 10:.1f}", "severity": finding.severity},
    }
