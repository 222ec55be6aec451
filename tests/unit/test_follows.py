# SPDX-License-Identifier: Apache-2.0
"""Tasks are followed by perf, too, on kernels that preempt programs, if no hooks do it."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest

from ringfence.bpf.capabilities import preempts_programs
from ringfence.bpf.lsm import FOLLOW_HOOKS, HOOKS
from ringfence.bpf.settings import KernelSettings


@pytest.fixture(autouse=True)
def _clear_cache() -> Iterator[None]:
    preempts_programs.cache_clear()
    yield
    preempts_programs.cache_clear()


@pytest.mark.parametrize(
    ("release", "wanted"),
    [("6.18.44", False), ("6.1.0-50-cloud-amd64", False), ("7.3.4+deb13-cloud-amd64", True), ("10.0", True)],
)
def test_perf_is_used_where_programs_are_preempted(
    monkeypatch: pytest.MonkeyPatch, release: str, *, wanted: bool
) -> None:
    """Linux 7 and later."""
    monkeypatch.setattr(platform, "release", lambda: release)
    assert KernelSettings().follows_by_perf() is wanted


@pytest.mark.parametrize(
    ("hooks", "wanted"), [(HOOKS, False), (FOLLOW_HOOKS, False), (HOOKS - {"task_alloc"}, True)]
)
def test_perf_is_not_used_with_both_hooks(
    monkeypatch: pytest.MonkeyPatch, hooks: frozenset[str], *, wanted: bool
) -> None:
    """Only both hooks together replace it."""
    monkeypatch.setattr(platform, "release", lambda: "7.3.4")
    assert KernelSettings(lsm_hooks=frozenset(hooks)).follows_by_perf() is wanted
