# SPDX-License-Identifier: Apache-2.0
"""`linux.resources`: limits as numbers, devices as rules."""

from __future__ import annotations

from ringfence_runtime.errors import SpecError
from ringfence_runtime.spec.node import I64, U32, U64, Node

__all__ = ["DeviceRule", "Resources", "parse_resources"]


class DeviceRule:
    """Allow or deny `access` (of `rwm`) to devices of `type` (`a`, `b`, `c`); -1 is any number."""

    __slots__ = ("access", "allow", "major", "minor", "type")

    def __init__(self, allow: bool, kind: str, major: int, minor: int, access: str) -> None:
        self.allow = allow
        self.type = kind
        self.major = major
        self.minor = minor
        self.access = access

    def line(self) -> str:
        """The rule as cgroup v1 writes it."""
        numbers = [("*" if number < 0 else str(number)) for number in (self.major, self.minor)]
        return f"{self.type} {numbers[0]}:{numbers[1]} {self.access}"


def _device_rule(node: Node) -> DeviceRule:
    kind = node.text("type") or "a"
    if kind not in ("a", "b", "c", "u"):
        raise node.error("type", f"{kind!r} is not one of a, b, c")
    access = node.text("access") or "rwm"
    if set(access) - set("rwm"):
        raise node.error("access", f"{access!r} may only hold r, w and m")
    major, minor = node.number("major", -1, U32), node.number("minor", -1, U32)
    return DeviceRule(
        node.flag("allow"),
        "c" if kind == "u" else kind,
        -1 if major is None else major,
        -1 if minor is None else minor,
        access,
    )


class Throttle:
    """A rate or weight of one device."""

    __slots__ = ("major", "minor", "rate")

    def __init__(self, node: Node, key: str, high: int) -> None:
        self.major = node.need_number("major", 0, U32)
        self.minor = node.need_number("minor", 0, U32)
        self.rate = node.number(key, 0, high)


def _says_something(value: object) -> bool:
    if type(value) is dict:
        return any(_says_something(each) for each in value.values())
    return value is not None and value is not False and value != [] and value != ""


class Resources:
    """Every limit that the configuration names; None means that it says nothing."""

    __slots__ = (
        "burst",
        "cpus",
        "devices",
        "disable_oom_killer",
        "given",
        "hugepages",
        "idle",
        "in_userns",
        "io_device_leaf_weights",
        "io_device_weights",
        "io_leaf_weight",
        "io_weight",
        "kernel_memory",
        "kernel_tcp",
        "memory",
        "memory_check",
        "mems",
        "net_class",
        "net_priorities",
        "path",
        "period",
        "pids",
        "quota",
        "rdma",
        "reservation",
        "rt_period",
        "rt_runtime",
        "shares",
        "swap",
        "swappiness",
        "throttles",
        "unified",
    )

    def __init__(self, node: Node) -> None:
        self.path = node.path
        self.in_userns = False  # whether the container has a user namespace
        self.given = [key for key, value in node.data.items() if _says_something(value)]
        self.devices = [_device_rule(item) for item in node.nodes("devices")]
        self._memory(node.child("memory") or Node({}, node.at("memory")))
        self._cpu(node.child("cpu") or Node({}, node.at("cpu")))
        pids = node.child("pids")
        self.pids = pids.number("limit", -1, I64) if pids else None
        self._io(node.child("blockIO") or Node({}, node.at("blockIO")))
        self.hugepages = [
            (item.need_text("pageSize"), item.need_number("limit", 0, U64))
            for item in node.nodes("hugepageLimits")
        ]
        for index, (size, _) in enumerate(self.hugepages):
            if not size[:-2].isdecimal() or size[-2:] not in ("KB", "MB", "GB"):
                raise node.error(f"hugepageLimits[{index}].pageSize", f"{size!r} is not a size such as 2MB")
        network = node.child("network")
        self.net_class = network.number("classID", 0, U32) if network else None
        self.net_priorities = (
            [
                (item.need_text("name"), item.need_number("priority", 0, U32))
                for item in network.nodes("priorities")
            ]
            if network
            else []
        )
        self.rdma: dict[str, tuple[int | None, int | None]] = {}
        for name, item in node.entries("rdma"):
            self.rdma[name] = (item.number("hcaHandles", 0, U32), item.number("hcaObjects", 0, U32))
            if self.rdma[name] == (None, None):
                raise SpecError(item.path, "needs hcaHandles or hcaObjects")
        self.unified = node.table("unified")
        for name in self.unified:
            if not name or "/" in name or name.startswith((".", "cgroup.")):
                raise node.error(f"unified.{name}", "is not the name of a controller's file")

    def interpret(self, version: str) -> None:
        """Gives `pids.limit: 0` the meaning that it has in this version of the specification.

        Since 1.3 it is a limit, and only -1 means none (config-linux.md, PIDs). A 1 has the same effect, as
        the init counts, and unlike 0 it lets clone3 create the init in its cgroup. Before, 0 was the
        absent value: Podman 4 writes it for `--pids-limit -1`.
        """
        if self.pids == 0:
            minor = version.split(".")[1]
            self.pids = -1 if minor.isdecimal() and int(minor) < 3 else 1

    def _memory(self, node: Node) -> None:
        self.memory = node.number("limit", -1, I64)
        self.reservation = node.number("reservation", -1, I64)
        self.swap = node.number("swap", -1, I64)
        self.kernel_memory = node.number("kernel", -1, I64)
        self.kernel_tcp = node.number("kernelTCP", -1, I64)
        self.swappiness = node.number("swappiness", 0, 200)
        self.disable_oom_killer = node.optional_flag("disableOOMKiller")
        self.memory_check = node.flag("checkBeforeUpdate")
        if self.swap is not None and self.swap > 0 and self.memory == -1:
            raise node.error("swap", "needs memory.limit beside it")
        if self.swap is not None and self.memory is not None and 0 <= self.swap < self.memory:
            raise node.error(
                "swap", f"{self.swap} is below memory.limit, {self.memory} (it is memory and swap together)"
            )

    def _cpu(self, node: Node) -> None:
        self.shares = node.number("shares", 0, U64)
        self.quota = node.number("quota", -1, I64)
        self.burst = node.number("burst", 0, U64)
        self.period = node.number("period", 0, U64)
        self.rt_runtime = node.number("realtimeRuntime", -1, I64)
        self.rt_period = node.number("realtimePeriod", 0, U64)
        self.cpus = node.text("cpus")
        self.mems = node.text("mems")
        self.idle = node.number("idle", 0, 1)

    def _io(self, node: Node) -> None:
        self.io_weight = node.number("weight", 0, 1000)
        self.io_leaf_weight = node.number("leafWeight", 0, 1000)
        self.io_device_weights = [Throttle(item, "weight", 1000) for item in node.nodes("weightDevice")]
        self.io_device_leaf_weights = [
            Throttle(item, "leafWeight", 1000) for item in node.nodes("weightDevice")
        ]
        self.throttles: dict[str, list[Throttle]] = {}
        for name in (
            "throttleReadBpsDevice",
            "throttleWriteBpsDevice",
            "throttleReadIOPSDevice",
            "throttleWriteIOPSDevice",
        ):
            self.throttles[name] = [Throttle(item, "rate", U64) for item in node.nodes(name)]


def parse_resources(node: Node | None) -> Resources:
    """`linux.resources`, or nothing at all."""
    return Resources(node or Node({}, "linux.resources"))
