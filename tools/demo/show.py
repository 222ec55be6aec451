# SPDX-License-Identifier: Apache-2.0
"""The demonstration's output: plain text, colour on a terminal only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence

from tests.support.agent import Record, Sample
from tools.demo.runner import Row

__all__ = ["heading", "show_alert", "show_metrics", "show_rows", "verdict"]

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
GREEN, RED, BOLD, PLAIN = ("\033[32m", "\033[31m", "\033[1m", "\033[0m") if COLOUR else ("", "", "", "")
MOST_OF_A_NAME = 4


def heading(text: str) -> None:
    """Prints the heading of a part."""
    print(f"\n{BOLD}{text}{PLAIN}", flush=True)


def verdict(*, good: bool, text: str) -> None:
    """Prints a result."""
    print(f"{GREEN if good else RED}{'ok' if good else 'NOT OK'}{PLAIN}: {text}", flush=True)


def show_rows(rows: Sequence[Row]) -> None:
    """Prints the table of attempts."""
    width = max(len(row.attempt.technique) for row in rows)
    print(f"{BOLD}{'technique':{width}}  seen  stopped   mechanism  call->alert  rule{PLAIN}")
    for row in rows:
        alert = row.alert
        if row.ran.absent:
            print(f"{row.attempt.technique:{width}}  this kernel has no {row.ran.call}: nothing to stop")
            continue
        seen = "yes" if alert else "NO"
        stopped = alert["outcome"] if alert and row.stopped else ("no" if not row.attempt.stop else "NO")
        mechanism = alert["mechanism"] if alert else "-"
        delay = f"{row.delay_ms:.1f} ms" if alert else "-"
        rule = alert["rule"]["id"] if alert else f"({row.ran.call or 'not run'}: {row.ran.said})"
        colour = "" if row.as_wanted else RED
        line = f"{row.attempt.technique:{width}}  {seen:4}  {stopped:8}  {mechanism:9}  {delay:>11}  {rule}"
        print(f"{colour}{line}{PLAIN if colour else ''}")


def show_alert(alert: Record) -> None:
    """Prints one complete alert."""
    print(json.dumps(alert, indent=2))


def show_metrics(before: Mapping[Sample, float], after: Mapping[Sample, float]) -> None:
    """Prints counters that changed, the biggest changes of each name first."""
    moved = {
        sample: value - before.get(sample, 0.0)
        for sample, value in after.items()
        if sample[0].endswith("_total") and value > before.get(sample, 0.0)
    }
    wanted = ("alerts", "verdicts", "events", "drops", "decode", "unattributed")
    chosen = [one for one in moved if any(word in one[0] for word in wanted)]
    names = sorted({name for name, _ in chosen})
    for name in names:
        same = sorted((one for one in chosen if one[0] == name), key=lambda one: -moved[one])
        for _, labels in same[:MOST_OF_A_NAME]:
            text = ",".join(f'{key}="{value}"' for key, value in labels)
            print(f"  {name}{{{text}}}  +{moved[name, labels]:g}")
        if len(same) > MOST_OF_A_NAME:
            print(f"  {name}: {len(same) - MOST_OF_A_NAME} more")
