# SPDX-License-Identifier: Apache-2.0
"""In a virtual machine BPF-LSM must decide; otherwise
all other tests of it would be skipped unnoticed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.abi import GUARD_DENY
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.lsm import HOOKS
from tests.kernel.probes import running
from tests.support import force

pytestmark = pytest.mark.root
#: hooks that some kernel of the matrix lacks; all others are on every one
YOUNG = {"uring_allowed", "file_ioctl_compat", "inode_set_acl", "inode_remove_acl", "inode_file_setattr"}


def test_the_hooks_of_a_guest_decide() -> None:
    """The module list has bpf, a trial program refuses, and only the young hooks may be missing."""
    if not force.in_guest():
        force.elsewhere("a virtual machine's kernel is to have BPF-LSM")
    assert "bpf" in Path("/sys/kernel/security/lsm").read_text().split(",")
    node = NodeCapabilities.detect()
    assert node.lsm_lack == ""
    assert set(HOOKS) - set(node.lsm_hooks) <= YOUNG


def test_no_program_is_refused() -> None:
    """The agent would continue without it, and load all others again."""
    with running(lsm=True, guard=GUARD_DENY) as probes:
        assert [skip for skip in probes.kernel.skipped if "refused" in skip.reason] == []
