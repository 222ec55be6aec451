# SPDX-License-Identifier: Apache-2.0
"""Generates the tables of docs/reference/policy-language.md from the vocabulary.

`python -m tests.unit.policy.reference` rewrites them; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ringfence.abi import Mechanism
from ringfence.policy import NodeTiers
from ringfence.policy.operand import EventWords, Kind, Operand
from ringfence.policy.shared_operands import TASK_WORDS
from ringfence.policy.vocabulary import EVENTS

__all__ = ["PAGE", "TABLES", "parts", "renewed"]

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/policy-language.md"
COMMON = ("task", "exe")
SHOWN = 8  # maximum number of words of one operand; the schema has all
_PART = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def _events() -> list[str]:
    usual = NodeTiers.usual()
    lines = ["| `event` | a process ... | without BPF-LSM | operands |", "|---|---|---|---|"]
    for kind, words in EVENTS.items():
        here = usual.mechanisms.get(kind, frozenset())
        by = "deny" if Mechanism.CGROUP in here else "kill" if here else "blind"
        names = ", ".join(f"`{o.name}`" for o in words.operands if o.name not in COMMON) or "-"
        lines.append(f"| `{words.label}` | {words.meaning} | {by} | {names} |")
    return lines


def _operands() -> list[str]:
    lines = ["| operand | of | written as | meaning |", "|---|---|---|---|"]
    for operand, events in _by_operand():
        names = "every event" if operand.name in COMMON else ", ".join(events)
        mark = " (*)" if operand.caution else ""
        lines.append(f"| `{operand.name}`{mark} | {names} | {_written(operand)} | {operand.meaning} |")
    return lines


def _by_operand() -> list[tuple[Operand, list[str]]]:
    """Returns operands with their events; operands that differ only in their dim share a line."""
    found: dict[tuple[str, Kind, str, tuple[str, ...]], tuple[Operand, list[str]]] = {}
    for words in EVENTS.values():
        for operand in words.operands:
            key = (operand.name, operand.kind, operand.meaning, tuple(operand.words))
            found.setdefault(key, (operand, []))[1].append(words.label)
    return sorted(found.values(), key=lambda pair: (pair[0].name not in COMMON, pair[0].name))


def _written(operand: Operand) -> str:
    words = [f"`{word}`" for word in operand.words]
    some = ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")
    number = " or a number" if operand.largest and words else ""
    return f"{operand.kind.value}: {some}{number}" if words else operand.kind.value


def _costly() -> list[str]:
    lines = ["| `event` | what a rule on it costs |", "|---|---|"]
    return lines + [f"| `{w.label}` | {w.hot} |" for w in EVENTS.values() if w.hot]


def _cautions() -> list[str]:
    lines = ["| operand | of | how it can be evaded |", "|---|---|---|"]
    cautious: dict[tuple[str, str], list[EventWords]] = {}
    for words in EVENTS.values():
        for operand in words.operands:
            if operand.caution:
                cautious.setdefault((operand.name, operand.caution), []).append(words)
    for (name, caution), events in cautious.items():
        labels = "every event" if name in COMMON else ", ".join(words.label for words in events)
        lines.append(f"| `{name}` | {labels} | {caution} |")
    return lines


def _task() -> list[str]:
    return [", ".join(f"`{word}`" for word in TASK_WORDS) + "."]


TABLES: dict[str, Callable[[], list[str]]] = {
    "events": _events,
    "operands": _operands,
    "task": _task,
    "costly": _costly,
    "cautions": _cautions,
}


def parts(page: str) -> dict[str, str]:
    """Name -> text of each generated part of the page."""
    return {name: body for _, name, body, _ in _PART.findall(page)}


def renewed(page: str) -> str:
    """Returns the page with every generated part renewed."""

    def renew(found: re.Match[str]) -> str:
        return found[1] + "\n" + "\n".join(TABLES[found[2]]()) + "\n\n" + found[4]

    return _PART.sub(renew, page)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
