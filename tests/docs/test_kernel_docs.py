# SPDX-License-Identifier: Apache-2.0
"""The page on kernels names every difference that the code knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringfence.bpf.capabilities import BPFFS, CGROUP_ATTACHES
from ringfence.bpf.lsm import HOOKS
from tools.vm.catalogue import DEFAULT

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/kernel-compat.md").read_text()
COMPAT = ROOT / "probes/include/compat.h"
SOURCES = [COMPAT, *sorted(ROOT.glob("probes/include/arch/*.h")), *sorted(ROOT.glob("probes/*.bpf.c"))]
COMMITS = sorted({c for path in SOURCES for c in re.findall(r"\b[0-9a-f]{12}\b", path.read_text())})


def test_commits_are_found() -> None:
    """Or the next test tests nothing."""
    assert len(COMMITS) >= 4


@pytest.mark.parametrize("commit", COMMITS)
def test_every_commit_of_the_probes_is_on_the_page(commit: str) -> None:
    """Each is a difference between kernels."""
    assert commit in PAGE


@pytest.mark.parametrize("name", CGROUP_ATTACHES)
def test_every_kind_of_cgroup_program_is_on_the_page(name: str) -> None:
    """What `ringfence probe` may miss."""
    assert f"`{name}`" in PAGE


def test_the_documented_floor_is_the_real_one() -> None:
    """By page, probes and message alike."""
    floor = re.search(r"floor is (\d\.\d+)", COMPAT.read_text().replace("\n * ", " "))
    assert floor
    assert f"## The floor: {floor[1]}" in PAGE
    assert f"Linux {floor[1]} or newer" in (ROOT / "agent/ringfence/bpf/capabilities.py").read_text()


def test_paths_and_kernels_are_those_of_the_code() -> None:
    """Where pins go without a bpffs, and what the virtual machines run."""
    assert BPFFS[1] in PAGE
    assert f"`tools/vm`: {DEFAULT[0]} and the {DEFAULT[1]} " in PAGE


def test_the_error_is_the_one_that_comes() -> None:
    """Word for word: what is missing, and the hint."""
    source = (ROOT / "agent/ringfence/bpf/capabilities.py").read_text()
    shown = re.search(r"cannot run here: (.*)\nhint: (.*)\n", PAGE)
    assert shown
    assert f'Lack("{shown[1]}", "{shown[2]}")' in source


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_every_hook_is_on_the_page(hook: str) -> None:
    """What a kernel may lack, and rules then fall without."""
    assert f"`{hook}`" in PAGE
