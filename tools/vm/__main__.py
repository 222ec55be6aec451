# SPDX-License-Identifier: Apache-2.0
"""Command line of the virtual machines: fetch, list, run, test."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tools.vm import benign, cost, coverage
from tools.vm.catalogue import CATALOGUE, DEFAULT, KERNELS, Prepared, cache_directory, prepared
from tools.vm.coverage_page import PAGE, page
from tools.vm.coverage_svg import PICTURE, picture
from tools.vm.fetch import fetch
from tools.vm.machine import ENVIRONMENT, Job, run
from tools.vm.side_by_side import JOBS, run_side_by_side
from tools.vm.suite import FULL, FULL_TIMEOUT, SHARES, SUITE, TIMEOUT, bad_lines, run_suite


def main() -> int:
    """Runs the command. Returns 0 on success."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends the guests
    try:
        return int(options.act(options))
    except RuntimeError as error:
        print(f"tools.vm: {error}", file=sys.stderr)
        return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.vm", description=__doc__)
    commands = parser.add_subparsers(required=True)

    one = commands.add_parser("fetch", help="fetch kernels (and QEMU) into the cache")
    one.add_argument("kernel", nargs="*", choices=[[], *CATALOGUE], help=f"default: {' '.join(DEFAULT)}")
    one.add_argument("--all", action="store_true", help="all x86-64 kernels of the catalogue")
    one.add_argument("--renew", action="store_true", help="also replace cached kernels by newer packages")
    one.set_defaults(act=_fetch)

    one = commands.add_parser("list", help="list the kernels of the catalogue and of the cache")
    one.set_defaults(act=_list)

    one = commands.add_parser("run", help="boot a kernel and run a command in it")
    one.add_argument("-k", "--kernel", choices=CATALOGUE, default=DEFAULT[0])
    one.add_argument("-s", "--share", action="append", type=Path, default=[], help="DIR writable in guest")
    one.add_argument("-t", "--timeout", type=float, default=600)
    one.add_argument("-e", "--env", action="append", default=[], help="NAME=VALUE for the command")
    one.add_argument("-v", "--verbose", action="store_true", help="show the kernel's messages")
    one.add_argument("command", nargs="+")
    one.set_defaults(act=_run)

    _test_arguments(commands)
    one = commands.add_parser("coverage", help="run every attack on every kernel: docs/reference/coverage.md")
    chosen = (*coverage.ORDER, *coverage.ASIDE)
    one.add_argument("-k", "--kernel", choices=chosen, action="append", help="default: all of them")
    one.add_argument("--benign", action="store_true", help="honest work under the pack, and nothing else")
    one.add_argument("--cost", action="store_true", help="what lawful calls cost more, and nothing else")
    one.add_argument("--render", action="store_true", help="measure nothing, write the page again")
    one.set_defaults(act=_coverage)
    return parser.parse_args()


def _test_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = commands.add_parser("test", help="run the kernel and escape tests in one boot of each kernel")
    one.add_argument(
        "-k", "--kernel", choices=CATALOGUE, action="append", help=f"default: {' '.join(DEFAULT)}"
    )
    one.add_argument("--all", action="store_true", help="all x86-64 kernels of the catalogue")
    one.add_argument("--shares", action="store_true", help="as in every check: some tests on one kernel only")
    one.add_argument("--full", action="store_true", help="run all tests that a guest can run (hours)")
    one.add_argument("-j", "--jobs", type=int, default=JOBS, help=f"guests at a time (default: {JOBS})")
    one.add_argument("-t", "--timeout", type=float, help="seconds for each kernel")
    one.add_argument("tests", nargs="*", help="arguments for pytest (default: see suite.py)")
    one.set_defaults(act=_test)


def _need(name: str) -> Prepared:
    """Returns the kernel of this name, fetching it first if it is not cached."""
    for line in fetch([name]):
        print(f"fetched {line}")
    kernel = prepared(name)
    assert kernel is not None
    return kernel


def _fetch(options: argparse.Namespace) -> int:
    names = list(KERNELS) if options.all else options.kernel or DEFAULT
    for line in fetch(names, renew=options.renew) or ["nothing to do: everything is in the cache"]:
        print(f"fetched {line}")
    return 0


def _list(options: argparse.Namespace) -> int:
    print(f"cache: {cache_directory()}")
    for source in CATALOGUE.values():
        kernel = prepared(source.name)
        print(f"  {source.name:18} {', '.join(source.suites):24} {kernel.release if kernel else '-'}")
    return 0


def _run(options: argparse.Namespace) -> int:
    environment = ENVIRONMENT | dict(word.split("=", 1) for word in options.env)
    kernel = _need(options.kernel)
    job = Job(options.command, Path.cwd(), environment, options.share, options.timeout)
    outcome = run(kernel, job, echo=sys.stdout.buffer, verbose=options.verbose)
    if outcome.status is None:
        print(f"tools.vm: the machine {outcome.reason}", file=sys.stderr)
        return 125
    return outcome.status


def _test(options: argparse.Namespace) -> int:
    names = list(KERNELS) if options.all else options.kernel or DEFAULT
    timeout = options.timeout or (FULL_TIMEOUT if options.full else TIMEOUT)
    tests = options.tests or (FULL if options.full else ())
    if len(names) > 1 and options.jobs > 1:
        for name in names:
            _need(name)
        words = ["-t", str(timeout), *["--shares"] * options.shares, "--", *tests]
        reports = run_side_by_side(names, words, jobs=options.jobs, echo=sys.stdout)
    else:
        reports = []
        for kernel in map(_need, names):
            print(f"== Linux {kernel.release}", flush=True)
            chosen = (*SUITE, *SHARES.get(kernel.name, ())) if options.shares else tests
            reports.append(run_suite(kernel, chosen, echo=sys.stdout.buffer, timeout=timeout))
    print("\n== virtual machines")
    for report in reports:
        print(("ok      " if report.ok else "FAILED  ") + report.line())
        for line in bad_lines(report):
            print(f"        {line}")
    return 0 if all(report.ok for report in reports) else 1


def _coverage(options: argparse.Namespace) -> int:
    if options.cost:
        print(f"{cost.measure()} calls were timed")
    for name in (options.kernel or [coverage.HOST, *KERNELS]) if options.benign else ():
        if name != coverage.HOST and name not in KERNELS:
            raise RuntimeError(f"benign workloads are not measured for the column {name}")
        kernel = None if name == coverage.HOST else _need(name)
        print(
            f"{name}: {benign.measure(name, kernel, echo=sys.stdout.buffer)} workloads with a false positive"
        )
    names = [] if options.render or options.cost or options.benign else options.kernel or coverage.ORDER
    for name in names:
        if name == coverage.HOST:
            result = coverage.measure_host()
        else:
            kernel = _need((coverage.COLUMNS | coverage.ASIDE)[name].kernel)
            result = coverage.measure_guest(name, kernel, echo=sys.stdout.buffer)
        bad = sum(bool(case["problems"]) for case in result["cases"])
        print(f"{name}: {len(result['cases'])} attacks, {bad} unexpected results", flush=True)
    PAGE.write_text(page(coverage.saved(), benign.saved_benign(), coverage.saved_cost()))
    PICTURE.write_text(picture(coverage.saved()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
