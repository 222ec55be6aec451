# SPDX-License-Identifier: Apache-2.0
"""Converts errors of clang, the verifier and the kernel to problems with file, line and column. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ringfence.errors import Problem
from ringfence.probes.compose import Hook
from ringfence.probes.definition import Definition

__all__ = ["explain"]

_CLANG = re.compile(r"^(?P<file>.+?):(?P<line>\d+):(?P<column>\d+): (fatal )?error: (?P<text>.*)$", re.M)
_LINE = re.compile(r"^; (?P<code>.*?) ?@ (?P<file>.+):(?P<line>\d+)$", re.M)
_NOISE = re.compile(
    r"^(processed \d+ insns|\s*\d+: [(R]|;|R\d+=|from \d+ to|(cur|old) state:|bpf: Failed|\s*$"
    r"|verification time|stack depth)"
)
_STRUCT = re.compile(r"struct tracepoint__(\w+?)__(\w+)'")
_INCOMPLETE = re.compile(r"incomplete type 'struct (\w+)'")
_MEMBER = re.compile(r"no member named '(\w+)' in 'struct (\w+)'(?P<hint>; did you mean '\w+'\?)?")
_ASSERT = re.compile(r'static_assert failed.*?"(?P<text>.*)"$|static assertion failed.*?: (?P<new>.*)$')
_MEMORY = re.compile(r"out of memory|bad_alloc|Cannot allocate memory")
_MOST = 5
_REASONS = {
    "compile": "does not compile",
    "memory": "bcc needed more memory than `probes.memory` allows",
    "child": "bcc's process failed",
}


def explain(probe: Definition, hooks: Sequence[Hook], answer: Mapping[str, str], said: str) -> list[Problem]:
    """Returns the problems, the most specific first; `said` is all of standard error."""
    stage, subject, message = answer["stage"], answer["subject"], answer["message"]
    if stage == "compile":
        found = list(_clang(probe, said))
        return found or [_whole(probe, f"{_REASONS['compile']}: {_last(said) or message}")]
    if stage == "verify":
        return [_verifier(probe, hooks, subject, said, message)]
    if stage == "attach":
        hook = next((hook for hook in hooks if hook.function == subject), None)
        what = f"{hook.kind} {hook.name}" if hook else subject
        return [_at(probe, hook.line if hook else 0, f"cannot be attached to {what}: {_reason(message)}")]
    if stage == "function":
        line = _definition_line(probe, subject)
        return [_at(probe, line, f"{subject}() {message}" if subject else message)]
    if stage == "hook":
        hook = next((hook for hook in hooks if hook.function == subject), None)
        return [_at(probe, hook.line if hook else 0, message)]
    if stage == "crash" and _MEMORY.search(said):
        stage = "memory"
    return [_whole(probe, f"{_REASONS[stage]}: {message}" if stage in _REASONS else message)]


def _at(probe: Definition, line: int, message: str, column: int = 0) -> Problem:
    return Problem(str(probe.source), line, column, "", message)


def _whole(probe: Definition, message: str) -> Problem:
    return _at(probe, 0, message)


def _clang(probe: Definition, said: str) -> Iterator[Problem]:
    found: list[Problem] = []
    errors = list(_CLANG.finditer(said))
    promised = {_missing(error) for error in errors if error["file"] == str(probe.yaml)} - {None}
    for error in errors:
        file, line, text = error["file"], int(error["line"]), error["text"]
        if file == str(probe.yaml):
            problem = _of_yaml(probe, line, text)
        elif _missing(error) in promised:
            continue  # the YAML names the same member, and its error is more specific
        else:
            if trace := _STRUCT.search(text):
                text = f"this kernel has no tracepoint {trace[1]}:{trace[2]}"
            elif broken := _ASSERT.search(text):
                text = broken["text"] or broken["new"]
            problem = Problem(file, line, int(error["column"]), "", text)
        if all((p.file, p.line) != (problem.file, problem.line) for p in found):
            found.append(problem)
    # A missing struct also makes every line that uses it wrong: report the YAML's error first.
    root = [problem for problem in found if "declares no struct" in problem.message]
    yield from (root or found)[:_MOST]


def _missing(error: re.Match[str]) -> tuple[str, str] | None:
    """Returns the (member, struct) that a clang error reports as missing."""
    member = _MEMBER.search(error["text"])
    return (member[1], member[2]) if member else None


def _of_yaml(probe: Definition, line: int, text: str) -> Problem:
    source = probe.source.name
    if missing := _INCOMPLETE.search(text):
        text = f"{source} declares no struct {missing[1]!r}"
    elif member := _MEMBER.search(text):
        text = f"struct {member[2]} in {source} has no member {member[1]!r}{member['hint'] or ''}"
        if member[1] == "task" and probe.owner.how == "task":
            text += ": `container: task` needs `struct rf_task task;` in it"
    elif broken := _ASSERT.search(text):
        text = f"struct {probe.event}: {broken['text'] or broken['new']}"
    places = [*probe.places.items(), *((f"fields.{f.name}", f.place) for f in probe.fields.values())]
    where, place = next((found for found in places if found[1].line == line), ("", None))
    column = place.column if place else 0
    return Problem(str(probe.yaml), line, column, f"spec.{where}" if where else "", text)


def _verifier(probe: Definition, hooks: Sequence[Hook], function: str, said: str, message: str) -> Problem:
    """Returns the line if the verifier names it (since about 6.9), else the refused program's."""
    places = [found for found in _LINE.finditer(said) if found["file"] == probe.source.name]
    line = int(places[-1]["line"]) if places else 0
    if not line:
        line = next((hook.line for hook in hooks if hook.function == function), 0)
    reasons = [text.strip() for text in said.splitlines() if not _NOISE.match(text)]
    reason = reasons[-1] if reasons else _reason(message)
    return _at(probe, line, f"the kernel refuses {function}(): {reason}")


def _reason(message: str) -> str:
    return {
        "ENOENT": "this kernel has no such hook",
        "EPERM": "this kernel does not permit it",
        "ENOTSUPP": "this kernel cannot do that",
    }.get(message.rpartition("(")[2].rstrip(")"), message)


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _definition_line(probe: Definition, function: str) -> int:
    try:
        text = probe.source.read_text(errors="replace")
    except OSError:
        return 0
    found = re.search(rf"\b{re.escape(function)}\s*\(", text) if function else None
    return text.count("\n", 0, found.start()) + 1 if found else 0
