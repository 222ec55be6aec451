# SPDX-License-Identifier: Apache-2.0
"""Other schemas lose nothing: each leaf of an alert is in the sent data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ringfence.abi import EventKind
from ringfence.containers.model import Container, Posture, SensitiveMount
from ringfence.events import SyscallEvent
from ringfence.export.records import alert_record, finding_record
from ringfence.export.sinks.ecs import to_ecs
from ringfence.export.sinks.native import rest
from ringfence.export.sinks.ocsf import to_ocsf
from ringfence.response.alert import Alert, Outcome, assemble
from ringfence.response.detectors import finding
from ringfence.response.kill import KillOutcome, KillResult
from tests.support.receivers import whole_alert
from tests.unit.response.test_alert import rule_of, tree


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the path to each leaf of a record, through lists, too."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, dict | list) and item:
            yield from paths(item, (*above, key))
        else:
            yield (*above, key)


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """The leaf there."""
    for key in path:
        value = value[key]
    return value


@pytest.mark.parametrize("convert", [to_ecs, to_ocsf])
@pytest.mark.parametrize("path", list(paths(whole_alert())), ids=str)
def test_nothing_of_an_alert_is_left_out(convert: Any, path: tuple[Any, ...]) -> None:
    """Each leaf in turn gets a unique value, which must be in the sent data."""
    record = whole_alert()
    old, inner = at(record, path), at(record, path[:-1])
    marks: dict[type, Any] = {bool: not old if isinstance(old, bool) else None, int: 987654321}
    if path == ("time",):
        inner[path[-1]] = "2031-05-06T07:08:09.101112Z"
    elif path in (("severity",), ("kind",), ("rule", "attack", 1)):  # words of a list
        inner[path[-1]] = {"severity": "medium", "kind": "alert", "attack": "T1499.003"}[
            next(word for word in path[::-1] if isinstance(word, str))
        ]
    else:
        inner[path[-1]] = marks.get(type(old), "MARK-of-this-leaf")
    sent = json.dumps(convert(record))
    if isinstance(old, bool):  # one of two values cannot be searched for
        assert sent != json.dumps(convert(whole_alert()))
    elif path == ("severity",):
        assert '"severity": "medium"' in sent
    elif path != ("kind",):
        assert str(inner[path[-1]]) in sent


def real_records() -> Iterator[dict[str, Any]]:
    """The agent's own records with all possible facts."""
    mount = SensitiveMount("host-etc", "/etc", "/host", writable=True)
    posture = Posture(("CAP_BPF",), seccomp="disabled", shared_namespaces=("pid",), sensitive_mounts=(mount,),
                      score=5, reasons=("x",))  # fmt: skip
    container = Container(
        "c" * 64, 7, 1, runtime="containerd", handler="wasm", name="web", image="i:1",
        image_digest="i@sha256:0", namespace="n", pod="p", pod_uid="u", owner="Job/x",
        labels={"app": "web"}, posture=posture,
    )  # fmt: skip
    event = SyscallEvent(event=EventKind.SYS_UNSHARE, operand0=0x10000000, pid=11, start_ns=2, ppid=10)
    made: Alert = assemble(event, container, rule_of("unshare"), tree(), "node-1", suppressed=1)
    answered = made.answered(KillResult(made.id, 11, KillOutcome.KILLED))
    assert answered.outcome is Outcome.KILLED
    yield alert_record(answered, 0, 0)
    yield finding_record(finding("sweep", container, {"x": 1}, event), "node-1", 0)


def test_the_sample_has_every_field_that_the_agent_writes() -> None:
    """Otherwise the previous test would not notice a new field."""
    known = {tuple(word for word in path if isinstance(word, str)) for path in paths(whole_alert())}
    free = {("details",), ("container", "labels")}  # whatever the event or the workload says
    for record in real_records():
        for path in paths(record):
            words = tuple(word for word in path if isinstance(word, str))
            if at(record, path) == []:  # a finding's process has no ancestry
                continue
            assert words in known or words[:1] in free or words[:2] in free, path


def test_what_is_left_stands_where_it_stood() -> None:
    """At any depth, without empty fields."""
    record: dict[str, Any] = {
        "a": {"b": 1, "c": {"d": 0, "e": False, "f": ""}},
        "g": [],
        "h": [{}],
        "i": None,
    }
    assert rest(record, {"a.b"}) == {"a": {"c": {"d": 0, "e": False}}, "h": [{}]}
    assert rest(record, {"a", "h"}) == {}
