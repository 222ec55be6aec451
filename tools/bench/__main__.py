# SPDX-License-Identifier: Apache-2.0
"""Runs the measurements one after the other, prints their tables and keeps their figures."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path

from tools.bench.record import Measurement, as_json
from tools.bench.setup import ROOT, machine

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def found() -> dict[str, str]:
    """Name -> module of every measurement."""
    files = sorted(HERE.rglob("*_bench.py"))
    return {
        path.stem.removesuffix("_bench"): ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in files
    }


def show(measurement: Measurement) -> None:
    """The table of one measurement."""
    print(f"\n== {measurement.name}: {measurement.method}")
    width = max((len(one.case) for one in measurement.rows), default=0)
    for one in measurement.rows:
        print(f"  {one.case:{width}}  {one.value:12,.2f} {one.unit:4}  ({one.low:,.2f} .. {one.high:,.2f})")
    for bar in measurement.bars:
        sign = ">=" if bar.least else "<="
        word = "ok    " if bar.ok else "MISSED"
        print(f"  {word}  {bar.what}: {bar.value:,.2f} {bar.unit} (bar: {sign} {bar.limit:,.2f} {bar.unit})")
    for note in measurement.notes:
        print(f"  note: {note}")


def main() -> int:
    """Returns 0 if all limits hold."""
    modules = found()
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"which (default: all): {', '.join(modules)}")
    parser.add_argument(
        "--quick", action="store_true", help="a shorter run with fewer samples; its figures are not kept"
    )
    options = parser.parse_args()
    if unknown := set(options.name) - set(modules):
        parser.error(f"no measurement {', '.join(sorted(unknown))}; available: {', '.join(modules)}")
    if os.geteuid() != 0:
        print("bench: needs root", file=sys.stderr)
        return 4
    facts = machine()
    print(", ".join(f"{key}: {value}" for key, value in facts.items()))
    missed = 0
    for name in options.name or modules:
        measurement = importlib.import_module(modules[name]).measure(quick=options.quick)
        show(measurement)
        missed += sum(not bar.ok for bar in measurement.bars)
        if not options.quick:
            kept = {"machine": facts, "date": time.strftime("%Y-%m-%d"), **as_json(measurement)}
            (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    print(f"\n{missed} limits exceeded" if missed else "\nall limits hold")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
