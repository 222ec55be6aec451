# SPDX-License-Identifier: Apache-2.0
"""The agent's own log: one JSON object per line, through structlog. For alerts see export.jsonl.

On a terminal a line is text, for the eye. In both forms a value has ASCII escapes, so that observed text
cannot break a line or control a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime
from types import ModuleType
from typing import Any, cast

from ringfence.terminal import colour_wanted

# structlog imports asyncio for coroutines, and rich, if it is installed, for tracebacks on a terminal. The
# agent has neither: 3.5 and 5 MB of memory on every node, and time at every start. Only structlog must not
# find them: other modules may use them.
_in_place = {"asyncio": ModuleType("asyncio"), "rich": None}
_hidden = {name: module for name, module in _in_place.items() if name not in sys.modules}
sys.modules.update(cast("dict[str, ModuleType]", _hidden))
import structlog  # noqa: E402

for _name in _hidden:
    del sys.modules[_name]

__all__ = ["configure", "get_logger"]

_COLOURS = {"warning": "33", "error": "31", "critical": "31"}
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Lines:
    """The logger to which structlog passes finished lines."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        self._write(line.encode() + b"\n")

    debug = info = warning = error = critical = exception = fatal = msg


def configure(level: str = "info", write: Callable[[bytes], object] | None = None) -> None:
    """Sets level and destination for the process. `write` receives whole lines and must not block.

    Lines are text if standard error is a terminal.
    """
    text = sys.stderr.isatty()
    lines = _Lines(write or sys.stderr.buffer.write)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            _as_text if text else structlog.processors.JSONRenderer(serializer=_serialise),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )


def get_logger(part: str) -> Any:
    """Returns a logger that adds the name of the agent's part to its lines."""
    return structlog.get_logger(part=part)


def _serialise(record: Any, **_: Any) -> str:
    first = {name: record.pop(name) for name in ("time", "level", "part", "message") if name in record}
    return json.dumps(first | record, default=_fallback)


def _as_text(_logger: object, _method: str, record: Any) -> str:
    """Returns the time of day, the level, the part, the message, then the other values as NAME=VALUE."""
    clock = datetime.fromisoformat(record.pop("time")).astimezone().strftime("%H:%M:%S")
    level = f"{record.pop('level'):<7}"
    trace = record.pop("exception", "")
    words = [f"{record.pop('part', 'agent')}:", _word(record.pop("message"), spaces=True)]
    words += [f"{name}={_word(value)}" for name, value in record.items()]
    lines = [f"{clock} {_coloured(level)} {' '.join(words)}"]
    return "\n".join(lines + [f"  {_word(line, spaces=True)}" for line in trace.splitlines()])


def _coloured(level: str) -> str:
    code = _COLOURS.get(level.rstrip())
    return f"\x1b[{code}m{level}\x1b[0m" if code and colour_wanted() else level


def _word(value: object, *, spaces: bool = False) -> str:
    """Returns a plain word as it is, and everything else as JSON. `spaces`: spaces and quotes are plain."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and value:
        quoted = not spaces and set(value) & set(' ="\\')
        return json.dumps(value) if quoted else value
    return json.dumps(value, default=_fallback)


def _fallback(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
