# SPDX-License-Identifier: Apache-2.0
"""A container above its alert rate: further records are dropped and counted, enforcement
continues.

The allowance here is one alert a second, so all but the first few refusals find an empty bucket.
"""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from ringfence.abi import EventKind
from tests.kernel.probes import LABEL, Probes, results, running
from tests.kernel.rules import Rule
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
PROBES = {"alert_rate": 1, "alert_burst": 1}
K = EventKind
TIMES = 5000
REFUSED = (-errno.EPERM, -errno.EFAULT)  # also what was written of a file that could not be read
SERVER = "rf-rate-server"  # a name without a server triggers no hook
SYSCTL = "/proc/sys/kernel/randomize_va_space"


class Case(NamedTuple):
    """A call that a cgroup program refuses. `place`: where that is attached."""

    place: str
    kind: EventKind
    call: str
    operands: Mapping[int, set[int]] = MappingProxyType({})


CASES = [
    Case("dev", K.DEVICE_ACCESS, "mknod:{tmp}/node:b:259:1048575"),
    Case("sysctl", K.SYSCTL_ACCESS, f"rewrite:{SYSCTL}", {0: {1}}),
    Case("connect4", K.NET_CONNECT, "connect:127.0.0.1:9"),
    Case("connect6", K.NET_CONNECT, "connect6:,,1:9"),
    Case("sendmsg4", K.NET_SENDMSG, "send:127.0.0.1:9"),
    Case("sendmsg6", K.NET_SENDMSG, "send6:,,1:9"),
    Case("bind4", K.NET_BIND, "bind:127.0.0.1:0"),
    Case("bind6", K.NET_BIND, "bind6:,,1:0"),
    Case("connect_unix", K.UNIX_CONNECT, "unix:@rf-nobody"),
    Case("sendmsg_unix", K.UNIX_CONNECT, "unixsend:@rf-nobody"),
]
#: one call of each family of LSM hooks
HOOKED = [
    (Rule(K.SYS_UNSHARE, "deny"), "unshare:0x4000000"),
    (Rule(K.SYS_MOUNT, "deny"), "mount:tmpfs:/tmp"),
    (Rule(K.SYS_MKNOD, "deny"), "mknod:{tmp}/node:c:1:3"),
    (Rule(K.FILE_OPEN, "deny", text=b"/sys/kernel/ostype\0"), "open:/proc/sys/kernel/ostype:0"),
    (Rule(K.SYS_SOCKET, "deny"), "socket:2:2:0"),
    (Rule(K.SYS_SYSLOG, "deny"), "sys:103:3:0:0"),
    (Rule(K.SYS_PTRACE, "deny"), "ptrace:1"),
    (Rule(K.UNIX_CONNECT, "deny"), f"unix:@{SERVER}"),
]


def unrefused(cgroup: Cgroup, act: str, call: str) -> int:
    """Returns how many of that many calls were not refused."""
    done = cgroup.run([act, f"times:{TIMES}:{call}"], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    return results(done)["times"]


@pytest.mark.parametrize("case", CASES, ids=[case.place for case in CASES])
def test_a_refusal_without_a_record_still_refuses(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path, case: Case
) -> None:
    """Of 5,000 calls none succeeds, and reported + dropped are exactly 5,000."""
    if case.place not in {link.target for link in probes.kernel.attached}:
        force.elsewhere(f"this kernel has no hook cgroup/{case.place}")
    probes.enforce(Rule(case.kind, "deny", dict(case.operands)))
    before = probes.drops().get((case.kind.label, "rate_limit"), 0)
    try:
        assert unrefused(cgroup, act, case.call.format(tmp=tmp_path)) == 0
    finally:
        probes.enforce()
    dropped = probes.drops()[case.kind.label, "rate_limit"] - before
    assert dropped > TIMES - 100
    wait_for(lambda: len(probes.events(cgroup, case.kind)) + dropped == TIMES, "the reported refusals")


def test_the_calls_are_refused_by_the_rule_alone(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """Without a rule none of them ends with EPERM; otherwise the test above would prove nothing."""
    attached = {link.target for link in probes.kernel.attached}
    calls = [case.call.format(tmp=tmp_path) for case in CASES if case.place in attached]
    done = cgroup.run([act, *calls], stdout=subprocess.PIPE, text=True)
    assert results(done)
    assert -errno.EPERM not in results(done).values()


@pytest.fixture(scope="module")
def hooks() -> Iterator[Probes]:
    """The same probes at LSM hooks."""
    with running(lsm=True, alert_rate=1, alert_burst=1) as made:
        yield made


@pytest.mark.parametrize(("rule", "call"), HOOKED, ids=[rule.event.label for rule, _ in HOOKED])
def test_a_hook_refuses_without_a_record(
    hooks: Probes, act: str, tmp_path: Path, rule: Rule, call: str
) -> None:
    """The same where BPF-LSM decides. The split between reported
    and dropped varies: a repeated call is reported once.
    """
    with socket.socket(socket.AF_UNIX) as server, new_cgroup(LABEL) as cgroup:
        server.bind(f"\0{SERVER}")
        server.listen(1)
        hooks.enforce(rule)
        refused = unrefused(cgroup, act, call.format(tmp=tmp_path))
        hooks.enforce()
    assert refused == 0
