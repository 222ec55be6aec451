# SPDX-License-Identifier: Apache-2.0
"""The outcome of every attack on every kernel, from runs of `ringfence policy test`.

`python -m tools.vm coverage` boots each kernel of the catalogue (and runs on the machine's own), keeps
the results in tools/vm/results and writes docs/reference/coverage.md and .svg; `--render` only writes those.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from tests.support.cgroups import PREFIX
from tools.vm.catalogue import Prepared
from tools.vm.machine import Job, run
from tools.vm.qemu import WITHOUT_BPF
from tools.vm.suite import ROOT, SLOWDOWN, guest_environment, shares

__all__ = [
    "ASIDE",
    "COLUMNS",
    "HOST",
    "ORDER",
    "RESULTS",
    "Column",
    "commit",
    "keep",
    "measure_guest",
    "measure_host",
    "saved",
    "saved_cost",
]

RESULTS = Path(__file__).resolve().parent / "results"
HOST = "host"


class Column(NamedTuple):
    """A way to boot a kernel of the catalogue: its name there, and words for the command line."""

    kernel: str
    append: str = ""


#: columns of the table from guests, in this order
COLUMNS = {
    "6.1": Column("6.1"),
    "6.1-hook": Column("6.1", WITHOUT_BPF),
    "6.12": Column("6.12"),
    "6.12-hook": Column("6.12", WITHOUT_BPF),
    "6.18": Column("6.18"),
    "6.18-hook": Column("6.18", f"{WITHOUT_BPF} preempt=voluntary"),
    "testing": Column("testing"),
    "newest": Column("newest"),
    "newest-hook": Column("newest", WITHOUT_BPF),
}
#: measured when asked for by name; not on the page
ASIDE = {
    "arm64-6.12": Column("arm64-6.12"),
    "arm64-6.12-hook": Column("arm64-6.12", WITHOUT_BPF),
    "arm64-newest": Column("arm64-newest"),
    "arm64-newest-hook": Column("arm64-newest", WITHOUT_BPF),
}
#: all columns; the machine's own kernel comes last
ORDER = (*COLUMNS, HOST)
Result = Mapping[str, Any]


def _argv(slowdown: float) -> list[str]:
    words = ["-o", "json", "--prefix", PREFIX, "--slowdown", str(slowdown)]
    return [sys.executable, "-m", "ringfence", "policy", "test", *words]


def measure_host() -> Result:
    """Runs all attacks on this machine's own kernel, in both modes."""
    got = subprocess.run(_argv(1), cwd=ROOT, check=False, stdout=subprocess.PIPE)
    return _keep(HOST, json.loads(got.stdout), 0.0)


def measure_guest(
    name: str, kernel: Prepared, echo: IO[bytes] | None = None, timeout: float = 3600
) -> Result:
    """Runs all attacks of a column in one boot, enforcing. Raises RuntimeError without a result."""
    RESULTS.mkdir(exist_ok=True)
    raw = RESULTS / f"{name}.raw"
    raw.unlink(missing_ok=True)
    began = time.monotonic()
    # The machine is discarded: attacks may write its settings, and load a module.
    attacks = " ".join([*_argv(SLOWDOWN), "--mode", "enforce", "--disposable"])
    command = ["sh", "-c", f"{attacks} > {raw}"]
    environment = guest_environment(kernel)
    job = Job(
        command, ROOT, environment, shares(kernel, RESULTS), timeout, append=(COLUMNS | ASIDE)[name].append
    )
    outcome = run(kernel, job, echo=echo)
    if outcome.status not in (0, 1) or not raw.exists():
        tail = outcome.console[-2000:]
        raise RuntimeError(f"{kernel.release}: status {outcome.status} {outcome.reason}\n{tail}")
    found = json.loads(raw.read_text())
    raw.unlink()
    return _keep(name, found, time.monotonic() - began)


def _keep(name: str, measured: Mapping[str, Any], seconds: float) -> Result:
    kept = {
        "name": name, "kernel": measured["kernel"], "commit": commit(), "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds), "cases": measured["cases"],
    }  # fmt: skip
    keep(name, kept)
    return kept


def keep(name: str, what: Mapping[str, Any]) -> None:
    """Write results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(what, indent=1) + "\n")


def commit() -> str:
    """The checked-out commit, short."""
    argv = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def saved() -> Sequence[Result]:
    """Returns the last results, in the order of the columns."""
    files = [RESULTS / f"{name}.json" for name in ORDER]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def saved_cost() -> Result | None:
    """Returns the last result of tools.vm.cost."""
    file = RESULTS / "cost.json"
    return json.loads(file.read_text()) if file.exists() else None
