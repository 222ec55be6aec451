# SPDX-License-Identifier: Apache-2.0
"""The agent's own log: one JSON object a line, through structlog. Alerts do not go here; see export.jsonl.

Every value is JSON with ASCII escapes, so that no observed text in it can break a line or a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

# Where rich is installed, structlog.dev imports it for tracebacks on a terminal: 5 MB of memory and a tenth
# of a second of every start, for what an agent never prints.
_NOT_THERE: Any = None
sys.modules.setdefault("rich", _NOT_THERE)
import structlog  # noqa: E402

__all__ = ["configure", "get_logger"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Lines:
    """What structlog hands finished lines to."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        self._write(line.encode() + b"\n")

    debug = info = warning = error = critical = exception = fatal = msg


def configure(level: str = "info", write: Callable[[bytes], object] | None = None) -> None:
    """Set level and destination, for the whole process. `write` gets whole lines and must not block."""
    lines = _Lines(write or sys.stderr.buffer.write)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(serializer=_serialise),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )


def get_logger(part: str) -> Any:
    """A logger whose lines name the part of the agent that wrote them."""
    return structlog.get_logger(part=part)


def _serialise(record: Any, **_: Any) -> str:
    first = {name: record.pop(name) for name in ("time", "level", "part", "message") if name in record}
    return json.dumps(first | record, default=_fallback)


def _fallback(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
