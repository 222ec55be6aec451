# SPDX-License-Identifier: Apache-2.0
"""Where the compiled parts are: the probes and the attack program, for one architecture each."""

from __future__ import annotations

from pathlib import Path

from ringfence_linux.architecture import architecture

__all__ = ["directory"]

_BPF = Path(__file__).resolve().parent / "_bpf"


def directory(machine: str = "") -> Path:
    """Returns OUT of probes/Makefile for a machine (uname -m); empty: for this one."""
    name = architecture(machine).name
    return _BPF if name == "x86" else _BPF / name
