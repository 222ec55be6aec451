# SPDX-License-Identifier: Apache-2.0
"""In a virtual machine hooks must decide, by BPF-LSM or at security functions; otherwise all other
tests of them would be skipped unnoticed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.abi import GUARD_DENY, Mechanism
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.lsm import HOOKS
from tests.kernel.probes import running
from tests.support import force

pytestmark = pytest.mark.root
#: hooks that some kernel of the matrix lacks; all others are on every one
YOUNG = {"uring_allowed", "file_ioctl_compat", "inode_set_acl", "inode_remove_acl", "inode_file_setattr"}


def test_the_hooks_of_a_guest_decide() -> None:
    """BPF-LSM if the module list has bpf, else the functions; only the young hooks may be missing."""
    if not force.in_guest():
        force.elsewhere("a virtual machine's kernel is to have BPF-LSM, or trampolines")
    node = NodeCapabilities.detect()
    by_lsm = "bpf" in Path("/sys/kernel/security/lsm").read_text().strip().split(",")
    assert node.hook_mechanism is (Mechanism.LSM if by_lsm else Mechanism.HOOK)
    assert (node.lsm_lack == "", node.hook_lack) == (by_lsm, "")
    assert set(HOOKS) - set(node.lsm_hooks) <= YOUNG


def test_no_program_is_refused() -> None:
    """The agent would continue without it, and load all others again."""
    with running(lsm=True, guard=GUARD_DENY) as probes:
        assert [skip for skip in probes.kernel.skipped if "refused" in skip.reason] == []
