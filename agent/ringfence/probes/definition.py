# SPDX-License-Identifier: Apache-2.0
"""The definition of a probe as values. No YAML, no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ringfence.policy.model import Place
from ringfence.policy.probe_rules import PREFIX, FieldWords, ProbeWords

__all__ = ["DEFAULT_RATE", "DEFAULT_RING", "KINDS", "LICENSES", "Definition", "Field", "Metric", "Owner"]

#: licenses that allow every BPF helper (include/linux/license.h)
LICENSES = ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")
KINDS = ("number", "text", "ip")
DEFAULT_RATE = 10_000  # events a second
DEFAULT_RING = 512 << 10  # bytes


@dataclass(frozen=True, slots=True)
class Field:
    """One exported field of the events. `kind` is its type: number, text or ip."""

    name: str
    kind: str
    unit: str
    description: str
    place: Place


@dataclass(frozen=True, slots=True)
class Owner:
    """How an event identifies its container: by a struct rf_task in it, a cgroup id, or a process."""

    how: Literal["task", "cgroup", "process"]
    cgroup: str = ""
    pid: str = ""
    start: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A counter (of events, or of the sum of `value`) or a histogram of `value`, both times `scale`."""

    name: str
    type: Literal["counter", "histogram"]
    help: str
    value: str
    scale: float
    buckets: tuple[float, ...]
    labels: tuple[str, ...]
    by_container: bool
    max_series: int
    place: Place


@dataclass(frozen=True, slots=True)
class Definition:
    """One probe. `fields` are those of the YAML, in its order; no other is exported."""

    name: str
    description: str
    license: str
    event: str  # the struct's name
    owner: Owner
    keep_host: bool
    fields: Mapping[str, Field]
    parameters: Mapping[str, int]
    sample: int  # one of this many events is sent
    rate: int  # maximum events a second that leave the kernel; 0: no limit
    ring: int  # bytes
    lines: bool  # every event becomes a line of the agent's output
    metrics: tuple[Metric, ...]
    yaml: Path
    places: Mapping[str, Place]  # of `event`, `container`, `cgroup`, `pid`, `start`

    @property
    def source(self) -> Path:
        """The C file next to the YAML."""
        return self.yaml.with_suffix(".c")

    @property
    def label(self) -> str:
        """The name of its events."""
        return PREFIX + self.name

    def words(self) -> ProbeWords:
        """The vocabulary for policies."""
        fields = {field.name: FieldWords(field.kind, field.unit) for field in self.fields.values()}
        return ProbeWords(self.label, fields, in_task=self.owner.how in ("task", "process"))
