# SPDX-License-Identifier: Apache-2.0
"""Puts the compiled programs of one architecture into the wheel, and tags it for that architecture.

RINGFENCE_ARCH names the architecture as ARCH of probes/Makefile does (default: that of this machine).
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_COMPILED = "agent/ringfence/_bpf"
_PROGRAMS = ("ringfence.bpf.o", "attacks")
# architecture -> machine in the tag, e_machine of ELF, directory below _COMPILED
_ARCHITECTURES = {"x86": ("x86_64", 62, ""), "arm64": ("aarch64", 183, "arm64/")}


class CustomBuildHook(BuildHookInterface):
    """An editable installation, which may come before `make build`, stays without a tag."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        name = os.environ.get("RINGFENCE_ARCH") or _of_this_machine()
        if name not in _ARCHITECTURES:
            raise RuntimeError(f"RINGFENCE_ARCH: {name!r} is none of {', '.join(_ARCHITECTURES)}")
        machine, number, place = _ARCHITECTURES[name]
        for program in _PROGRAMS:
            path = Path(self.root, _COMPILED, place, program)
            if not path.is_file():
                raise RuntimeError(f"{_COMPILED}/{place}{program} is not compiled: make build ARCH={name}")
            build_data["force_include"][str(path)] = f"ringfence/_bpf/{place}{program}"
        if (found := _machine(Path(self.root, _COMPILED, place, "attacks"))) != number:
            raise RuntimeError(f"{_COMPILED}/{place}attacks is not for {machine} (e_machine: {found})")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{machine}"


def _of_this_machine() -> str:
    here = platform.machine()
    return next((name for name, (machine, *_) in _ARCHITECTURES.items() if machine == here), here)


def _machine(program: Path) -> int | None:
    """Returns e_machine of an ELF file."""
    with program.open("rb") as file:
        head = file.read(20)
    return int.from_bytes(head[18:20], "little") if head[:4] == b"\x7fELF" else None
