# SPDX-License-Identifier: Apache-2.0
"""How hooks decide on the kernel that runs the tests."""

from __future__ import annotations

from functools import cache

from ringfence.abi import Mechanism
from ringfence.bpf import hook_probe
from ringfence.bpf.capabilities import NodeCapabilities
from tests.support import force

__all__ = ["hook_mechanism", "need_function_hooks"]


def need_function_hooks() -> frozenset[str]:
    """Returns the hooks that programs can decide at functions; skips where none do. Every guest has them."""
    force.need_root()
    hooks, lack = hook_probe.available_hooks()
    if not hooks and not force.in_guest():
        force.elsewhere(f"no programs at security functions: {lack}")
    assert not lack
    return hooks


@cache
def hook_mechanism() -> Mechanism:
    """LSM, or HOOK where BPF-LSM does not decide but programs at security functions do."""
    return NodeCapabilities.detect().hook_mechanism
