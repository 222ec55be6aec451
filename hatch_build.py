# SPDX-License-Identifier: Apache-2.0
"""Tags the wheel for the one architecture that the programs in it are compiled for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_COMPILED = "agent/ringfence/_bpf"
_MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine of ELF


class CustomBuildHook(BuildHookInterface):
    """An editable installation, which may come before `make build`, stays without a tag."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        compiled = Path(self.root) / _COMPILED
        for name in ("ringfence.bpf.o", "attacks"):
            if not (compiled / name).is_file():
                raise RuntimeError(f"{_COMPILED}/{name} is not compiled: make build")
        with (compiled / "attacks").open("rb") as file:
            head = file.read(20)
        machine = int.from_bytes(head[18:20], "little")
        if head[:4] != b"\x7fELF" or machine not in _MACHINES:
            raise RuntimeError(f"{_COMPILED}/attacks is for no machine that is known here ({machine})")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{_MACHINES[machine]}"
