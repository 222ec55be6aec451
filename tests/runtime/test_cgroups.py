# SPDX-License-Identifier: Apache-2.0
"""The translation of limits and device rules: pure
functions, and the device program in the kernel.
"""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from ringfence_runtime.cgroup.devices import effective_rules, program, v1_lines
from ringfence_runtime.cgroup.limits_v2 import cpu_weight, io_weight, values
from ringfence_runtime.cgroup.stats import parse_pressure, parse_rdma
from ringfence_runtime.errors import Error
from ringfence_runtime.spec.node import Node
from ringfence_runtime.spec.resources import DeviceRule, Resources
from tests.support import force
from tests.support.cgroups import Cgroup


def resources(value: Any) -> Resources:
    """Parse these limits."""
    return Resources(Node(value, "linux.resources"))


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000), (1, 1), (10**9, 10000)])
def test_cpu_shares_keep_their_fixed_points(shares: int, weight: int) -> None:
    """The smallest, default and greatest share are the smallest, default and greatest weight."""
    assert cpu_weight(shares) == weight


def test_io_weight_spans_the_range() -> None:
    """10..1000 onto 1..10000."""
    assert (io_weight(10), io_weight(1000)) == (1, 10000)


def test_v2_swap_excludes_memory() -> None:
    """The configuration's swap is the sum of memory and swap."""
    got = {name: value for _, name, value in values(resources({"memory": {"limit": 100, "swap": 150}}))}
    assert got == {"memory.max": "100", "memory.swap.max": "50"}


def v2(value: Any, **now: str) -> dict[str, str]:
    """Returns file -> value, in a cgroup whose files have the values in `now` (`_` for `.`)."""
    there = {name.replace("_", "."): text for name, text in now.items()}
    return {name: text for _, name, text in values(resources(value), lambda name: there.get(name, ""))}


@pytest.mark.parametrize(
    ("asked", "result"),
    [
        ({"period": 50000}, "20000 50000"),
        ({"quota": 30000}, "30000 100000"),
        ({"quota": -1}, "max 100000"),
        ({"quota": 1000, "period": 2000}, "1000 2000"),
    ],
)
def test_v2_period_and_quota_are_updated_separately(asked: dict[str, int], result: str) -> None:
    """An update of one keeps the other; in a new cgroup there is no quota and the default period."""
    assert v2({"cpu": asked}, cpu_max="20000 100000") == {"cpu.max": result}
    assert v2({"cpu": {"period": 50000}}) == {"cpu.max": "max 50000"}


def test_v2_swap_alone_counts_from_the_limit_that_is_set() -> None:
    """`update --memory-swap`; without any memory limit it has no effect."""
    assert v2({"memory": {"swap": 150}}, memory_max="100") == {"memory.swap.max": "50"}
    assert v2({"memory": {"swap": -1}}, memory_max="max") == {"memory.swap.max": "max"}
    for now, why in (("max", "needs memory.limit"), ("200", "below the limit")):
        with pytest.raises(Error, match=why):
            v2({"memory": {"swap": 150}}, memory_max=now)


def test_v2_huge_pages_are_limited_when_they_are_reserved_too() -> None:
    """Where the kernel supports it."""
    asked = {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}
    assert v2(asked) == {"hugetlb.2MB.max": "4194304"}
    files = {"hugetlb.2MB.max": "4194304", "hugetlb.2MB.rsvd.max": "4194304"}
    assert v2(asked, hugetlb_2MB_rsvd_max="max") == files


def test_figures_of_rdma() -> None:
    """Lines of rdma.current and rdma.max (cgroup-v2.rst)."""
    text = "mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=max"
    assert parse_rdma(text) == [
        {"device": "mlx4_0", "hcaHandles": 2, "hcaObjects": 2000},
        {"device": "ocrdma1", "hcaHandles": 3, "hcaObjects": (1 << 64) - 1},
    ]


def test_v2_refuses_unsupported_limits() -> None:
    """A limit that cannot be set is an error, never ignored."""
    for value in (
        {"cpu": {"realtimeRuntime": 1000}},
        {"memory": {"disableOOMKiller": True}},
        {"memory": {"swappiness": 10}},
        {"network": {"classID": 1}},
        {"blockIO": {"leafWeight": 10}},
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]}},
    ):
        with pytest.raises(Error):
            values(resources(value))


def test_v1_device_list_starts_with_nothing() -> None:
    """Deny all, then the rules, then the devices that every container may use."""
    lines = v1_lines([DeviceRule(True, "b", 8, 0, "r")])
    assert lines[0] == ("devices.deny", "a *:* rwm")
    assert lines[1] == ("devices.allow", "b 8:0 r")
    assert ("devices.allow", "c 1:3 rwm") in lines


def test_a_rule_for_everything_replaces_earlier_rules() -> None:
    """Like the kernel's version 1 list."""
    rules = effective_rules([DeviceRule(True, "b", 8, 0, "r"), DeviceRule(True, "a", -1, -1, "rwm")])
    assert rules[0].type == "a"


class Machine:
    """An interpreter of the few eBPF instructions that `program` uses."""

    def __init__(self, code: bytes) -> None:
        self.code = [code[start : start + 8] for start in range(0, len(code), 8)]

    def run(self, kind: int, access: int, major: int, minor: int) -> int:
        context = {0: kind | access << 16, 4: major, 8: minor}
        registers = dict.fromkeys(range(10), 0)
        at = 0
        while True:
            word = self.code[at]
            opcode, dst, src = word[0], word[1] & 15, word[1] >> 4
            offset = int.from_bytes(word[2:4], "little", signed=True)
            value = int.from_bytes(word[4:8], "little", signed=True)
            at += 1
            if opcode == 0x61:
                registers[dst] = context[offset]
            elif opcode == 0xBC:
                registers[dst] = registers[src] & 0xFFFFFFFF
            elif opcode == 0x54:
                registers[dst] &= value & 0xFFFFFFFF
            elif opcode == 0x74:
                registers[dst] >>= value
            elif opcode == 0xB4:
                registers[dst] = value
            elif opcode == 0x55:
                at += offset if registers[dst] != value else 0
            elif opcode == 0x15:
                at += offset if registers[dst] == value else 0
            elif opcode == 0x95:
                return registers[0]
            else:
                raise AssertionError(hex(opcode))


BLOCK, CHAR, MKNOD, READ, WRITE = 1, 2, 1, 2, 4


def test_device_program_decides_as_the_rules_say() -> None:
    """The last rule that matches decides; without one it
    is refused; an allowed access allows nothing more.
    """
    machine = Machine(
        program(
            [
                DeviceRule(False, "a", -1, -1, "rwm"),
                DeviceRule(True, "b", 8, -1, "r"),
                DeviceRule(False, "b", 8, 5, "r"),
            ]
        )
    )
    assert machine.run(BLOCK, READ, 8, 1) == 1
    assert machine.run(BLOCK, READ | WRITE, 8, 1) == 0
    assert machine.run(BLOCK, READ, 8, 5) == 0
    assert machine.run(BLOCK, READ, 9, 1) == 0
    assert machine.run(CHAR, READ | WRITE, 1, 3) == 1
    assert machine.run(CHAR, READ, 1, 1) == 0
    assert machine.run(CHAR, MKNOD, 250, 7) == 1


def test_device_program_of_a_privileged_container() -> None:
    """Everything is allowed."""
    machine = Machine(program([DeviceRule(True, "a", -1, -1, "rwm")]))
    assert machine.run(BLOCK, READ | WRITE | MKNOD, 8, 0) == 1


@pytest.mark.root
def test_the_device_program_in_the_kernel(cgroup: Cgroup) -> None:
    """The verifier accepts it, a version 2 cgroup runs
    it, and an update leaves exactly one attached.
    """
    import os

    from ringfence_runtime.cgroup import bpf
    from ringfence_runtime.cgroup.devices import attach

    directory = cgroup.paths.get("v2")
    if directory is None:
        force.elsewhere("there is no version 2 hierarchy")
    many = [DeviceRule(True, "b", 8, minor, "r") for minor in range(20)] + [
        DeviceRule(False, "c", 5, -1, "w")
    ]
    for rules in (many, [], many):
        attach(str(directory), rules)
        group = os.open(directory, os.O_RDONLY)
        found = bpf.attached(group)
        assert len(found) == 1
        for fd in (*found, group):
            os.close(fd)
    script = f"echo $$ > {directory}/cgroup.procs; cat /dev/zero | head -c 1 | wc -c; : < /dev/kmsg"
    got = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)
    assert got.stdout.strip() == "1"
    assert "Operation not permitted" in got.stderr


def test_pressure() -> None:
    """PSI lines as numbers."""
    text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3"
    assert parse_pressure(text)["some"] == {"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 12}
    assert parse_pressure(text)["full"]["total"] == 3
