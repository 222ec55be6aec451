# SPDX-License-Identifier: Apache-2.0
"""Where the compiled parts are: the probes and the attack program, for one architecture each."""

from __future__ import annotations

from pathlib import Path

from ringfence_linux.architecture import architecture

__all__ = ["directory"]

_PACKAGE = Path(__file__).resolve().parent


def directory(machine: str = "", package: Path = _PACKAGE) -> Path:
    """Returns OUT of probes/Makefile for a machine (uname -m); empty: for this one.

    `package`: the directory of the package ringfence in another tree.
    """
    name = architecture(machine).name
    return package / "_bpf" / ("" if name == "x86" else name)
