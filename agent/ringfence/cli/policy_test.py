# SPDX-License-Identifier: Apache-2.0
"""`ringfence policy test`: runs every rule's attack and its benign twin in temporary containers.

Nothing else on the node is touched: the attacked objects are created for the test (a disk image is mounted
below a temporary directory while it runs), and the private agent watches only the test's containers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringfence.cli.output import colour, print_document, room, table
from ringfence.cli.parser import DOCUMENTS, Commands, Parser, add_command, add_output

if TYPE_CHECKING:
    from ringfence.proof.campaign import Result
    from ringfence.proof.cases import Case
    from ringfence.proof.verdict import Judged

_PREFIX = "ringfence-test-"
_COLOURS = {"denied": "green", "killed": "green", "seen": "yellow", "blind": "red"}


def register(parts: Commands) -> None:
    """Add the subcommand."""
    parser = add_command(
        parts,
        "test",
        run,
        help="run each rule's attack and its benign twin",
        text="Run a harmless version of each rule's attack and its benign twin (the nearest\n"
        "legitimate operation) in temporary containers, under a private agent, in audit and in\n"
        "enforce mode, and report the outcomes. Nothing outside these containers is touched.\n"
        "Exit code 1 if an outcome differs from the expected one. A rule is reported if its\n"
        "effective action is weaker than such a node should provide; with --strict (the default if\n"
        "CI is set) this is also a failure.",
        examples=(
            "ringfence policy test\n"
            "ringfence policy test --list\n"
            "ringfence policy test --rows 1-10,13 -o json\n"
            "ringfence policy test --policy my-policies/\n"
            "ringfence policy test --vm 6.12    # in a checkout: on another kernel"
        ),
    )
    _add_options(parser)
    _add_hidden(parser)
    add_output(parser)


def _add_options(parser: Parser) -> None:
    parser.add_argument(
        "--policy", action="append", type=Path, default=[], metavar="PATH",
        help="policy files or directories (default: the bundled policies)",
    )  # fmt: skip
    parser.add_argument(
        "--rows", type=_rows, default=frozenset(), metavar="N,M-K",
        help="test only these rows of the escape checklist",
    )  # fmt: skip
    parser.add_argument(
        "--mode", choices=("both", "enforce", "audit"), default="both", help="modes to test (default: both)"
    )
    parser.add_argument(
        "--list",
        dest="listing",
        action="store_true",
        help="list the attack and the benign twin of each rule; run nothing",
    )
    parser.add_argument(
        "--strict",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="fail if a rule is weaker than expected (default: if CI is set)",
    )
    parser.add_argument(
        "--runtime", metavar="PATH", help="OCI runtime (default: runc, else crun, else ringfence-runtime)"
    )
    parser.add_argument(
        "--vm", metavar="KERNEL", help="run in a virtual machine with this kernel (needs a source checkout)"
    )


def _add_hidden(parser: Parser) -> None:
    """Options for the project's own tests."""
    parser.add_argument("--prefix", default=_PREFIX, help=argparse.SUPPRESS)  # for concurrent tests
    parser.add_argument("--slowdown", type=float, default=1.0, help=argparse.SUPPRESS)  # for emulated guests
    # Also run attacks that write settings of the node: see ringfence.proof.host_attacks.
    parser.add_argument("--disposable", action="store_true", help=argparse.SUPPRESS)


def _rows(text: str) -> frozenset[int]:
    from ringfence.proof.checklist import TECHNIQUES

    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise argparse.ArgumentTypeError(f"{part!r} is neither a row nor a range of rows")
        found.update(range(int(first), int(last or first) + 1))
    if not found <= {technique.row for technique in TECHNIQUES}:
        raise argparse.ArgumentTypeError(f"the checklist has rows 1 to {len(TECHNIQUES)}")
    return frozenset(found)


def run(options: Any) -> int:
    """Runs the cases and prints the table. Returns 1 if an outcome is not the expected one."""
    if options.vm:
        return _in_machine(options)
    from ringfence.errors import Error, NotPermittedError

    groups, unknown = _groups(options)
    if options.listing:
        return _list(options, [case for _, cases in groups for case in cases], unknown)
    if os.geteuid() != 0:
        raise NotPermittedError("policy test needs root", hint="it loads BPF programs and starts containers")
    if not any(cases for _, cases in groups):
        raise Error(
            "none of these rules has a known attack", hint="each rule of the bundled policies has one"
        )
    judged: list[Judged] = []
    for number, (policies, cases) in enumerate(groups):
        if cases:
            judged += _run_group(options, number, policies, cases)
    return _show(options, judged, unknown)


def _groups(options: Any) -> tuple[list[tuple[list[Path], list[Case]]], list[str]]:
    """Returns groups of policies with their cases, and the rules that have no case.

    Optional rules run under a separate agent: they report legitimate actions, which other rules' benign
    twins perform.
    """
    from ringfence.config import packaged_policies
    from ringfence.errors import Error
    from ringfence.policy import load_policies
    from ringfence.proof.cases import CASES

    wanted = [case for case in CASES if not options.rows or options.rows & set(case.rows)]
    if not options.policy:
        pack = packaged_policies()
        if pack is None:
            raise Error("the bundled policies are missing", hint="give policies with --policy")
        return [
            ([pack], [case for case in wanted if not case.optional]),
            ([pack / "optional"], [case for case in wanted if case.optional]),
        ], []
    known = {rule.id for policy in load_policies(options.policy).policies for rule in policy.rules}
    cases = [case for case in wanted if case.rule in known]
    return [(options.policy, cases)], sorted(known - {case.rule for case in CASES})


def _run_group(options: Any, number: int, policies: Sequence[Path], cases: Sequence[Case]) -> list[Judged]:
    from ringfence.cli.client import request
    from ringfence.cli.progress import progress
    from ringfence.proof.campaign import Environment, run_cases
    from ringfence.proof.verdict import judge

    modes = ("enforce", "audit") if options.mode == "both" else (options.mode,)
    results: dict[str, dict[str, Result]] = {}
    with tempfile.TemporaryDirectory(prefix="ringfence-test-") as name:
        runtime = _runtime(options.runtime)
        environment = Environment(
            Path(name), options.prefix, runtime, request, options.slowdown, disposable=options.disposable
        )
        for mode in modes:
            results[mode] = {}
            # Detectors only report, independent of the mode: once is enough.
            chosen = [case for case in cases if not case.detector or mode == modes[0]]
            with progress(mode, len(chosen)) as count:
                for result in run_cases(chosen, policies, mode, environment):
                    results[mode][result.case.id] = result
                    count()
    enforced, audited = results.get("enforce", {}), results.get("audit", {})
    return [judge(enforced.get(case.id), audited.get(case.id)) for case in cases]


def _runtime(chosen: str | None) -> list[str]:
    if chosen:
        return [chosen]
    found = shutil.which("runc") or shutil.which("crun")
    return [found] if found else [sys.executable, "-m", "ringfence_runtime"]


def _list(options: Any, cases: Sequence[Case], unknown: Sequence[str]) -> int:
    """Prints the attack and the benign twin of each rule. Returns 1 if a rule has none."""
    if options.output in DOCUMENTS:
        known = [{"rule": c.rule, "rows": list(c.rows), "attack": c.tried, "twin": c.lawful} for c in cases]
        print_document({"cases": known, "rules_without_attack": list(unknown)}, options.output)
        return 1 if unknown else 0
    rows = [(",".join(map(str, c.rows)), c.rule, c.tried, c.lawful) for c in cases]
    print("\n".join(table(("ROWS", "RULE", "ATTACK", "TWIN"), rows, limit=room(options))))
    for rule in unknown:
        print(f"{rule}: no known attack for this rule")
    return 1 if unknown else 0


def _strict(options: Any) -> bool:
    """Returns the value of --strict; the default is True in CI, where reports alone go unread."""
    return bool(os.environ.get("CI")) if options.strict is None else bool(options.strict)


def _show(options: Any, judged: Sequence[Judged], unknown: Sequence[str]) -> int:
    import platform

    fallen = [one for one in judged if one.shortfall]
    failed = [one for one in judged if one.problems or (one.shortfall and _strict(options))]
    if options.output in DOCUMENTS:
        cases = [one.record() for one in judged]
        report = {"kernel": platform.release(), "cases": cases, "rules_without_attack": list(unknown)}
        print_document(report, options.output)
        return 1 if failed else 0
    _print_table(judged, room(options))
    for one in judged:
        for problem in one.problems:
            print(f"{one.case.rule}: `{one.case.tried}`: {problem}")
    for one in fallen:
        print(f"{one.case.rule}: `{one.case.tried}`: {one.shortfall}")
    for rule in unknown:
        print(f"{rule}: not tested: no known attack for this rule")
    counts = Counter(one.outcome for one in judged)
    verdict = colour("FAILED", "red") if failed else colour("ok", "green")
    print(
        f"{verdict}: {len(judged)} attacks: {counts['denied'] + counts['killed']} stopped, "
        f"{counts['seen']} reported, {counts['blind']} not seen, "
        f"{counts['absent'] + counts['untried']} not available here; "
        f"{len(fallen)} weaker than expected, {len(failed)} unexpected"
    )
    return 1 if failed else 0


def _print_table(judged: Sequence[Judged], limit: int) -> None:
    heads = ("ROWS", "RULE", "ATTACK", "EXPECTED", "OUTCOME", "MECHANISM", "TWIN")
    rows = [
        (
            ",".join(map(str, one.case.rows)),
            one.case.rule,
            one.case.tried,
            one.expected,
            one.outcome,
            one.mechanism or "-",
            _twin(one),
        )
        for one in judged
    ]
    colours = {(n, 4): _COLOURS.get(row[4], "") for n, row in enumerate(rows)}
    print("\n".join(table(heads, rows, colours, limit)))


def _twin(one: Judged) -> str:
    if one.outcome == "untried":
        return "-"
    return "MATCHED" if any("the twin" in problem for problem in one.problems) else "passed"


def _in_machine(options: Any) -> int:
    import subprocess

    from ringfence.errors import Error

    root = Path(__file__).resolve().parents[3]
    if not (root / "tools/vm/__main__.py").exists():
        raise Error("--vm needs a source checkout", hint="the virtual machines are part of the test tools")
    words = [word for path in options.policy for word in ("--policy", str(path.absolute()))]
    if options.rows:
        words += ["--rows", ",".join(map(str, sorted(options.rows)))]
    words += ["--mode", options.mode, "-o", options.output, "--slowdown", "12", "--disposable"]
    words += ["--strict"] if _strict(options) else []
    inner = [sys.executable, "-m", "ringfence", "policy", "test", *words]
    outer = [sys.executable, "-m", "tools.vm", "run", "-k", options.vm, "-t", "1800", "--", *inner]
    return subprocess.run(outer, cwd=root, check=False).returncode
