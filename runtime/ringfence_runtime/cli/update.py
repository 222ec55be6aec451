# SPDX-License-Identifier: Apache-2.0
"""update: changes the limits of a running container, from options or a file of `linux.resources`."""

from __future__ import annotations

from ringfence_linux import strictjson
from ringfence_runtime.cli.options import Globals, Parsed, expect, parse
from ringfence_runtime.errors import Error, UsageError
from ringfence_runtime.spec import parse_resources
from ringfence_runtime.spec.config import read_file
from ringfence_runtime.spec.node import Node
from ringfence_runtime.state import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["resources_from", "update"]

# option -> (section, member). Sizes may carry a unit.
_NUMBERS = {
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "blkio-weight": ("blockIO", "weight"),
    "pids-limit": ("pids", "limit"),
}
_SIZES = {
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "kernel-memory": ("memory", "kernel"),
    "kernel-memory-tcp": ("memory", "kernelTCP"),
}
_TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}
_OPTIONS = {
    **dict.fromkeys((*_NUMBERS, *_SIZES, *_TEXTS), "s"),
    "resources": "s",
    "r": "=resources",
    "l3-cache-schema": "s",
    "mem-bw-schema": "s",
}
_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}


def size(text: str, option: str) -> int:
    """`512m`, `1g`, `-1`, bytes."""
    lower = text.lower().removesuffix("b").removesuffix("i")
    shift = _UNITS.get(lower[-1:], 0)
    digits = lower[:-1] if shift else lower
    try:
        return int(digits) << shift if int(digits) >= 0 else int(digits)
    except ValueError:
        raise UsageError(f"--{option}: {text!r} is not a size such as 512m") from None


def resources_from(parsed: Parsed) -> dict[str, Any]:
    """Returns the options as an object of `linux.resources`."""
    result: dict[str, Any] = {}
    for names, convert in (
        (_NUMBERS, lambda text, name: parsed.number(name)),
        (_SIZES, size),
        (_TEXTS, lambda text, name: text),
    ):
        for option, (section, member) in names.items():
            text = parsed.text(option)
            if text:
                result.setdefault(section, {})[member] = convert(text, option)
    return result


def update(settings: Globals, arguments: list[str]) -> int:
    """Changes the limits."""
    parsed = parse(arguments, _OPTIONS, interleaved=True)
    [name] = expect(parsed, "update", 1, 1)
    container = Store(settings.root).load(name)
    if not container.alive():
        raise Error(f"container {name} is not running")
    file = parsed.text("resources")
    if file:
        data = read_file("/dev/stdin" if file == "-" else file, pipes=True)
        try:
            value = strictjson.loads(data)
        except ValueError as error:
            raise Error(f"{file}: not JSON: {error}") from None
    else:
        value = resources_from(parsed)
    if parsed.text("l3-cache-schema") or parsed.text("mem-bw-schema"):
        raise Error("Intel RDT is not supported")
    resources = parse_resources(Node(value, "resources"))
    resources.interpret(container.version)
    container.cgroup.apply(resources, update=True)
    return 0
