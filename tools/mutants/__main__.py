# SPDX-License-Identifier: Apache-2.0
"""Command line of the defects: list, check, run, python."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.mutants.python_run import AREAS, run_python
from tools.mutants.run import Result, run_table, score, summary
from tools.mutants.table import PLACES, Mutant, load, problems


def main() -> int:
    """Runs the command. Returns 0 on success."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends what was started
    try:
        return int(options.act(options))
    except (RuntimeError, ValueError) as error:
        print(f"tools.mutants: {error}", file=sys.stderr)
        return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("list", help="list the defects of the table")
    one.set_defaults(act=_list)
    one = commands.add_parser("check", help="check that every entry still fits the sources")
    one.set_defaults(act=_check)
    one = commands.add_parser("run", help="apply the defects one by one, and run their tests")
    one.set_defaults(act=_run)
    for command in ("list", "run"):
        part = commands.choices[command]
        part.add_argument("--only", action="append", default=[], metavar="ID|FILE", help="only these")
        part.add_argument("--where", choices=PLACES, help="only those whose tests run there")
    one.add_argument("--summary", type=Path, help="write the summary to this file")
    one = commands.add_parser("python", help="random defects in Python, judged by unit tests")
    one.add_argument("--areas", default=",".join(AREAS), help=f"default: {','.join(AREAS)}")
    one.add_argument("--sample", type=int, default=150)
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--jobs", type=int, default=2)
    one.set_defaults(act=run_python)
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> list[Mutant]:
    found = [one for one in load() if options.where in (None, one.where)]
    if not options.only:
        return found
    names = set(options.only)
    return [one for one in found if names & {one.id, one.file, Path(one.file).name}]


def _list(options: argparse.Namespace) -> int:
    for mutant in _chosen(options):
        print(f"{mutant.id:24} {mutant.where:6} {mutant.file}: {mutant.why}")
    return 0


def _check(options: argparse.Namespace) -> int:
    mutants = load()
    found = problems(mutants)
    print("\n".join(found) or f"{len(mutants)} defects, all of them applicable")
    return 1 if found else 0


def _run(options: argparse.Namespace) -> int:
    results: list[Result] = []
    for result in run_table(_chosen(options)):
        results.append(result)
        print(result.line(), flush=True)
    return _finish(results, options.summary)


def _finish(results: Sequence[Result], file: Path | None) -> int:
    if file:
        file.write_text(summary(results))
    killed, judged = score(results)
    print(f"{killed} of {judged} killed; {len(results) - judged} not judged")
    return 0 if killed == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
