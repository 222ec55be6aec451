# SPDX-License-Identifier: Apache-2.0
"""How hooks decide on the kernel that runs the tests."""

from __future__ import annotations

from functools import cache

from ringfence.abi import Mechanism
from ringfence.bpf.capabilities import NodeCapabilities

__all__ = ["hook_mechanism"]


@cache
def hook_mechanism() -> Mechanism:
    """LSM, or HOOK where BPF-LSM does not decide but programs at security functions do."""
    return NodeCapabilities.detect().hook_mechanism
