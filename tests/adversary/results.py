# SPDX-License-Identifier: Apache-2.0
"""Results of the attacks: kept in results/, and the table of docs/explanation/threat-model.md."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.adversary.attack import ONCE, STOPPED, THROUGH, UNTRIED
from tests.adversary.expected import FILE
from tests.adversary.table import CLASSES
from tools.vm.coverage import commit

__all__ = [
    "PAGE",
    "RESULTS",
    "accept",
    "accept_saved",
    "keep",
    "read_junit",
    "regenerated",
    "render",
]

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = Path(__file__).resolve().parents[2] / "docs/explanation/threat-model.md"
BEGIN, END = "<!-- table: adversary -->\n", "<!-- end -->\n"
Found = dict[str, list[str]]


def read_junit(path: Path) -> Found:
    """Returns attack and kind -> verdict (word, how, twin), from the properties of the tests."""
    found: Found = {}
    if not path.exists():
        return found
    for one in ElementTree.parse(path).iter("property"):
        if one.get("name") == "verdict":
            _, key, *verdict = json.loads(str(one.get("value")))
            found[key] = verdict
    return found


def keep(kernel: str, tier: str, release: str, found: Found) -> None:
    """Writes results/KERNEL-TIER.json."""
    RESULTS.mkdir(exist_ok=True)
    kept = {"kernel": release, "tier": tier, "date": time.strftime("%Y-%m-%d"), "commit": commit()}
    text = json.dumps({**kept, "verdicts": dict(sorted(found.items()))}, indent=1)
    (RESULTS / f"{kernel}-{tier}.json").write_text(text + "\n")


def accept(kernel: str, tier: str, found: Found) -> None:
    """Makes expected.txt say of these attacks what the results say."""
    lines = [line for line in FILE.read_text().splitlines() if line]
    prefix = f"{tier} {kernel} "
    kept = [line for line in lines if line.removeprefix("? ") not in {prefix + key for key in found}]
    kept += [prefix + key for key, (word, _, _) in found.items() if word in (THROUGH, ONCE)]
    FILE.write_text("".join(f"{line}\n" for line in sorted(kept)))


def accept_saved() -> None:
    """The same for all saved results."""
    for stem, one in _saved().items():
        accept(stem.rpartition("-")[0], one["tier"], one["verdicts"])


def _saved() -> Mapping[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def _cell(verdicts: Mapping[str, list[str]], cls: str) -> str:
    words = [word for key, (word, _, _) in verdicts.items() if key.split()[0] == cls and word != UNTRIED]
    if not words:
        return "-"
    counts = {word: words.count(word) for word in (STOPPED, ONCE, THROUGH)}
    said = [f"{counts[STOPPED]} of {len(words)} stopped"]
    said += [f"{counts[ONCE]} by one call"] if counts[ONCE] else []
    said += [f"**{counts[THROUGH]} through**"] if counts[THROUGH] else []
    return ", ".join(said)


def _table() -> Iterator[str]:
    """Lines of two tables: what stands against each class, and what each kernel and tier let through."""
    yield "| class | with BPF-LSM | without | what remains |"
    yield "|---|---|---|---|"
    for cls, about in CLASSES.items():
        yield f"| {cls}: {about.title} | {about.hooks} | {about.calls} | {about.remains} |"
    saved = _saved()
    if not saved:
        return
    tiers = {"lsm": "with BPF-LSM", "kill": "without"}
    columns = [f"{stem.rpartition('-')[0]} {tiers[one['tier']]}" for stem, one in saved.items()]
    yield ""
    yield "Measured (`tests/adversary/results` has each attack and the commit):"
    yield ""
    yield f"| class | {' | '.join(columns)} |"
    yield "|---|" + "---|" * len(saved)
    for cls in CLASSES:
        cells = [_cell(one["verdicts"], cls) for one in saved.values()]
        yield f"| {cls} | " + " | ".join(cells) + " |"


def regenerated(page: str) -> str:
    """Returns the page with its table written again."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert (begin, end) == (BEGIN, END)
    return head + begin + "\n" + "\n".join(_table()) + "\n\n" + end + tail


def render() -> None:
    """Writes the table of docs/explanation/threat-model.md."""
    PAGE.write_text(regenerated(PAGE.read_text()))
