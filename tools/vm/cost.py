# SPDX-License-Identifier: Apache-2.0
"""The cost of the pack for a benign call: the call of each twin, alternating with and without the agent.

On the machine's own kernel: times in an emulated guest are not meaningful.
"""

from __future__ import annotations

import platform
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ringfence.cli.client import request
from ringfence.proof.agent import ProofAgent
from ringfence.proof.fixtures import new_fixtures
from ringfence.proof.image import new_root
from ringfence.proof.target_container import Kind, TargetContainer, new_target, privileged_config
from tests.escape.cases import PACK, Case
from tests.escape.program import build
from tests.support import force
from tests.support.cgroups import PREFIX
from tools.vm.coverage import commit, keep
from tools.vm.suite import ROOT

__all__ = ["measure"]

CALLS, ROUNDS = 1000, 5
Times = dict[str, float]


def measure() -> int:
    """Measures, keeps results/cost.json, and returns the number of timed calls."""
    build()
    cases = [case for case in PACK if case.twin and not case.host]
    times: dict[str, dict[str, float]] = {"without": {}, "with": {}}
    with tempfile.TemporaryDirectory(prefix="rfcost-") as name:
        for number in range(ROUNDS):
            for kind, found in times.items():
                directory = Path(name) / f"{kind}{number}"
                for key, took in _round(cases, directory, fenced=kind == "with").items():
                    found[key] = min(took, found.get(key, took))
    rows = [
        {
            "rule": case.rule,
            "twin": case.twin,
            "without_ns": times["without"].get(case.id, 0),
            "with_ns": times["with"].get(case.id, 0),
        }
        for case in cases
    ]
    kept = {
        "kernel": platform.release(), "date": time.strftime("%Y-%m-%d"), "commit": commit(), "calls": CALLS,
        "rounds": ROUNDS, "rows": rows,
    }  # fmt: skip
    keep("cost", kept)
    return sum(bool(row["without_ns"] and row["with_ns"]) for row in rows)


def _round(cases: Sequence[Case], directory: Path, *, fenced: bool) -> Times:
    directory.mkdir()
    with ExitStack() as stack:
        fixtures = stack.enter_context(new_fixtures(directory, f"{PREFIX}cost-beside"))
        if fenced:
            stack.enter_context(
                ProofAgent(
                    directory / "agent", request, policies=[ROOT / "policies"], mode="enforce",
                    patterns=[f"{PREFIX}cost-target*"],
                )
            )  # fmt: skip
        root = stack.enter_context(new_root(directory / "root"))
        found: Times = {}
        kinds: tuple[Kind, ...] = ("plain", "host-pid", "userns")
        for kind in kinds:
            config = privileged_config(root, fixtures, kind=kind)
            target = stack.enter_context(
                new_target(
                    f"cost-target-{kind}", config, runtime=[force.need_program("runc")],
                    directory=directory, fixtures=fixtures, prefix=PREFIX,
                )
            )  # fmt: skip
            for case in cases:
                if (case.twin_kind or case.kind) == kind:
                    found |= _time(target, case)
    return found


def _time(target: TargetContainer, case: Case) -> Times:
    said = target.run(f"time {CALLS} {case.twin}").said
    shown = re.fullmatch(r"time (\d+)", said)
    return {case.id: float(shown[1])} if shown else {}
