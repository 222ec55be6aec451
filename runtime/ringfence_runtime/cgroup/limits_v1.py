# SPDX-License-Identifier: Apache-2.0
"""Limits on a version 1 or hybrid host: each is written in the hierarchy of its controller."""

from __future__ import annotations

import errno
import os

from ringfence_runtime.cgroup.devices import v1_lines
from ringfence_runtime.cgroup.hierarchy import read, write
from ringfence_runtime.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.cgroup.group import Cgroup
    from ringfence_runtime.spec.resources import Resources

__all__ = ["apply", "hugetlb_files", "rdma_line"]

_THROTTLES = {
    "throttleReadBpsDevice": "blkio.throttle.read_bps_device",
    "throttleWriteBpsDevice": "blkio.throttle.write_bps_device",
    "throttleReadIOPSDevice": "blkio.throttle.read_iops_device",
    "throttleWriteIOPSDevice": "blkio.throttle.write_iops_device",
}


class _Writer:
    def __init__(self, group: Cgroup, base: str) -> None:
        self.group = group
        self.base = base

    def file(self, name: str) -> str | None:
        directory = self.group.directory(name.split(".")[0])
        return None if directory is None else f"{directory}/{name}"

    def set(self, place: str, name: str, value: object) -> None:
        """Writes a value; the error for a missing controller or file names the configuration's member."""
        file = self.file(name)
        if file is None:
            raise Error(f"{self.base}.{place}: this host has no {name.split('.')[0]} controller")
        try:
            write(file, str(value))
        except OSError as error:
            raise Error(f"{self.base}.{place}: cannot write {value} to {file}: {error.strerror}") from None

    def set_first(self, place: str, names: tuple[str, ...], value: object) -> None:
        """Writes to the first existing file of several (blkio.bfq.weight or blkio.weight)."""
        for name in names:
            file = self.file(name)
            if file is not None and os.path.exists(file):
                self.set(place, name, value)
                return
        raise Error(f"{self.base}.{place}: this kernel has none of {', '.join(names)}")


def apply(group: Cgroup, resources: Resources, *, update: bool = False) -> None:
    """Sets all limits. `update` leaves the device list unchanged unless it is given."""
    writer = _Writer(group, resources.path)
    if resources.devices or not update:
        _devices(writer, resources)
    _cpu(writer, resources)
    _memory(writer, resources)
    if resources.pids is not None:
        writer.set("pids.limit", "pids.max", "max" if resources.pids < 0 else resources.pids)
    _io(writer, resources)
    for index, (size, limit) in enumerate(resources.hugepages):
        _hugetlb(writer, index, size, limit)
    if resources.net_class is not None:
        writer.set("network.classID", "net_cls.classid", resources.net_class)
    for name, priority in resources.net_priorities:
        writer.set("network.priorities", "net_prio.ifpriomap", f"{name} {priority}")
    for device, (handles, objects) in resources.rdma.items():
        writer.set(f"rdma.{device}", "rdma.max", rdma_line(device, handles, objects))
    _unified(group, resources)


def rdma_line(device: str, handles: int | None, objects: int | None) -> str:
    """Returns a line of rdma.max."""
    values = [("hca_handle", handles), ("hca_object", objects)]
    return " ".join([device, *(f"{key}={value}" for key, value in values if value is not None)])


def _devices(writer: _Writer, resources: Resources) -> None:
    directory = writer.group.directory("devices")
    if directory is None:
        if writer.group.unified is None:
            raise Error(f"{writer.base}.devices: this host has no devices controller")
        from ringfence_runtime.cgroup.devices import attach

        attach(writer.group.unified, resources.devices)
        return
    _device_lines(writer, directory, v1_lines(resources.devices))


def _device_lines(writer: _Writer, directory: str, lines: list[tuple[str, str]]) -> None:
    """Writes one line per write(2), as the kernel requires; opening the file each time would be slower."""
    opened: dict[str, int] = {}
    try:
        for name, line in lines:
            path = f"{directory}/{name}"
            try:
                if name not in opened:
                    opened[name] = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                os.write(opened[name], line.encode())
            except OSError as error:
                raise Error(
                    f"{writer.base}.devices: cannot write {line} to {path}: {error.strerror}"
                ) from None
    finally:
        for fd in opened.values():
            os.close(fd)


def _cpu(writer: _Writer, resources: Resources) -> None:
    if resources.shares:
        writer.set("cpu.shares", "cpu.shares", resources.shares)
    if resources.idle is not None:
        writer.set("cpu.idle", "cpu.idle", resources.idle)
    if resources.burst is not None and resources.quota is None:
        writer.set("cpu.burst", "cpu.cfs_burst_us", resources.burst)
    if resources.period:
        try:
            writer.set("cpu.period", "cpu.cfs_period_us", resources.period)
        except Error:
            if not resources.quota:
                raise
            # Quota first: the ratio of a new period to the old quota may exceed the parent's.
            writer.set("cpu.quota", "cpu.cfs_quota_us", resources.quota)
            writer.set("cpu.period", "cpu.cfs_period_us", resources.period)
    if resources.quota:
        writer.set("cpu.quota", "cpu.cfs_quota_us", resources.quota)
        if resources.burst is not None:
            writer.set("cpu.burst", "cpu.cfs_burst_us", resources.burst)
    if resources.rt_period:
        writer.set("cpu.realtimePeriod", "cpu.rt_period_us", resources.rt_period)
    if resources.rt_runtime is not None and resources.rt_runtime != 0:
        writer.set("cpu.realtimeRuntime", "cpu.rt_runtime_us", resources.rt_runtime)
    if resources.cpus:
        writer.set("cpu.cpus", "cpuset.cpus", resources.cpus)
    if resources.mems:
        writer.set("cpu.mems", "cpuset.mems", resources.mems)


def _memory(writer: _Writer, resources: Resources) -> None:
    limit, swap = resources.memory, resources.swap
    file = writer.file("memory.limit_in_bytes")
    if resources.memory_check and limit is not None and limit > 0 and file is not None:
        usage = int(read(file.replace("limit_in_bytes", "usage_in_bytes")))
        if usage > limit:
            raise Error(f"{writer.base}.memory.limit: {limit} is below the current usage, {usage}")
    both = "memory.memsw.limit_in_bytes"
    if limit == -1 and swap is None:
        swap_file = writer.file(both)
        swap = -1 if swap_file is not None and os.path.exists(swap_file) else None
    if swap and limit and _raises(writer, both, swap):
        writer.set("memory.swap", both, swap)
        swap = None
    if limit:
        writer.set("memory.limit", "memory.limit_in_bytes", limit)
    if swap:
        writer.set("memory.swap", both, swap)
    if resources.reservation:
        writer.set("memory.reservation", "memory.soft_limit_in_bytes", resources.reservation)
    if resources.kernel_tcp is not None and resources.kernel_tcp > 0:
        writer.set("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", resources.kernel_tcp)
    if resources.swappiness is not None:
        if resources.swappiness > 100:
            raise Error(f"{writer.base}.memory.swappiness: {resources.swappiness} is above 100")
        writer.set("memory.swappiness", "memory.swappiness", resources.swappiness)
    if resources.disable_oom_killer:
        writer.set("memory.disableOOMKiller", "memory.oom_control", 1)


def _raises(writer: _Writer, name: str, value: int) -> bool:
    """Returns True if `value` raises the limit: memory+swap is raised before memory, and lowered after."""
    file = writer.file(name)
    if file is None or not os.path.exists(file):
        return False
    return value < 0 or value > int(read(file))


def _io(writer: _Writer, resources: Resources) -> None:
    if resources.io_weight:
        writer.set_first("blockIO.weight", ("blkio.bfq.weight", "blkio.weight"), resources.io_weight)
    if resources.io_leaf_weight:
        writer.set("blockIO.leafWeight", "blkio.leaf_weight", resources.io_leaf_weight)
    for item in resources.io_device_weights:
        if item.rate is not None:
            names = ("blkio.bfq.weight_device", "blkio.weight_device")
            writer.set_first("blockIO.weightDevice", names, f"{item.major}:{item.minor} {item.rate}")
    for index, item in enumerate(resources.io_device_leaf_weights):
        if item.rate is not None:
            place = f"blockIO.weightDevice[{index}].leafWeight"
            writer.set(place, "blkio.leaf_weight_device", f"{item.major}:{item.minor} {item.rate}")
    for place, name in _THROTTLES.items():
        for item in resources.throttles[place]:
            writer.set(f"blockIO.{place}", name, f"{item.major}:{item.minor} {item.rate or 0}")


def _hugetlb(writer: _Writer, index: int, size: str, limit: int) -> None:
    place = f"hugepageLimits[{index}].limit"
    if writer.group.directory("hugetlb") is not None:
        writer.set(place, f"hugetlb.{size}.limit_in_bytes", limit)
        if os.path.exists(writer.file(f"hugetlb.{size}.rsvd.limit_in_bytes") or ""):
            writer.set(place, f"hugetlb.{size}.rsvd.limit_in_bytes", limit)
        return
    unified = writer.group.unified
    if unified is None:
        raise Error(f"{writer.base}.{place}: this host has no hugetlb controller")
    for name in hugetlb_files(unified, size):
        try:
            write(f"{unified}/{name}", str(limit))
        except OSError as error:
            raise Error(f"{writer.base}.{place}: {name}: {error.strerror}") from None


def hugetlb_files(directory: str, size: str) -> list[str]:
    """Returns the files of a version 2 cgroup that limit huge pages: used and (Linux 5.7) reserved ones.

    Without the latter a workload gets SIGBUS on the first access above the limit, instead of a failed mmap.
    """
    reserved = f"hugetlb.{size}.rsvd.max"
    return [f"hugetlb.{size}.max", *([reserved] if os.path.exists(f"{directory}/{reserved}") else [])]


def _unified(group: Cgroup, resources: Resources) -> None:
    for name, value in resources.unified.items():
        place = f"{resources.path}.unified.{name}"
        if group.unified is None:
            raise Error(f"{place}: this host has no cgroup version 2 hierarchy")
        try:
            write(f"{group.unified}/{name}", value)
        except OSError as error:
            missing = error.errno in (errno.ENOENT, errno.EACCES)
            why = "its controller is not on the version 2 hierarchy here" if missing else error.strerror
            raise Error(f"{place}: cannot be set: {why}") from None
