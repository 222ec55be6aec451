# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tools.chart_schema`: the keys of the agent's configuration into the chart's values.schema.json.

The chart's value `config` takes every key that the chart does not set itself. tests/chart compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ringfence.config import KEYS

__all__ = ["OWN", "SCHEMA", "config_properties"]

SCHEMA = Path(__file__).resolve().parents[1] / "charts/ringfence/values.schema.json"
#: what the chart decides, by values of its own
OWN = frozenset((
    "mode", "policies", "canary", "http.listen", "socket", "state_dir", "pins", "page.listen", "output",
    "kubernetes.watch", "kubernetes.node", "kubernetes.token", "kubernetes.ca", "kubernetes.taint",
    "alerts.headers", "probes.directory", "metrics.containers", "metrics.program_stats",
))  # fmt: skip


def config_properties() -> dict[str, Any]:
    """`properties` of the value `config`. What a key's value may be is for the agent to say."""
    found: dict[str, Any] = {}
    for key in KEYS:
        if key.path in OWN:
            continue
        section, _, name = key.path.rpartition(".")
        if section:
            part = found.setdefault(
                section, {"type": "object", "additionalProperties": False, "properties": {}}
            )
            part["properties"][name] = {"description": key.help}
        else:
            found[name] = {"description": key.help}
    return found


def main() -> int:
    """Write the file anew."""
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["config"]["properties"] = config_properties()
    SCHEMA.write_text(json.dumps(schema, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
