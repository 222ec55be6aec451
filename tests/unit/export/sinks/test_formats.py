# SPDX-License-Identifier: Apache-2.0
"""Other schemas: every written field exists in the published schema, with the right value."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.export.sinks.ecs import to_ecs
from ringfence.export.sinks.native import headline
from ringfence.export.sinks.ocsf import to_ocsf
from tests.support.receivers import alert, whole_alert

DATA = Path(__file__).resolve().parents[3] / "data"
BARE: dict[str, Any] = {
    "time": "nonsense",
    "event": "unshare",
    "rule": {"id": "", "number": 3},
    "container": {},
}


@functools.cache
def ecs_fields() -> dict[str, tuple[str, bool]]:
    """Published name -> (type, is a list)."""
    rows = [line.split() for line in (DATA / "ecs-9.4.0.txt").read_text().splitlines() if line[0] != "#"]
    return {row[0]: (row[1], "array" in row[2:]) for row in rows}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values, as Elasticsearch sees them."""
    for key, item in value.items():
        name = f"{path}.{key}" if path else key
        if isinstance(item, dict) and name not in ("labels", "container.labels"):
            yield from leaves(item, name)
        else:
            yield name, item


@pytest.mark.parametrize("record", [alert(), whole_alert(), alert(outcome="seen", severity="low"), BARE])
def test_ecs_has_only_published_fields(record: dict[str, Any]) -> None:
    """With the published types; custom fields are below `ringfence`, as ECS requires."""
    types: dict[str, Any] = {"keyword": str, "long": int, "date": str, "match_only_text": str,
                             "boolean": bool, "object": dict, "wildcard": str}  # fmt: skip
    for name, value in leaves(to_ecs(record)):
        if name.startswith("ringfence."):
            continue
        kind, listed = ecs_fields()[name]
        assert isinstance(value, list) == listed, name
        for one in value if listed else [value]:
            assert isinstance(one, types[kind]), (name, one)


def test_ecs_says_what_happened() -> None:
    """The values that ECS allows for event.*, and the fields for searches."""
    got = to_ecs(alert())
    assert got["event"]["kind"] == "alert"
    assert got["event"]["category"] == ["intrusion_detection", "file"]
    assert (got["event"]["type"], got["event"]["outcome"]) == (["denied"], "failure")
    assert got["threat"]["technique"]["id"] == ["T1611", "T1055"]
    assert got["threat"]["technique"]["subtechnique"]["id"] == ["T1055.001"]
    assert got["container"]["image"] == {
        "name": "registry.example:5000/shop/web", "tag": ["1.2"], "hash": {"all": ["sha256:" + "d" * 64]},
    }  # fmt: skip
    assert got["orchestrator"]["resource"]["name"] == "web-0"
    assert got["orchestrator"]["resource"]["parent"]["type"] == "StatefulSet"
    assert got["rule"]["reference"] == "/etc/ringfence/policies/kernel.yaml:12"
    assert got["ringfence"]["mechanism"] == "lsm"


@functools.cache
def ocsf() -> Any:
    """The published class and objects."""
    return json.loads((DATA / "ocsf-1.8.0.json").read_text())


SCALARS: dict[str, Any] = {"integer_t": int, "long_t": int, "timestamp_t": int, "boolean_t": bool}


def check(value: Any, attributes: Any, where: str) -> None:
    """An object against its published attributes, at any depth that the data covers."""
    missing = [name for name, about in attributes.items() if about.get("required") and name not in value]
    assert not missing, f"{where} lacks {missing}"
    for name, item in value.items():
        if where == "detection_finding" and name == "unmapped":
            continue
        about = attributes[name]
        assert not about.get("deprecated"), f"{where}.{name}"
        assert isinstance(item, list) == bool(about.get("array")), f"{where}.{name}"
        for one in item if isinstance(item, list) else [item]:
            if "enum" in about:
                assert one in about["enum"], f"{where}.{name}"
            if about["type"] in ocsf()["objects"]:
                check(one, ocsf()["objects"][about["type"]], about["type"])
            elif about["type"] == "json_t" or not about["type"].endswith("_t"):
                assert isinstance(one, dict), f"{where}.{name}"
            else:
                assert isinstance(one, SCALARS.get(about["type"], str)), f"{where}.{name}"


@pytest.mark.parametrize("record", [alert(), whole_alert(), alert(outcome="seen", severity="info"), BARE])
def test_ocsf_is_a_detection_finding(record: dict[str, Any]) -> None:
    """Only published attributes, all required ones, with the published types and enumerations."""
    got = to_ocsf(record)
    assert (got["class_uid"], got["type_uid"]) == (2004, 200401)
    check(got, ocsf()["classes"]["detection_finding"], "detection_finding")


def test_ocsf_has_the_pods_namespace() -> None:
    """Where OCSF has it, and no attribute that it does not have."""
    record = alert()
    record["container"] = {"id": "c", "pod": "p", "pod_uid": "u", "namespace": "shop", "labels": {"a": "b"}}
    (resource,) = to_ocsf(record)["resources"]
    assert resource == {
        "type": "pod",
        "name": "p",
        "uid": "u",
        "namespace": "shop",
        "labels": ["a=b"],
    }


def test_ocsf_says_whether_it_was_stopped() -> None:
    """action_id 2 is Denied, 3 is Observed; severity 5 is Critical."""
    assert (to_ocsf(alert())["action_id"], to_ocsf(alert())["severity_id"]) == (2, 5)
    assert to_ocsf(alert(outcome="would-deny"))["action_id"] == 3
    assert to_ocsf(alert())["time"] == 1795485784123


@pytest.mark.parametrize(
    ("word", "number", "caption"),
    [("info", 1, "Informational"), ("low", 2, "Low"), ("medium", 3, "Medium"), ("high", 4, "High"),
     ("critical", 5, "Critical"), ("?", 4, "High")],
)  # fmt: skip
def test_ocsf_severities_have_their_captions(word: str, number: int, caption: str) -> None:
    """The dictionary of 1.8: `severity` is the caption of `severity_id`."""
    got = to_ocsf(alert(severity=word))
    assert (got["severity_id"], got["severity"]) == (number, caption)


@pytest.mark.parametrize("record", [{}, {"rule": None, "process": None, "container": None}, BARE])
def test_a_record_of_another_version_breaks_nothing(record: dict[str, Any]) -> None:
    """A queued record may have been written by an older agent."""
    assert headline(record)
    json.dumps([to_ecs(record), to_ocsf(record)])


@pytest.mark.parametrize(
    ("event", "category"),
    [
        ("network.connect", "network"), ("network.bind", "network"), ("network.sendmsg", "network"),
        ("unix.connect", "network"), ("socket", "network"), ("file.open", "file"), ("chmod", "file"),
        ("module_load", "driver"), ("sysctl.access", "configuration"), ("unshare", "process"),
        ("finding", "process"), ("probe.mine", "process"), ("", "process"),
    ],
)  # fmt: skip
def test_ecs_has_a_category_for_every_event(event: str, category: str) -> None:
    """One that ECS allows besides intrusion_detection."""
    assert to_ecs(alert(event=event))["event"]["category"] == ["intrusion_detection", category]


def test_the_labels_of_the_agent_are_fields_of_their_own() -> None:
    """The cluster's name, if the schema has a field for it."""
    sent = to_ecs(whole_alert())
    assert sent["labels"] == {"cluster": "prod-eu"}
    assert sent["orchestrator"]["cluster"]["name"] == "prod-eu"
    assert to_ocsf(whole_alert())["metadata"]["labels"] == ["cluster=prod-eu"]
