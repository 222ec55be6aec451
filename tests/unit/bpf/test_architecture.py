# SPDX-License-Identifier: Apache-2.0
"""What is built for one architecture is apart from that for another, and the agent takes its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ringfence import compiled
from ringfence_linux.architecture import ARCHITECTURES, architecture
from tests.support import force

PROBES = Path(__file__).resolve().parents[3] / "probes"


def written(name: str) -> dict[str, str]:
    """Target -> command of what make would compile or link for an architecture, were nothing built."""
    force.need_program("make")
    argv = ["make", "-s", "-B", "-n", "-C", str(PROBES), f"ARCH={name}", "CLANG=clang", "BPFTOOL=bpftool"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    compiled_by = re.findall(r"^(clang .* -o (\S+))$", shown, re.M)
    linked_by = re.findall(r"^(bpftool gen object (\S+)\.tmp .*)$", shown, re.M)
    return {str((PROBES / target).resolve()): command for command, target in compiled_by + linked_by}


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_agent_loads_what_make_builds_for_its_machine(machine: str) -> None:
    """The linked object is where the agent looks, and is made of objects for that architecture only."""
    name = ARCHITECTURES[machine].name
    made = written(name)
    linked = str(compiled.directory(machine) / "ringfence.bpf.o")
    parts = [path for path in made if path != linked]
    assert linked in made
    assert len(parts) > 50
    assert all(f"-D__TARGET_ARCH_{name} " in made[path] for path in parts)


def test_architectures_share_no_target() -> None:
    """Else make takes an object of another architecture for its own, and builds nothing."""
    assert not set(written("x86")) & set(written("arm64"))


def test_each_architecture_has_its_part_of_the_probes() -> None:
    """A header for each name, and none besides."""
    names = {path.stem for path in (PROBES / "include/arch").glob("*.h")}
    assert names == {one.name for one in ARCHITECTURES.values()}


def test_an_unknown_machine_has_no_programs() -> None:
    """It gets the generic numbers, and no directory of another architecture."""
    other = architecture("riscv64")
    assert other.native == architecture("aarch64").native
    assert other.name not in {one.name for one in ARCHITECTURES.values()}
