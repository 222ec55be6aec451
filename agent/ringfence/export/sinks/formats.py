# SPDX-License-Identifier: Apache-2.0
"""The alert formats of webhook, syslog and file: pure functions of the native record in the queues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ringfence.export.sinks.ecs import to_ecs
from ringfence.export.sinks.native import Record
from ringfence.export.sinks.ocsf import to_ocsf

__all__ = ["FORMATS"]

FORMATS: Mapping[str, Callable[[Record], Mapping[str, Any]]] = {
    "native": lambda record: record,
    "ecs": to_ecs,
    "ocsf": to_ocsf,
}
