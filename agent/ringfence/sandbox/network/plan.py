# SPDX-License-Identifier: Apache-2.0
"""`--network` as plain values. Nothing is looked up here."""

from __future__ import annotations

from typing import NamedTuple

from ringfence.sandbox.errors import UsageError

__all__ = ["Plan", "plan"]

MODES = "none, host, bridge[:NAME], macvlan:PARENT, ipvlan:PARENT[:l2|l3], container:NAME"


class Plan(NamedTuple):
    """What network a sandbox asked for."""

    mode: str = "none"
    name: str = ""
    """of the bridge network, the parent link or the container"""


def plan(text: str) -> Plan:
    """Read `--network`. Nothing is `none`: a sandbox that needs no network has none."""
    mode, _, rest = (text or "none").partition(":")
    if mode in ("none", "host") and not rest:
        return Plan(mode)
    if mode == "container" and rest:
        return Plan(mode, rest)
    raise UsageError(f"--network: {text!a} is not one of {MODES}")
