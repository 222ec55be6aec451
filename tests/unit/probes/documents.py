# SPDX-License-Identifier: Apache-2.0
"""Custom probes as values and as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ringfence.policy.model import Place
from ringfence.probes.definition import Definition, Field, Metric, Owner

FILE = "p/slow.yaml"
YAML = """\
apiVersion: ringfence.dev/v1
kind: Probe
metadata:
  name: slow
  description: something was slow
spec:
  license: GPL
  event: event
  container: task
  fields:
    latency_us: {unit: microseconds}
    disk: {type: text}
    peer: {type: ip}
  metrics:
    - name: slow_seconds
      type: histogram
      help: How slow.
      value: latency_us
      scale: 1e-6
      buckets: [0.1, 1]
      labels: [disk]
"""


def write(directory: Path, text: str = YAML, *, name: str = "slow", source: str = "/* */\n") -> Path:
    """Write the pair of files. Returns the YAML's path."""
    (directory / f"{name}.c").write_text(source)
    path = directory / f"{name}.yaml"
    path.write_text(text)
    return path


def field(name: str, kind: str = "number", line: int = 11) -> Field:
    """One field, at a line of the YAML."""
    return Field(name, kind, "", "", Place(FILE, line, 5))


def metric(name: str, **changed: Any) -> Metric:
    """A counter by container."""
    values: dict[str, Any] = {
        "type": "counter", "help": "x", "value": "", "scale": 1.0, "buckets": (), "labels": (),
        "by_container": True, "max_series": 200, "place": Place(FILE, 15, 7),
    }  # fmt: skip
    return Metric(name=name, **{**values, **changed})


def definition(name: str = "slow", **changed: Any) -> Definition:
    """A probe with a number, a text and an address."""
    fields = (field("latency_us"), field("disk", "text", 12), field("peer", "ip", 13))
    values: dict[str, Any] = {
        "description": "x", "license": "GPL", "event": "event", "owner": Owner("task"), "keep_host": False,
        "fields": {one.name: one for one in fields}, "parameters": {}, "sample": 1, "rate": 10_000,
        "ring": 64 << 10, "lines": False, "metrics": (), "yaml": Path(f"p/{name}.yaml"),
        "places": {"event": Place(FILE, 8, 10), "container": Place(FILE, 9, 14)},
    }  # fmt: skip
    return Definition(name=name, **{**values, **changed})
