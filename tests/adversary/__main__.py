# SPDX-License-Identifier: Apache-2.0
"""All attacks, in guests with and without BPF-LSM: `python -m tests.adversary`.

Keeps what got through in tests/adversary/results and writes the table of docs/explanation/threat-model.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.adversary.results import accept, accept_saved, keep, read_junit, render
from tools.vm.catalogue import KERNELS, prepared
from tools.vm.qemu import APPEND, WITHOUT_BPF
from tools.vm.suite import RESULTS, ROOT, run_suite

TESTS = [f"tests/adversary/test_{name}.py" for name in ("attacks", "hammer", "starting", "memory")]
#: what the kernel's command line says for a tier
TIERS = {"lsm": "", "kill": WITHOUT_BPF}


def main() -> int:
    """Runs the command. Returns 0 if every attack ended as expected.txt says."""
    parser = argparse.ArgumentParser(prog="python -m tests.adversary", description=__doc__)
    parser.add_argument("-k", "--kernel", choices=KERNELS, action="append", help="default: 6.12 newest")
    parser.add_argument("-t", "--tier", choices=TIERS, action="append", help="default: both")
    parser.add_argument("--here", action="store_true", help="on this machine, without what harms it")
    parser.add_argument("--preempt", choices=("none", "voluntary", "lazy", "full"), help="of the guests")
    parser.add_argument("--accept", action="store_true", help="write what gets through to expected.txt")
    parser.add_argument("--render", action="store_true", help="run nothing, use the saved results")
    parser.add_argument("words", nargs="*", help="for pytest, such as -k A3 (after --)")
    options = parser.parse_args()
    os.environ["RINGFENCE_ADVERSARY"] = "all"
    ok = True
    if options.here:
        ok = _here(options)
    elif not options.render:
        for kernel in options.kernel or ("6.12", "newest"):
            for tier in options.tier or TIERS:
                ok &= _guest(kernel, tier, options)
    elif options.accept:
        accept_saved()
    render()
    return 0 if ok else 1


def _guest(kernel: str, tier: str, options: argparse.Namespace) -> bool:
    words = [TIERS[tier], f"preempt={options.preempt}" if options.preempt else ""]
    os.environ[APPEND] = " ".join(word for word in words if word)
    machine = prepared(kernel)
    if machine is None:
        raise SystemExit(f"fetch the kernel first: python -m tools.vm fetch {kernel}")
    report = run_suite(machine, [*TESTS, *options.words], echo=sys.stdout.buffer)
    print(f"{kernel} {tier}: {report.line()}")
    found = read_junit(RESULTS / f"{kernel}.xml")
    return _done(f"{kernel}{options.preempt or ''}", tier, machine.release, found, options) and report.ok


def _here(options: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        junit = Path(directory) / "junit.xml"
        argv = [sys.executable, "-m", "pytest", "-q", f"--junitxml={junit}", *TESTS, *options.words]
        status = subprocess.run(argv, cwd=ROOT, check=False).returncode
        _done("here", "kill", platform.release(), read_junit(junit), options)
    return status == 0


def _done(
    kernel: str, tier: str, release: str, found: dict[str, list[str]], options: argparse.Namespace
) -> bool:
    for key, (word, how, twin) in sorted(found.items()):
        print(f"{tier:5} {kernel:8} {key:60} {word:10} {how}{'; twin: ' + twin if twin else ''}")
    if not options.words and not options.here:
        keep(kernel, tier, release, found)
    if options.accept:
        accept(kernel, tier, found)
    return True


if __name__ == "__main__":
    sys.exit(main())
