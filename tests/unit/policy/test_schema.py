# SPDX-License-Identifier: Apache-2.0
"""The published schema equals the generated one, and is consistent with the loader."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ringfence.errors import PolicyError
from ringfence.policy import load_bytes, reader
from ringfence.policy.schema import schema
from ringfence.policy.vocabulary import EVENTS
from tests.unit.policy.documents import policy, rule, text

ROOT = Path(__file__).resolve().parents[3]
PUBLISHED = ROOT / "docs/reference/policy.schema.json"
PACK = sorted(ROOT.glob("policies/**/*.yaml"))

GOOD: list[dict[str, Any]] = [
    policy(rule()),
    policy(rule(event=["unshare", "clone"], attack="T1611", references=["CVE-1", 5])),
    policy(rule(match="any", exceptions=[{"exe": "/x", "why": "y"}])),
    policy(rule(exceptions=[{"for": {"namespaces": "a", "workloads": ["Deployment/b"]}, "exe": "/x"}])),
    policy(rule(exceptions=[{"for": {"pods": ["a-*"]}}])),
    policy(rule(), workloads="Deployment/*"),
    policy(rule(match={"flags": {"any": "CLONE_NEWNS", "none": [0x80]}})),
    policy(rule(event="file.open", match={"path": ["proc:x", "/x", "**/y"], "filesystem": {"not": "proc"}})),
    policy(rule(event="network.connect", match={"port": [80, "81-90"], "address": ["::1", "10.0.0.0/8"]})),
    policy(rule(event="unix.connect", match={"socket": {"not": ["@a*", "/run/**"]}})),
    policy(rule(event="device.access", match={"device": ["c 1:3", "b *:*"], "access": {"all": ["read"]}})),
    policy(rule(require="deny")),
    policy(rule(otherwise="alert")),
    policy(rule(otherwise="skip")),
    policy(rule(event="network.connect", match={"address": ["node", "10.0.0.1"]})),
    policy(rule(), names=["a*"], labels={"app": "x"}, privileged=True),
    policy(rule(), handler="wasm"),
    policy(rule(), containers="all", but={"images": "x"}, unidentified="apply"),
]  # fmt: skip
BAD: list[dict[str, Any]] = [
    {},
    {**policy(rule()), "more": 1},
    {**policy(rule()), "apiVersion": "v1"},
    policy(rule(id="Bad Id")),
    policy(rule(title=None)),
    policy(rule(severity="worst")),
    policy(rule(attack=["1611"])),
    policy(rule(event="nothing")),
    policy(rule(event=[])),
    policy(rule(match={})),
    policy(rule(match={"flags": []})),
    policy(rule(match={"flags": {}})),
    policy(rule(match={"flags": "NEWUSER"})),
    policy(rule(match={"fstype": "ext4"})),
    policy(rule(event=["unshare", "mount"], match={"fstype": "ext4"})),
    policy(rule(event="file.open", match={"path": {"not": "proc:x"}})),
    policy(rule(event="network.connect", match={"port": 70000})),
    policy(rule(event="device.access", match={"device": "c 1"})),
    policy(rule(event="unix.connect", match={"socket": "x"})),
    policy(rule(exceptions=[])),
    policy(rule(exceptions=[{"why": "x"}])),
    policy(rule(exceptions=[{"for": {}, "exe": "/x"}])),
    policy(rule(exceptions=[{"for": {"pots": ["x"]}}])),
    policy(rule(event="kernel.helper", match={"known": "no"}, exceptions=[{"for": {"names": "x"}}])),
    policy(rule(id="sweep")),
    policy(rule(action="stop")),
    policy(rule(), handler="native"),
    policy(rule(action="kill", require="deny")),
    policy(rule(action="alert", otherwise="alert")),
    policy(rule(require="deny", otherwise="alert")),
    policy(rule(), but={"names": "x"}),
    policy(rule(), containers="all", names="x"),
    policy(rule(), containers="all", but={}),
    policy(rule(), names=[]),
]  # fmt: skip


@cache
def _validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


def _plain(node: reader.Node) -> Any:
    """Returns a document as other YAML readers see it."""
    if isinstance(node, reader.MappingNode):
        return {item.key.text: _plain(item.value) for item in node.items}
    if isinstance(node, reader.SequenceNode):
        return [_plain(item) for item in node.items]
    made: dict[str, Callable[[str], Any]] = {
        "int": int,
        "bool": lambda text: text == "true",
        "null": lambda _: None,
    }
    return made.get(node.kind, str)(node.text)


def test_the_published_schema_is_current() -> None:
    """`ringfence policy schema > docs/reference/policy.schema.json` rewrites it."""
    assert json.loads(PUBLISHED.read_text()) == schema()


def test_every_event_and_operand_is_in_the_schema() -> None:
    """The schema is complete."""
    definitions = schema()["$defs"]
    for words in EVENTS.values():
        assert set(definitions[f"match.{words.label}"]["properties"]) == {o.name for o in words.operands}


@pytest.mark.parametrize("document", GOOD, ids=range(len(GOOD)))
def test_a_document_that_loads_is_valid(document: dict[str, Any]) -> None:
    """The loader and the schema accept it."""
    load_bytes({"x.yaml": text(document)})
    _validator().validate(document)


@pytest.mark.parametrize("document", BAD, ids=range(len(BAD)))
def test_a_document_that_is_refused_is_not_valid(document: dict[str, Any]) -> None:
    """The loader and the schema refuse it."""
    with pytest.raises(PolicyError):
        load_bytes({"x.yaml": text(document)})
    assert not _validator().is_valid(document)


@pytest.mark.parametrize("file", PACK, ids=lambda path: path.name)
def test_the_pack_is_valid(file: Path) -> None:
    """Each file of policies/."""
    documents, problems = reader.parse(file.name, file.read_bytes())
    assert not problems
    for document in documents:
        _validator().validate(_plain(document))
