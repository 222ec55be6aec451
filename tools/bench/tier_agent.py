# SPDX-License-Identifier: Apache-2.0
"""`python -m tools.bench.tier_agent TIER WORDS`: the command line, on a kernel that is said to have less.

TIER: lsm (nothing is changed), hook (BPF-LSM does not decide), kill (nor do programs at functions).
"""

from __future__ import annotations

import sys

from ringfence.bpf import hook_probe, lsm_probe
from ringfence.cli.main import main

__all__ = ["TIERS"]

TIERS = ("lsm", "hook", "kill")
_NONE: tuple[frozenset[str], str] = (frozenset(), "left out to measure what it costs")


def _without() -> tuple[frozenset[str], str]:
    return _NONE


if __name__ == "__main__":
    tier = sys.argv.pop(1)
    if tier != "lsm":
        lsm_probe.available_hooks = _without
    if tier == "kill":
        hook_probe.available_hooks = _without
    sys.exit(main())
