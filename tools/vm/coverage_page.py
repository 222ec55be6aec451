# SPDX-License-Identifier: Apache-2.0
"""Makes docs/reference/coverage.md from the results of tools.vm.coverage. Pure: results in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.escape.cases import TECHNIQUES, Technique
from tools.vm.coverage import HOST, ORDER
from tools.vm.reasons import ABSENT, EVERYWHERE, UNSEEN, WITHOUT_LSM
from tools.vm.suite import ROOT

__all__ = ["PAGE", "page", "summary"]

PAGE = ROOT / "docs/reference/coverage.md"
Result = Mapping[str, Any]
Case = Mapping[str, Any]
_STRENGTH = ("denied", "killed", "seen", "blind", "untried", "absent")
#: the words of results/benign.json -> those of the page
_SHOWN = {"left alone": "OK", "stopped": "false positive", "not here": "not run"}

_HEAD = """\
# Coverage

The outcome of each container escape, on each kernel, under the default pack in enforce mode. Every cell
is the outcome of an attack that `ringfence policy test` ran in its own container on that kernel (for
rows 42 and 43, in a program of the host). Row 59 needs a kernel module that simulates an exploit, and
some attacks write settings of the node: these run in virtual machines only (*untried* elsewhere).
`python -m tools.vm coverage` runs all attacks and rewrites this page.

- **denied**: the call failed with EPERM before it had an effect, by BPF-LSM (`lsm`), by the same
  programs at the functions that call its hooks (`hook`), or by cgroup-BPF (`cgroup`).
- **killed**: SIGKILL at the start of the call or at the open of the file. The task never ran another
  instruction, but the current call may have taken effect.
- **seen**: reported, but not stopped. The table gives the reason for each.
- **blind**: not reported, because BPF-LSM is not available. The table gives the reason for each.
- **absent**: this kernel has no such call or file ([why](#absent-on-some-kernels)).

A row with several outcomes has several attacks; the [second table](#all-attacks) has all of them.
*Ringfence's runtime* means that `ringfence-runtime` itself refuses it, independently of the agent
(`tests/runtime/test_cves.py`)."""


def page(results: Sequence[Result], benign: Mapping[str, Result], cost: Result | None) -> str:
    """Returns the text of docs/reference/coverage.md."""
    parts = (
        _kernels(results), _rows(results), _attacks(results), _absent(results), _problems(results),
        _benign(benign), _cost(cost, results),
    )  # fmt: skip
    lines = [_HEAD, *(line for part in parts for line in part)]
    return "\n".join(lines) + "\n"


def summary(results: Sequence[Result]) -> list[str]:
    """Returns the rows of the table in README.md, one for each kernel."""
    rows = {technique.row for technique in TECHNIQUES}
    lines = []
    for result in results:
        cases = result["cases"]
        counts = _counts(result, ("denied",), ("killed",), ("seen",), ("absent", "untried"), ("blind",))
        seen = {
            row for case in cases if case["outcome"] in ("denied", "killed", "seen") for row in case["rows"]
        }
        kernel = ".".join(result["kernel"].split(".")[:2])
        shown = (
            f"{kernel}, {_TIERS[_tier(result)][0]}",
            len(cases),
            *counts,
            f"{len(rows & seen)} of {len(rows)}",
        )
        lines.append(f"| {' | '.join(map(str, shown))} |")
    return lines


def _counts(result: Result, *groups: Sequence[str]) -> list[int]:
    """Returns for each group of outcomes how many attacks ended so."""
    return [sum(case["outcome"] in words for case in result["cases"]) for words in groups]


def _tier(result: Result) -> str:
    """Returns lsm, hook or kill: the strongest mechanism for calls that decided on that kernel."""
    found = {case["mechanism"] for case in result["cases"]}
    return next(name for name in ("lsm", "hook", "kill") if name in found)


#: tier -> words in the head of a column, words for its mechanisms
_TIERS = {
    "lsm": ("BPF-LSM", "BPF-LSM, cgroup-BPF"),
    "hook": ("hooks without BPF-LSM", "programs at hooks, cgroup-BPF: **no BPF-LSM**"),
    "kill": ("no BPF-LSM", "cgroup-BPF, SIGKILL: **no BPF-LSM**"),
}


def _head(result: Result) -> str:
    return f"{result['name']}, {_TIERS[_tier(result)][0]}"


def _kernels(results: Sequence[Result]) -> Iterator[str]:
    yield "\n| column | kernel | mechanisms | measured | commit | attacks | stopped | seen | absent |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for result in results:
        counts = _counts(result, ("denied", "killed"), ("seen",), ("absent", "untried"))
        tier = _TIERS[_tier(result)][1]
        facts = (result["name"], result["kernel"], tier, result["date"], result["commit"])
        yield f"| {' | '.join(map(str, (*facts, len(result['cases']), *counts)))} |"


def _rows(results: Sequence[Result]) -> Iterator[str]:
    yield "\n## All rows of the checklist\n"
    heads = [_head(result) for result in results]
    yield f"| row | technique | {' | '.join(heads)} | Ringfence's runtime | why it is only seen |"
    yield f"|---|---|{'---|' * len(heads)}---|---|"
    for technique in TECHNIQUES:
        cells = " | ".join(_cell(technique.row, result) for result in results)
        guard = "refuses it" if technique.guards else ""
        why = _why(technique, results)
        yield f"| {technique.row} | {technique.title} | {cells} | {guard} | {why} |"


def _cell(row: int, result: Result) -> str:
    """Returns the distinct outcomes of a row's attacks, the strongest first; absent only if all are."""
    found = {
        (_STRENGTH.index(case["outcome"]), _words(case)) for case in result["cases"] if row in case["rows"]
    }
    there = sorted(entry for entry in found if entry[0] < _STRENGTH.index("untried"))
    reported = [entry for entry in there if entry[0] != _STRENGTH.index("blind")]
    return ", ".join(words for _, words in (reported or there or sorted(found))) or "-"


def _why(technique: Technique, results: Sequence[Result]) -> str:
    """Returns the reason for each rule of the row with an attack that some kernel did not stop."""
    found = dict.fromkeys(
        _reason(case)
        for result in results
        for case in result["cases"]
        if technique.row in case["rows"] and case["outcome"] in ("seen", "blind")
    )
    return "; ".join(found)


def _reason(case: Case) -> str:
    rule = case["rule"]
    if case["outcome"] == "blind":
        return f"`{rule}` needs BPF-LSM: {UNSEEN.get(rule, 'unexpected')}"
    if rule in WITHOUT_LSM:
        return f"`{rule}` without BPF-LSM: {WITHOUT_LSM[rule]}"
    return f"`{rule}`: {EVERYWHERE[rule]}"


def _words(case: Case) -> str:
    optional = " (optional rule)" if case["optional"] else ""
    by = f" `{case['mechanism']}`" if case["mechanism"] not in ("", "observe") else ""
    return f"{case['outcome']}{by}{optional}"


def _attacks(results: Sequence[Result]) -> Iterator[str]:
    yield "\n## All attacks\n"
    yield f"| rows | rule | attack | {' | '.join(map(_head, results))} |"
    yield f"|---|---|---|{'---|' * len(results)}"
    by_result = [{(case["rule"], case["attack"]): case for case in result["cases"]} for result in results]
    for case in results[-1]["cases"]:
        key = (case["rule"], case["attack"])
        cells = [_words(found[key]) if key in found else "-" for found in by_result]
        rows = ", ".join(map(str, case["rows"]))
        yield f"| {rows} | `{case['rule']}` | `{case['attack']}` | {' | '.join(cells)} |"


def _absent(results: Sequence[Result]) -> Iterator[str]:
    yield "\n## Absent on some kernels\n"
    yield "| attack | kernels | reason |"
    yield "|---|---|---|"
    where: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for case in result["cases"]:
            if case["outcome"] in ("absent", "untried"):
                where.setdefault((case["attack"], _lack(case)), []).append(str(result["name"]))
    for (attack, why), names in where.items():
        yield f"| `{attack}` | {', '.join(names)} | {why} |"


def _lack(case: Case) -> str:
    if case["outcome"] == "untried":
        return str(case["note"])
    words = case["attack"].split()
    return next((why for word, why in ABSENT.items() if word in words), "") or str(case["note"])


def _benign(found: Mapping[str, Result]) -> Iterator[str]:
    """Yields the study of false positives."""
    columns = {name: found[name] for name in ORDER if name in found}
    if not columns:
        return
    stopped = sum(what == "stopped" for one in columns.values() for what in one["workloads"].values())
    ran = sum(what != "not here" for one in columns.values() for what in one["workloads"].values())
    yield "\n## Benign workloads\n"
    yield (
        "Real programs in containers with an engine's default capabilities, under the whole pack in enforce\n"
        "mode, including `policies/invariants.yaml` (`tests/benign`): "
        f"{ran} runs on {len(columns)} kernels, {stopped} false\n"
        "positives. *OK*: the program did its work, no call was denied or killed, and only alerts that the\n"
        "test expects were raised. *Not run*: it needs cgroup v2 only."
    )
    yield f"\n| workload | {' | '.join(columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for workload in dict.fromkeys(name for one in columns.values() for name in one["workloads"]):
        cells = [_SHOWN.get(one["workloads"].get(workload, ""), "-") for one in columns.values()]
        yield f"| {workload} | {' | '.join(cells)} |"
    measured = [
        f"{name} {one['kernel']}, {one['date']}, commit {one['commit']}" for name, one in columns.items()
    ]
    yield f"\nMeasured: {'; '.join(measured)}."


def _cost(cost: Result | None, results: Sequence[Result]) -> Iterable[str]:
    """Yields the cost of the twins' calls with and without the agent."""
    if cost is None:
        return
    yield "\n## Cost of a benign call\n"
    yield (
        "The call of each benign twin in a container under the pack in enforce mode, and in one without an\n"
        f"agent: the shortest of {cost['calls']} calls in each of {cost['rounds']} alternating rounds, on Linux\n"
        f"{cost['kernel']} ({cost['date']}, commit {cost['commit']}), which has no BPF-LSM. Virtual machines\n"
        "emulate every call, so times from there are not meaningful. `-`: the call ends its program, or its\n"
        "files do not exist the second time."
    )
    yield "\n| benign call | of rule | attack stopped by | without, µs | with, µs | added, µs |"
    yield "|---|---|---|---|---|---|"
    host = next((result for result in results if result["name"] == HOST), None)
    by = {(c["rule"], c["twin"]): c["mechanism"] for c in host["cases"]} if host else {}
    for twin in dict.fromkeys(row["twin"] for row in cost["rows"]):
        same = [row for row in cost["rows"] if row["twin"] == twin]
        rules = dict.fromkeys(row["rule"] for row in same)
        mechanisms = dict.fromkeys(by.get((row["rule"], twin), "") for row in same)
        shown = [f"`{name}`" if name not in ("", "observe") else "alert only" for name in mechanisms]
        names = ", ".join(f"`{rule}`" for rule in rules)
        yield f"| `{twin}` | {names} | {', '.join(shown)} | {' | '.join(_times(same))} |"


def _times(same: Sequence[Case]) -> tuple[str, str, str]:
    """Returns the times without and with the agent, and the difference, in microseconds."""
    measured = [row for row in same if row["without_ns"] and row["with_ns"]]
    if not measured:
        return ("-", "-", "-")
    without, fenced = (min(row[key] for row in measured) / 1000 for key in ("without_ns", "with_ns"))
    return (f"{without:.2f}", f"{fenced:.2f}", f"{fenced - without:+.2f}")


def _problems(results: Sequence[Result]) -> Iterator[str]:
    yield "\n## Deviations\n"
    found = [
        f"- {result['kernel']}, `{case['rule']}`, `{case['attack']}`: {problem}"
        for result in results
        for case in result["cases"]
        for problem in case["problems"]
    ]
    yield from found or [
        "None: every attack had the outcome that the agent stated, in both modes on the machine's own kernel\n"
        "and in enforce mode on the others, and no twin was affected."
    ]
