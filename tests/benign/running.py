# SPDX-License-Identifier: Apache-2.0
"""One container's work under the pack: run to its end, and compared with what an unaffected one does."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Set
from typing import NamedTuple

from tests.support import force
from tests.support.agent import Agent
from tests.support.cgroups import PREFIX
from tests.support.container import Bundle, Container
from tests.support.waiting import patience

__all__ = ["Done", "need", "not_affected", "run_to_end", "stopped"]

PART = "benign"  # of RINGFENCE_FORCE: the programs of tools/deps' group of that name


class Done(NamedTuple):
    """What came of a container's work."""

    status: int
    said: str
    reported: set[tuple[str, str, str]]  # rule, outcome and details of its alerts


def need(programs: tuple[str, ...]) -> None:
    """Skips or fails the test if a program is not installed."""
    for name in programs:
        if shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin") is None:
            force.missing(PART, f"needs the program {name}: tools/deps benign")


def stopped(agent: Agent) -> dict[str, float]:
    """Returns the number of stopped calls by rule, counted before any rate limit."""
    return {
        dict(labels)["rule"]: value
        for (name, labels), value in agent.metrics().items()
        if name == "ringfence_alerts_total" and dict(labels)["outcome"] not in ("seen",) and value
    }


def run_to_end(guard: Agent, bundle: Bundle, label: str, seconds: float) -> Done:
    """Runs the bundle's container until it ends."""
    name = f"{PREFIX}benign-{label}-{secrets.token_hex(3)}"
    container = Container(name, bundle.write(name))
    try:
        got = container.runc(
            "run", "--bundle", str(container.bundle), name, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=patience(seconds),
        )  # fmt: skip
    finally:
        container.remove()
    reported = {(one["rule"]["id"], one["outcome"], str(one["details"])) for one in guard.alerts(name)}
    return Done(got.returncode, got.stdout.decode(errors="replace"), reported)


def not_affected(guard: Agent, bundle: Bundle, label: str, seconds: float, reported: Set[str]) -> None:
    """Runs it: status 0, nothing denied or killed, and no alert except those of `reported`."""
    before = stopped(guard)
    done = run_to_end(guard, bundle, label, seconds)
    said, after = done.said[-1500:], stopped(guard)
    assert after == before, f"{before} became {after}: {done.reported}\n{said}"
    assert done.status == 0, f"status {done.status}: {said}"
    assert {rule for rule, _, _ in done.reported} <= reported, done.reported
