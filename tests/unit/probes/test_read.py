# SPDX-License-Identifier: Apache-2.0
"""A probe's YAML: all its members are read, and every mistake has file, line and column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ringfence.errors import PolicyError
from ringfence.probes.read import read_directory, read_file
from ringfence.probes.schema import schema
from ringfence.probes.skeleton import skeleton
from tests.unit.probes.documents import YAML, write

ROOT = Path(__file__).resolve().parents[3]


def problems(directory: Path, text: str) -> list[str]:
    """Returns the mistakes, as `line:column: message` with the place in the document."""
    with pytest.raises(PolicyError) as caught:
        read_file(write(directory, text))
    prefix = f"{directory / 'slow.yaml'}:"
    shown = [str(problem) for problem in caught.value.problems]
    assert all(line.startswith(prefix) for line in shown), shown
    return [line.removeprefix(prefix) for line in shown]


def test_everything_is_read(tmp_path: Path) -> None:
    """Fields in their order, defaults for absent members."""
    probe = read_file(write(tmp_path))
    assert (probe.name, probe.event, probe.owner.how, probe.keep_host) == ("slow", "event", "task", False)
    assert [(f.name, f.kind, f.unit) for f in probe.fields.values()] == [
        ("latency_us", "number", "microseconds"),
        ("disk", "text", ""),
        ("peer", "ip", ""),
    ]
    assert (probe.sample, probe.rate, probe.ring, probe.lines) == (1, 10_000, 512 << 10, False)
    (metric,) = probe.metrics
    assert (metric.scale, metric.buckets, metric.labels, metric.by_container) == (
        1e-6,
        (0.1, 1.0),
        ("disk",),
        True,
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("license: GPL", "license: MIT", "7:12: spec.license: 'MIT' is not one of"),
        ("event: event", "event: struct event", "8:10: spec.event: 'struct event' is not the name of a struct"),
        ("container: task", "container: tsk", "9:14: spec.container: 'tsk' is not one of 'task'"),
        ("container: task", "container: {pid: pid}", "9:14: spec.container: must be `task`"),
        ("container: task", "container: {cgruop: x}", "9:15: spec.container: unknown key 'cgruop'; did you mean"),
        ("  license: GPL\n", "", "7:3: spec: 'license' is missing"),
        ("{type: text}", "{type: string}", "12:18: spec.fields.disk.type: 'string' is not one of"),
        ("{type: text}", "{type: text, unit: B}", "12:30: spec.fields.disk.unit: only a number can have a unit"),
        ("name: slow\n", "name: fast\n", "4:9: metadata.name: must be 'slow', the name of the file"),
        ("labels: [disk]", "labels: [dsk]", "21:16: spec.metrics[0].labels[0]: 'dsk' is not one of `fields`"),
        ("value: latency_us", "value: disk", "18:14: spec.metrics[0].value: 'disk' is not a number"),
        ("buckets: [0.1, 1]", "buckets: [1, 0.1]", "20:16: spec.metrics[0].buckets: must be in increasing order"),
        ("      buckets: [0.1, 1]\n", "", "15:7: spec.metrics[0]: 'buckets' is missing"),
        ("name: slow_seconds", "name: slow_total", "15:13: spec.metrics[0].name: must not end in a suffix"),
        ("scale: 1e-6", "scale: fast", "19:14: spec.metrics[0].scale: must be a number"),
        ("  metrics:", "  rate: -1\n  metrics:", "14:9: rate: must be a number from 0"),
        ("  metrics:", "  parameters: {RF_RATE: 1}\n  metrics:", "14:16: spec.parameters: 'RF_RATE' is not a valid name"),
        ("kind: Probe", "kind: Policy", "2:7: kind: must be 'Probe'"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_place(tmp_path: Path, old: str, new: str, expected: str) -> None:
    """One mistake, one message, with its position."""
    assert old in YAML
    (found,) = problems(tmp_path, YAML.replace(old, new, 1))
    assert found.startswith(expected)


def test_a_misspelt_key_is_unknown_and_reported_missing(tmp_path: Path) -> None:
    """With the suggested key."""
    unknown, missing = problems(tmp_path, YAML.replace("license: GPL", "licence: GPL"))
    assert unknown == "7:3: spec: unknown key 'licence'; did you mean 'license'?"
    assert missing == "7:3: spec: 'license' is missing"


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    """Three in one file."""
    text = YAML.replace("GPL", "MIT").replace("type: text", "type: txt").replace("[disk]", "[dusk]")
    assert len(problems(tmp_path, text)) == 3


def test_the_source_must_be_there(tmp_path: Path) -> None:
    """A YAML without a source is no probe."""
    path = write(tmp_path)
    path.with_suffix(".c").unlink()
    with pytest.raises(PolicyError, match=r"slow\.c does not exist next to it"):
        read_file(path)


def test_a_directory_gives_the_good_and_names_the_bad(tmp_path: Path) -> None:
    """One probe's mistakes do not affect others, but two may not share a metric."""
    write(tmp_path)
    write(tmp_path, YAML.replace("name: slow\n", "name: twin\n"), name="twin")
    write(tmp_path, "nothing: here\n", name="bad")
    found = read_directory(tmp_path)
    assert set(found.definitions) == {"slow"}
    assert set(found.problems) == {"bad", "twin"}
    assert "already belongs to probe 'slow'" in found.problems["twin"][0].message
    words = found.words()
    assert words["probe.bad"].broken == str(tmp_path / "bad.yaml")
    assert set(words["probe.slow"].fields) == {"latency_us", "disk", "peer"}


def test_the_published_schema_is_the_generated_one() -> None:
    """Write it again: `ringfence probe schema > docs/reference/probe.schema.json`."""
    assert json.loads((ROOT / "docs/reference/probe.schema.json").read_text()) == schema()


GOOD = [
    YAML,
    skeleton("my-probe")[".yaml"],
    *(p.read_text() for p in (ROOT / "examples/probes").glob("*.yaml")),
]


@pytest.mark.parametrize("text", GOOD, ids=range(len(GOOD)))
def test_the_schema_accepts_what_the_reader_accepts(text: str) -> None:
    """Editors must not report errors in valid files."""
    jsonschema.validate(loaded(text), schema())


def loaded(text: str) -> Any:
    """Returns what an editor reads. YAML 1.1 takes 1e-6
    for a word, YAML 1.2 and the reader for a number.
    """
    return yaml.safe_load(text.replace("1e-6", "0.000001"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("license: GPL", "license: MIT"),
        ("container: task", "container: {pid: pid}"),
        ("{type: text}", "{type: string}"),
        ("      buckets: [0.1, 1]\n", ""),
        ("type: histogram", "type: gauge"),
        ("  metrics:", "  more: 1\n  metrics:"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(old: str, new: str) -> None:
    """Where a schema can express it."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(loaded(YAML.replace(old, new, 1)), schema())


@pytest.mark.parametrize("name", ["__name__", "__x", "le", "container"])
def test_labels_reserved_by_prometheus_are_refused(tmp_path: Path, name: str) -> None:
    """Two underscores in front are Prometheus's own (data model, "Metric names and labels")."""
    with pytest.raises(PolicyError) as caught:
        read_file(write(tmp_path, YAML.replace("disk", name)))
    assert [problem.message for problem in caught.value.problems] == [
        f"{name!r} is reserved: the agent or Prometheus sets this label"
    ]
