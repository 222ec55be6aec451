# SPDX-License-Identifier: Apache-2.0
"""The C source that bcc compiles for a probe: helpers, the operator's text, and checks of the YAML.

Each part has its origin (#line), so clang itself reports a field that the struct lacks at its line
of the YAML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ringfence.policy.model import Place
from ringfence.probes.definition import Definition

__all__ = ["HELPERS", "Hook", "compose", "flags", "hooks"]

HELPERS = Path(__file__).parent / "ringfence.h"
_PAGE = 4096
_WINDOW_NS, _SECOND_NS = 100_000_000, 1_000_000_000
_CONTAINERS_AT_ONCE = 10  # this many containers can use their full rate; more share the total
_WINDOWS = 4096  # containers with a counted rate; the least recently seen is evicted
_MACRO = re.compile(
    r"^[ \t]*(?P<macro>RAW_TRACEPOINT_PROBE|TRACEPOINT_PROBE|KFUNC_PROBE|KRETFUNC_PROBE|LSM_PROBE)"
    r"\s*\(\s*(?P<first>\w+)\s*(,\s*(?P<second>\w+))?",
    re.M,
)
_FUNCTION = re.compile(r"^[ \t]*(?!static\b)[A-Za-z_][\w \t\*]*?\b(?P<name>k(ret)?probe__\w+)\s*\(", re.M)
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|\"(\\.|[^\"\\\n])*\"", re.S)


class Hook(NamedTuple):
    """One program of the source: its function in bcc's naming, kind and name of the hook, its line."""

    function: str
    kind: str
    name: str
    line: int


_PREFIXES = {
    "RAW_TRACEPOINT_PROBE": "raw_tracepoint__",
    "TRACEPOINT_PROBE": "tracepoint__",
    "KFUNC_PROBE": "kfunc__",
    "KRETFUNC_PROBE": "kretfunc__",
    "LSM_PROBE": "lsm__",
}


def hooks(source: str) -> Iterator[Hook]:
    """Yields the programs that a source declares, found by text search; for messages with a line."""
    text = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), source)
    for found in _MACRO.finditer(text):
        prefix, name = _PREFIXES[found["macro"]], found["first"]
        if found["macro"] == "TRACEPOINT_PROBE" and found["second"]:
            name = f"{name}__{found['second']}"
        shown = name.replace("__", ":", 1) if prefix == "tracepoint__" else name
        yield Hook(prefix + name, prefix[:-2], shown, _line(text, found.start("macro")))
    for found in _FUNCTION.finditer(text):
        prefix, _, name = found["name"].partition("__")
        yield Hook(found["name"], prefix, name, _line(text, found.start("name")))


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _at(file: str, line: int, text: str) -> str:
    quoted = file.replace("\\", "\\\\").replace('"', '\\"')
    return f'#line {line} "{quoted}"\n{text}\n'


def _marked(file: str, source: str) -> str:
    """Sets #line again after each TRACEPOINT_PROBE, before which bcc inserts a struct."""
    text = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), source)
    after = set()
    for found in _MACRO.finditer(text):
        end = text.find(")", found.end())
        if found["macro"] == "TRACEPOINT_PROBE" and end >= 0:
            after.add(_line(text, end))
    lines = source.split("\n")
    return "\n".join(
        line + "\n" + _at(file, number + 1, "").rstrip("\n") if number in after else line
        for number, line in enumerate(lines, 1)
    )


def compose(probe: Definition, source: str) -> str:
    """Returns the complete source."""
    struct = f"struct {probe.event}"
    head = f"#define BPF_LICENSE {probe.license}\n"
    parts = [head, _at("ringfence.h", 1, HELPERS.read_text())]
    parts.append(_at(str(probe.source), 1, _marked(str(probe.source), source)))
    event = probe.places["event"]
    parts.append(_promise(event, f"sizeof({struct}) > 0"))
    for name, place in _members(probe):
        parts.append(_promise(place, f"sizeof((({struct} *)0)->{name}) > 0"))
    if probe.owner.how == "task":
        is_task = f"__builtin_types_compatible_p(__typeof__((({struct} *)0)->task), struct rf_task)"
        parts.append(
            _promise(probe.places["container"], is_task, "its member `task` is not a struct rf_task")
        )
    parts.append(_at(event.file, event.line, f"BPF_ARRAY(rf_shape, {struct}, 1);"))
    return "".join(parts)


def _members(probe: Definition) -> Iterator[tuple[str, Place]]:
    owner = probe.owner
    for key, name in (("cgroup", owner.cgroup), ("pid", owner.pid), ("start", owner.start)):
        if name:
            yield name, probe.places[key]
    for field in probe.fields.values():
        yield field.name, field.place


def _promise(place: Place, condition: str, message: str = "") -> str:
    return _at(place.file, place.line, f'_Static_assert({condition}, "{message}");')


def flags(probe: Definition, subsystem: str, maps: str, include: Path) -> list[str]:
    """Returns clang's flags. `maps`: directory of the agent's pinned maps; empty without an agent."""
    window = _WINDOW_NS if probe.rate >= 100 else _SECOND_NS
    defines: dict[str, object] = {
        **probe.parameters,
        "RF_EVENT": probe.event,
        "RF_EVENT_NAME": f'"{probe.event}"',
        "RF_RING_PAGES": probe.ring // _PAGE,
        "RF_SAMPLE": probe.sample,
        "RF_WINDOW_NS": f"{window}ULL",
        "RF_WINDOW_EVENTS": probe.rate * window // _SECOND_NS,
        "RF_WINDOW_CONTAINERS": _CONTAINERS_AT_ONCE,
        "RF_WINDOWS": _WINDOWS,
    }
    if subsystem:
        defines["RF_SUBSYS"] = f"{subsystem}_cgrp_id"
    owned = {"task": "task.container", "cgroup": probe.owner.cgroup, "process": ""}[probe.owner.how]
    if owned:
        defines["RF_OWNER"] = owned
    if maps:
        defines["RF_MAPS"] = f'"{maps}"'
        if owned and not probe.keep_host:
            defines["RF_DROP_HOST"] = 1
    return ["-w", f"-I{include}", f"-I{probe.source.parent}", *(f"-D{k}={v}" for k, v in defines.items())]
