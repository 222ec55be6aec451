# SPDX-License-Identifier: Apache-2.0
"""docs/coverage.md: what became of every attack on every kernel, from runs of `ringfence policy test`.

`python -m tests.vm coverage` boots each kernel of the catalogue (and runs on the machine's own), keeps what
was measured in tests/vm/results and writes the page; `--render` only writes the page.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.escape.rows import TECHNIQUES, cases_of
from tests.support.cgroups import PREFIX
from tests.vm.catalogue import Prepared
from tests.vm.machine import ENVIRONMENT, Job, run
from tests.vm.suite import ROOT, SLOWDOWN

__all__ = ["HOST", "PAGE", "RESULTS", "measure_guest", "measure_host", "page", "saved"]

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = ROOT / "docs/coverage.md"
HOST = "host"
#: columns of the table, in this order; the machine's own kernel comes last
ORDER = ("6.1", "6.12", "trixie-backports", "sid", HOST)
_STRENGTH = ("denied", "killed", "seen", "blind", "untried", "absent")
_ELSEWHERE = {
    42: "by our runtime only",
    59: "by `task.drift` (policies/invariants.yaml)",
}
Result = Mapping[str, Any]


def _argv(slowdown: float) -> list[str]:
    words = ["--json", "--prefix", PREFIX, "--slowdown", str(slowdown)]
    return [sys.executable, "-m", "ringfence", "policy", "test", *words]


def measure_host() -> Result:
    """On this machine's own kernel."""
    got = subprocess.run(_argv(1), cwd=ROOT, check=False, stdout=subprocess.PIPE)
    return _keep(HOST, got.stdout.decode(), 0.0)


def measure_guest(kernel: Prepared, echo: IO[bytes] | None = None, timeout: float = 1800) -> Result:
    """In one boot of a kernel. Raises RuntimeError when the machine did not come up or said nothing."""
    RESULTS.mkdir(exist_ok=True)
    raw = RESULTS / f"{kernel.name}.raw"
    raw.unlink(missing_ok=True)
    began = time.monotonic()
    # Audit and detectors are the same on every kernel: the machine's own run has them.
    inner = " ".join([*_argv(SLOWDOWN), "--mode", "enforce", "--no-detectors"])
    path = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    job = Job(["sh", "-c", f"{inner} > {raw}"], ROOT, {**ENVIRONMENT, **path}, [RESULTS], timeout)
    outcome = run(kernel, job, echo=echo)
    if outcome.status not in (0, 1) or not raw.exists():
        tail = outcome.console[-2000:]
        raise RuntimeError(f"{kernel.release}: status {outcome.status} {outcome.reason}\n{tail}")
    text = raw.read_text()
    raw.unlink()
    return _keep(kernel.name, text, time.monotonic() - began)


def _keep(name: str, text: str, seconds: float) -> Result:
    measured = json.loads(text)
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    kept = {
        "name": name, "kernel": measured["kernel"], "commit": commit, "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds), "cases": measured["cases"],
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def saved() -> list[Result]:
    """What was measured last, in the order of the columns."""
    return [
        json.loads((RESULTS / f"{name}.json").read_text())
        for name in ORDER
        if (RESULTS / f"{name}.json").exists()
    ]


def page(results: Sequence[Result]) -> str:
    """The whole of docs/coverage.md."""
    return (
        "\n".join([_HEAD, *_kernels(results), *_rows(results), *_attacks(results), *_problems(results)])
        + "\n"
    )


_HEAD = """\
# Coverage

What became of each way out of a container, on each kernel, under the pack in enforce mode. Nothing here is claimed: every cell is the outcome of an attack
that `ringfence policy test` ran in a container of its own on that kernel. `python -m tests.vm coverage` runs it on all of them and writes this page anew.

- **denied**: the call failed with EPERM before it had an effect, by BPF-LSM (`lsm`) or by cgroup-BPF (`cgroup`).
- **killed**: SIGKILL as the call began or the file was opened: the task never ran another instruction, but the call it was in may have taken effect.
- **seen**: told of, and let through: the rule only asks to tell, or nothing on this kernel could stop it.
- **blind**: not told of.
- **absent**: this kernel has no such call or file, so there was nothing to try.

A row with several outcomes has several attacks; all of them are in the [second table](#every-attack). Where only *seen* can be had on every kernel, the last column says
why. *Our runtime* means that `ringfence-runtime` refuses it by itself, whatever the agent does (`tests/runtime/test_cves.py`)."""


def _kernels(results: Sequence[Result]) -> Iterable[str]:
    yield "\n| column | kernel | measured | commit | attacks | stopped | seen | absent |"
    yield "|---|---|---|---|---|---|---|---|"
    for result in results:
        counts = [sum(case["outcome"] in words for case in result["cases"]) for words in
                  (("denied", "killed"), ("seen",), ("absent", "untried"))]  # fmt: skip
        numbers = " | ".join(map(str, [len(result["cases"]), *counts]))
        yield f"| {result['name']} | {result['kernel']} | {result['date']} | {result['commit']} | {numbers} |"


def _rows(results: Sequence[Result]) -> Iterable[str]:
    yield "\n## Every row of the checklist\n"
    heads = [str(result["name"]) for result in results]
    yield f"| row | technique | {' | '.join(heads)} | our runtime | only seen, because |"
    yield f"|---|---|{'---|' * len(heads)}---|---|"
    for technique in TECHNIQUES:
        cells = [_cell(technique.row, result) for result in results]
        guard = "refuses it" if technique.guards else ""
        yield f"| {technique.row} | {technique.title} | {' | '.join(cells)} | {guard} | {technique.why} |"


def _cell(row: int, result: Result) -> str:
    """The distinct outcomes of a row's attacks, the strongest first; those that are absent only if all are."""
    found = {
        (_STRENGTH.index(case["outcome"]), _words(case)) for case in result["cases"] if row in case["rows"]
    }
    there = sorted(entry for entry in found if entry[0] < _STRENGTH.index("untried"))
    if there or found:
        return ", ".join(words for _, words in (there or sorted(found)))
    if cases_of(row):
        return "seen (by the agent itself)"
    return _ELSEWHERE[row]


def _words(case: Mapping[str, Any]) -> str:
    optional = " (optional rule)" if case["optional"] else ""
    by = f" `{case['mechanism']}`" if case["mechanism"] not in ("", "observe") else ""
    return f"{case['outcome']}{by}{optional}"


def _attacks(results: Sequence[Result]) -> Iterable[str]:
    yield "\n## Every attack\n"
    heads = [str(result["name"]) for result in results]
    yield f"| rows | rule | attack | {' | '.join(heads)} |"
    yield f"|---|---|---|{'---|' * len(heads)}"
    by_result = [{(case["rule"], case["attack"]): case for case in result["cases"]} for result in results]
    for case in results[-1]["cases"]:
        key = (case["rule"], case["attack"])
        cells = [_words(found[key]) if key in found else "-" for found in by_result]
        rows = ", ".join(map(str, case["rows"]))
        yield f"| {rows} | `{case['rule']}` | `{case['attack']}` | {' | '.join(cells)} |"


def _problems(results: Sequence[Result]) -> Iterable[str]:
    yield "\n## What was not as it must be\n"
    found = [
        f"- {result['kernel']}, `{case['rule']}`, `{case['attack']}`: {problem}"
        for result in results
        for case in result["cases"]
        for problem in case["problems"]
    ]
    yield from found or [
        "Nothing: every attack came to what the agent said, in both modes, and every twin passed."
    ]
