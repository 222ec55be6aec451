# SPDX-License-Identifier: Apache-2.0
"""Tasks are followed by perf, too, on kernels that preempt programs, if no hooks do it for certain."""

from __future__ import annotations

import pytest

from ringfence.abi import Mechanism
from ringfence.bpf.lsm import FOLLOW_HOOKS, HOOKS
from ringfence.bpf.settings import KernelSettings


@pytest.mark.parametrize("preemptible", [True, False])
def test_perf_is_used_where_programs_are_preempted(*, preemptible: bool) -> None:
    """Whatever the version: 6.1 with preempt=full skips programs, too."""
    assert KernelSettings(preemptible=preemptible).follows_by_perf() is preemptible


@pytest.mark.parametrize(
    ("hooks", "wanted"), [(HOOKS, False), (FOLLOW_HOOKS, False), (HOOKS - {"task_alloc"}, True)]
)
def test_perf_is_not_used_with_both_hooks(hooks: frozenset[str], *, wanted: bool) -> None:
    """Only both hooks of BPF-LSM together replace it; programs at functions may be skipped themselves."""
    assert KernelSettings(lsm_hooks=frozenset(hooks), preemptible=True).follows_by_perf() is wanted
    by_function = KernelSettings(lsm_hooks=frozenset(hooks), hook_mechanism=Mechanism.HOOK, preemptible=True)
    assert by_function.follows_by_perf()
