# SPDX-License-Identifier: Apache-2.0
"""events: figures of a container every few seconds, and each time that the kernel killed for memory."""

from __future__ import annotations

import time

from ringfence_runtime import jsonio
from ringfence_runtime.cgroup.stats import parse_flat, stats
from ringfence_runtime.cli.options import Globals, expect, parse
from ringfence_runtime.errors import StateError, UsageError
from ringfence_runtime.state import Container, Store

__all__ = ["events"]


def oom_kills(container: Container) -> int:
    """How often the kernel has killed in the container's cgroup."""
    group = container.cgroup
    v1 = group.directory("memory")
    path = f"{v1}/memory.oom_control" if v1 is not None else f"{group.unified}/memory.events"
    try:
        with open(path, encoding="ascii") as file:
            return parse_flat(file.read()).get("oom_kill", 0)
    except OSError:
        return 0


def _interval(text: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0}
    digits = text.rstrip("ms")
    try:
        value = float(digits) * units[text[len(digits) :] or "s"]
    except (ValueError, KeyError):
        raise UsageError(f"--interval: {text!r} is not a duration such as 5s") from None
    if value <= 0:
        raise UsageError("--interval must be above zero")
    return value


def events(settings: Globals, arguments: list[str]) -> int:
    """Print until the container ends, or once with --stats."""
    parsed = parse(arguments, {"stats": "f", "interval": "s"}, interleaved=True)
    [name] = expect(parsed, "events", 1, 1)
    interval = _interval(parsed.text("interval", "5s"))
    container = Store(settings.root).load(name)
    if not container.alive():
        raise StateError(f"container {name} is not running")
    if parsed.flag("stats"):
        _print(name, "stats", stats(container.cgroup))
        return 0
    kills = oom_kills(container)
    due = time.monotonic()
    while container.alive():
        now = oom_kills(container)
        if now > kills:
            _print(name, "oom", None)
            kills = now
        if time.monotonic() >= due:
            _print(name, "stats", stats(container.cgroup))
            due = time.monotonic() + interval
        time.sleep(min(0.1, interval))
    return 0


def _print(name: str, kind: str, data: object) -> None:
    record: dict[str, object] = {"type": kind, "id": name}
    if data is not None:
        record["data"] = data
    print(jsonio.dumps(record), flush=True)
