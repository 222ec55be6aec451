# SPDX-License-Identifier: Apache-2.0
"""32-bit calls that are watched at their own entry: a kprobe, and no program at the node's other calls."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ringfence.abi import FLAG_COMPAT, EventKind
from ringfence.bpf.capabilities import NodeCapabilities
from tests.kernel.probes import Probes, results, run, running
from tests.kernel.rules import Rule
from tests.support import force
from tests.support.cgroups import Cgroup

pytestmark = pytest.mark.root
K = EventKind
NEWUTS = 0x04000000


@pytest.fixture(scope="module")
def probes() -> Iterator[Probes]:
    """Programs at calls, on a kernel where the test call passed its function."""
    force.need_root()
    if not NodeCapabilities.detect().compat_entries:
        force.elsewhere("no kprobe where this kernel dispatches 32-bit calls")
    with running(observe=[K.SYS_UNSHARE]) as found:
        yield found


def test_a_32_bit_call_is_killed_at_its_own_entry(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """By int 0x80, as the call of the same name by its native number."""
    attached = {(one.program, one.target) for one in probes.kernel.attached}
    assert ("narrow_call", "ia32_sys_call") in attached
    assert "every_call" not in {program for program, _ in attached}
    probes.enforce(Rule(K.SYS_UNSHARE, "kill", {0: {NEWUTS}}))
    for number, command in enumerate((f"unshare32:{NEWUTS}", f"unshare:{NEWUTS}"), 1):
        killed = run(cgroup, act, command, "forks:1")
        assert killed.returncode == -signal.SIGKILL
        assert not results(killed)
        event = probes.wait(cgroup, K.SYS_UNSHARE, number)[-1]
        assert bool(event.flags & FLAG_COMPAT) is ("32:" in command)
