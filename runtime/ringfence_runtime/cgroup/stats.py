# SPDX-License-Identifier: Apache-2.0
"""Statistics of a cgroup in runc's format (`events --stats`), from either version. Units: ns, bytes."""

from __future__ import annotations

import os

from ringfence_runtime.cgroup.hierarchy import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringfence_runtime.cgroup.group import Cgroup

__all__ = ["parse_flat", "parse_pressure", "parse_rdma", "stats"]

_NO_LIMIT = (1 << 64) - 1


def parse_flat(text: str) -> dict[str, int]:
    """Parses `name value` lines; ignores others."""
    result: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdecimal():
            result[name] = int(value)
    return result


def parse_pressure(text: str) -> dict[str, dict[str, float]]:
    """Parses PSI: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`."""
    result: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        values = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
        result[kind] = {key: int(value) if key == "total" else float(value) for key, value in values.items()}
    return result


def _text(directory: str | None, name: str) -> str:
    if directory is None:
        return ""
    try:
        return read(f"{directory}/{name}")
    except OSError:
        return ""  # the controller or the file is missing: the value is omitted


def _number(directory: str | None, name: str) -> int:
    text = _text(directory, name)
    if text == "max":
        return _NO_LIMIT
    return int(text) if text.lstrip("-").isdecimal() else 0


def stats(group: Cgroup) -> dict[str, Any]:
    """Returns all statistics of the cgroup."""
    data = _stats_v2(group.unified or "") if group.is_v2 else _stats_v1(group)
    unified = group.unified
    for name, section in (("cpu", "cpu"), ("memory", "memory"), ("io", "blkio")):
        text = _text(unified, f"{name}.pressure")
        if text:
            data[section]["psi"] = parse_pressure(text)
    return data


def _stats_v1(group: Cgroup) -> dict[str, Any]:
    cpu, acct = group.directory("cpu"), group.directory("cpuacct")
    throttled = parse_flat(_text(cpu, "cpu.stat"))
    times = parse_flat(_text(acct, "cpuacct.stat"))
    tick = 10**9 // os.sysconf("SC_CLK_TCK")
    pids = group.directory("pids")
    return {
        "cpu": {
            "usage": {
                "total": _number(acct, "cpuacct.usage"),
                "percpu": [int(word) for word in _text(acct, "cpuacct.usage_percpu").split()],
                "kernel": times.get("system", 0) * tick,
                "user": times.get("user", 0) * tick,
            },
            "throttling": {
                "periods": throttled.get("nr_periods", 0),
                "throttledPeriods": throttled.get("nr_throttled", 0),
                "throttledTime": throttled.get("throttled_time", 0),
            },
        },
        "memory": _memory_v1(group.directory("memory")),
        "pids": {"current": _number(pids, "pids.current"), "limit": _number(pids, "pids.max")},
        "blkio": _blkio_v1(group.directory("blkio")),
        "hugetlb": _hugetlb_v1(group.directory("hugetlb")) or _hugetlb(group.unified),
        "rdma": _rdma(group.directory("rdma") or group.unified),
    }


def _memory_v1(directory: str | None) -> dict[str, Any]:
    raw = parse_flat(_text(directory, "memory.stat"))

    def entry(prefix: str) -> dict[str, int]:
        return {
            "limit": _number(directory, f"{prefix}.limit_in_bytes"),
            "usage": _number(directory, f"{prefix}.usage_in_bytes"),
            "max": _number(directory, f"{prefix}.max_usage_in_bytes"),
            "failcnt": _number(directory, f"{prefix}.failcnt"),
        }

    return {
        "cache": raw.get("cache", 0),
        "usage": entry("memory"),
        "swap": entry("memory.memsw"),
        "kernel": entry("memory.kmem"),
        "kernelTCP": entry("memory.kmem.tcp"),
        "raw": raw,
    }


def _blkio_v1(directory: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, file in (
        ("ioServiceBytesRecursive", "blkio.throttle.io_service_bytes_recursive"),
        ("ioServicedRecursive", "blkio.throttle.io_serviced_recursive"),
    ):
        rows = [line.split() for line in _text(directory, file).splitlines()]
        result[name] = [_block(row[0], row[1], row[2]) for row in rows if len(row) == 3]
    return result


def _block(device: str, operation: str, value: str) -> dict[str, Any]:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor or 0), "op": operation, "value": int(value)}


def _io_v2(directory: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns bytes and operations by device, from io.stat."""
    bytes_, operations = [], []
    for line in _text(directory, "io.stat").splitlines():
        device, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs)
        for letter, name in (("r", "Read"), ("w", "Write")):
            bytes_.append(_block(device, name, values.get(f"{letter}bytes", "0")))
            operations.append(_block(device, name, values.get(f"{letter}ios", "0")))
    return bytes_, operations


def _stats_v2(directory: str) -> dict[str, Any]:
    cpu = parse_flat(_text(directory, "cpu.stat"))
    memory = parse_flat(_text(directory, "memory.stat"))
    bytes_, operations = _io_v2(directory)
    return {
        "cpu": {
            "usage": {
                "total": cpu.get("usage_usec", 0) * 1000,
                "kernel": cpu.get("system_usec", 0) * 1000,
                "user": cpu.get("user_usec", 0) * 1000,
            },
            "throttling": {
                "periods": cpu.get("nr_periods", 0),
                "throttledPeriods": cpu.get("nr_throttled", 0),
                "throttledTime": cpu.get("throttled_usec", 0) * 1000,
            },
        },
        "memory": {
            "cache": memory.get("file", 0),
            "usage": {
                "limit": _number(directory, "memory.max"),
                "usage": _number(directory, "memory.current"),
                "max": _number(directory, "memory.peak"),
                "failcnt": parse_flat(_text(directory, "memory.events")).get("max", 0),
            },
            "swap": {
                "limit": _number(directory, "memory.swap.max"),
                "usage": _number(directory, "memory.swap.current"),
                "failcnt": 0,
            },
            "raw": memory,
        },
        "pids": {"current": _number(directory, "pids.current"), "limit": _number(directory, "pids.max")},
        "blkio": {"ioServiceBytesRecursive": bytes_, "ioServicedRecursive": operations},
        "hugetlb": _hugetlb(directory),
        "rdma": _rdma(directory),
    }


def _hugetlb(directory: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in os.listdir(directory) if directory and os.path.isdir(directory) else ():
        parts = name.split(".")
        if len(parts) == 3 and parts[0] == "hugetlb" and parts[2] == "current":
            events = parse_flat(_text(directory, f"hugetlb.{parts[1]}.events"))
            result[parts[1]] = {"usage": _number(directory, name), "failcnt": events.get("max", 0)}
            if _text(directory, f"hugetlb.{parts[1]}.rsvd.current"):
                result[parts[1]]["reserved"] = _number(directory, f"hugetlb.{parts[1]}.rsvd.current")
    return result


def _hugetlb_v1(directory: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in os.listdir(directory) if directory and os.path.isdir(directory) else ():
        parts = name.split(".")
        if len(parts) == 3 and parts[0] == "hugetlb" and parts[2] == "usage_in_bytes":
            base = f"hugetlb.{parts[1]}"
            result[parts[1]] = {
                "usage": _number(directory, name),
                "max": _number(directory, f"{base}.max_usage_in_bytes"),
                "failcnt": _number(directory, f"{base}.failcnt"),
            }
            if _text(directory, f"{base}.rsvd.usage_in_bytes"):
                result[parts[1]]["reserved"] = _number(directory, f"{base}.rsvd.usage_in_bytes")
    return result


def parse_rdma(text: str) -> list[dict[str, Any]]:
    """Parses `mlx4_0 hca_handle=2 hca_object=max` lines; `max` becomes the number for no limit."""
    rows = []
    for line in text.splitlines():
        device, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        numbers = {
            name: _NO_LIMIT if values.get(key) == "max" else int(values.get(key, "0"))
            for name, key in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
        }
        rows.append({"device": device, **numbers})
    return rows


def _rdma(directory: str | None) -> dict[str, Any]:
    current, limit = (parse_rdma(_text(directory, f"rdma.{name}")) for name in ("current", "max"))
    return {"current": current, "limit": limit} if current or limit else {}
