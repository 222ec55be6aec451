# SPDX-License-Identifier: Apache-2.0
"""Limits on a version 2 host: the configuration's version 1 terms, translated."""

from __future__ import annotations

from ringfence_runtime.cgroup.devices import attach
from ringfence_runtime.cgroup.hierarchy import read, write
from ringfence_runtime.cgroup.limits_v1 import rdma_line
from ringfence_runtime.errors import Error, SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ringfence_runtime.cgroup.group import Cgroup
    from ringfence_runtime.spec.resources import Resources

__all__ = ["apply", "cpu_weight", "io_weight", "values"]

_THROTTLES = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


def cpu_weight(shares: int) -> int:
    """Converts cpu.shares (2..262144, default 1024) to cpu.weight (1..10000, default 100).

    The curve through the three fixed points of runc 1.4 and crun 1.23; a straight line would map 1024 to
    a weight of 39.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    from math import ceil, log2

    power = log2(shares)
    return ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """Converts blkio.weight (10..1000) to io.weight (1..10000)."""
    return 1 + (weight - 10) * 9999 // 990


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


_FREE_CPU = ["max", "100000"]


def _nothing(_name: str) -> str:
    return ""


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _refuse(resources: Resources) -> None:
    """Refuses limits that version 2 does not have."""
    absent = (
        ("cpu.realtimeRuntime", resources.rt_period or resources.rt_runtime),
        ("memory.disableOOMKiller", resources.disable_oom_killer),
        ("memory.swappiness", resources.swappiness is not None),
        ("memory.kernelTCP", resources.kernel_tcp is not None and resources.kernel_tcp > 0),
        ("blockIO.leafWeight", resources.io_leaf_weight),
        (
            "blockIO.weightDevice[].leafWeight",
            any(item.rate is not None for item in resources.io_device_leaf_weights),
        ),
        ("network.classID", resources.net_class is not None),
        ("network.priorities", resources.net_priorities),
    )
    for place, asked in absent:
        if asked:
            raise Error(f"{resources.path}.{place}: cgroup version 2 cannot set it")


def values(resources: Resources, now: Callable[[str], str] = _nothing) -> list[tuple[str, str, str]]:
    """Yields (member of the configuration, file, value) in the order of writing.

    Pure except for `now`: it reads a file of the cgroup, to update one of two numbers in it.
    """
    _refuse(resources)
    result: list[tuple[str, str, str]] = []
    add = result.append
    if resources.shares:
        add(("cpu.shares", "cpu.weight", str(cpu_weight(resources.shares))))
    if resources.idle is not None:
        add(("cpu.idle", "cpu.idle", str(resources.idle)))
    if resources.quota or resources.period:
        quota, period = (now("cpu.max").split() + _FREE_CPU)[:2] if now("cpu.max") else _FREE_CPU
        if resources.quota:
            quota = "max" if resources.quota < 0 else str(resources.quota)
        add(("cpu.quota", "cpu.max", f"{quota} {resources.period or period}"))
    if resources.burst is not None:
        add(("cpu.burst", "cpu.max.burst", str(resources.burst)))
    if resources.cpus:
        add(("cpu.cpus", "cpuset.cpus", resources.cpus))
    if resources.mems:
        add(("cpu.mems", "cpuset.mems", resources.mems))
    _memory_values(resources, now, add)
    if resources.pids is not None:
        add(("pids.limit", "pids.max", _or_max(resources.pids)))
    for place, key in _THROTTLES.items():
        for item in resources.throttles[place]:
            add((f"blockIO.{place}", "io.max", f"{item.major}:{item.minor} {key}={item.rate or 'max'}"))
    for index, (size, limit) in enumerate(resources.hugepages):
        add((f"hugepageLimits[{index}].limit", f"hugetlb.{size}.max", str(limit)))
        if now(f"hugetlb.{size}.rsvd.max"):
            add((f"hugepageLimits[{index}].limit", f"hugetlb.{size}.rsvd.max", str(limit)))
    for device, (handles, objects) in resources.rdma.items():
        add((f"rdma.{device}", "rdma.max", rdma_line(device, handles, objects)))
    for name, value in resources.unified.items():
        add((f"unified.{name}", name, value))
    return result


def _memory_values(resources: Resources, now: Callable[[str], str], add: object) -> None:
    assert callable(add)
    limit, swap = resources.memory, resources.swap
    if limit == -1 and swap is None:
        swap = -1
    if swap and swap > 0:
        # `swap` is memory and swap together; version 2 counts swap alone.
        of_memory = limit or _number(now("memory.max"))
        if of_memory is None or of_memory < 0:
            raise SpecError(f"{resources.path}.memory.swap", "needs memory.limit, too")
        if swap < of_memory:
            raise SpecError(f"{resources.path}.memory.swap", f"{swap} is below the limit, {of_memory}")
        add(("memory.swap", "memory.swap.max", str(swap - of_memory)))
    elif swap:
        add(("memory.swap", "memory.swap.max", "max"))
    if limit:
        add(("memory.limit", "memory.max", _or_max(limit)))
    if resources.reservation:
        add(("memory.reservation", "memory.low", _or_max(resources.reservation)))


def apply(group: Cgroup, resources: Resources, *, update: bool = False) -> None:
    """Sets all limits in the one hierarchy."""
    directory = group.unified
    assert directory is not None
    if resources.devices or not update:
        _devices(directory, resources)
    if resources.memory_check and resources.memory is not None and resources.memory > 0:
        usage = int(read(f"{directory}/memory.current"))
        if usage > resources.memory:
            raise Error(f"{resources.path}.memory.limit: {resources.memory} is below what is in use, {usage}")

    def now(name: str) -> str:
        try:
            return read(f"{directory}/{name}")
        except OSError:
            return ""

    for place, name, value in values(resources, now):
        try:
            write(f"{directory}/{name}", value)
        except OSError as error:
            raise Error(
                f"{resources.path}.{place}: cannot write {value} to {name}: {error.strerror}"
            ) from None
    if resources.io_weight:
        _weight(directory, resources, resources.io_weight, "")
    for item in resources.io_device_weights:
        if item.rate is not None:
            _weight(directory, resources, item.rate, f"{item.major}:{item.minor} ")


def _devices(directory: str, resources: Resources) -> None:
    try:
        attach(directory, resources.devices)
    except PermissionError:
        # An unprivileged user is not permitted to, but in a user namespace no created node can be opened.
        if not resources.in_userns:
            raise Error(f"{resources.path}.devices: a device program is not permitted here") from None


def _weight(directory: str, resources: Resources, weight: int, device: str) -> None:
    """The current scheduler decides which of two files accepts a weight (bfq has its own scale)."""
    errors: list[str] = []
    for name, value in (("io.bfq.weight", weight), ("io.weight", io_weight(weight))):
        try:
            return write(f"{directory}/{name}", f"{device}{value}")
        except OSError as error:
            errors.append(f"{name}: {error.strerror}")
    raise Error(f"{resources.path}.blockIO.weight: {'; '.join(errors)}")
