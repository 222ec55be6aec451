# SPDX-License-Identifier: Apache-2.0
"""`linux` of the configuration: namespaces, mappings, devices, sysctls, paths and the seccomp profile."""

from __future__ import annotations

import stat

from ringfence_linux import syscalls
from ringfence_runtime.errors import SpecError
from ringfence_runtime.spec.mounts import IdMapping, mappings, propagation_of
from ringfence_runtime.spec.node import I64, U32, Node, choice
from ringfence_runtime.spec.resources import parse_resources

__all__ = ["NAMESPACES", "Device", "Landlock", "Linux", "check_sysctl", "sysctl_namespace"]

NAMESPACES = {
    "pid": syscalls.CLONE_NEWPID,
    "network": syscalls.CLONE_NEWNET,
    "mount": syscalls.CLONE_NEWNS,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "user": syscalls.CLONE_NEWUSER,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "time": syscalls.CLONE_NEWTIME,
}
DEVICE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_IPC_SYSCTLS = frozenset(
    (
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    )
)
_SYSCTL_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:@")
_PERSONALITIES = {"LINUX": 0, "LINUX32": 8}


def sysctl_namespace(name: str) -> str:
    """The kind of namespace that holds the sysctl (its name with dots), or nothing where none does."""
    parts = name.split(".")
    if parts[0] == "net" and len(parts) > 1:
        return "network"
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        return "ipc"
    if name == "kernel.domainname":
        return "uts"
    return "user" if parts[0] == "user" and len(parts) == 2 else ""


def check_sysctl(path: str, name: str, value: str, owned: dict[str, str]) -> str:
    """The path below /proc/sys of a sysctl that belongs to a namespace of the container's own.

    CVE-2022-0811 smuggled a second sysctl into a value; so names have a small alphabet and values no control
    characters, and only what a namespace of the container's own holds may be set at all.
    """
    # Either separator is lawful (sysctl(8)): with `/` as the first, dots are part of a name (an interface's).
    first = min((position for position in (name.find("."), name.find("/")) if position >= 0), default=-1)
    parts = name.split(name[first]) if first >= 0 else [name]
    plain = ".".join(parts)
    if any(not part or part in (".", "..") for part in parts) or set("".join(parts)) - _SYSCTL_LETTERS - {
        "/"
    }:
        raise SpecError(path, f"{name!r} is not the name of a sysctl")
    if any(ord(letter) < 32 and letter != "\t" for letter in value):
        raise SpecError(path, "its value holds control characters")
    if plain == "kernel.hostname":
        raise SpecError(path, "use `hostname` of the configuration")
    space = sysctl_namespace(plain)
    if not space:
        raise SpecError(path, f"{name!r} belongs to no namespace, so it would change the host")
    if space not in owned:
        raise SpecError(path, f"{name!r} needs a {space} namespace of the container's own")
    swap = str.maketrans("/.", "./") if first >= 0 and name[first] == "." else None
    return name.translate(swap) if swap else name


class Device:
    """A node to make."""

    __slots__ = ("gid", "major", "minor", "mode", "path", "type", "uid")

    def __init__(self, node: Node) -> None:
        self.path = node.absolute("path")
        self.type = node.choice("type", DEVICE_TYPES)
        pipe = self.type == "p"
        self.major = 0 if pipe else node.number("major", 0, 0xFFF) or 0
        self.minor = 0 if pipe else node.number("minor", 0, 0xFFFFF) or 0
        mode = node.number("fileMode", 0, 0xFFFFFFFF)
        self.mode = 0o666 if mode is None else mode & 0o7777
        self.uid = node.number("uid", 0, U32 - 1) or 0
        self.gid = node.number("gid", 0, U32 - 1) or 0


class Landlock:
    """Ringfence's extension `linux.landlock`: paths that may be read, written or executed; all else is
    refused.
    """

    __slots__ = (
        "bind_tcp",
        "bind_udp",
        "connect_tcp",
        "connect_udp",
        "connect_unix",
        "derive",
        "execute",
        "read",
        "scope",
        "write",
    )

    def __init__(self, node: Node) -> None:
        self.derive = node.optional_flag("derive") is not False
        self.read = self._paths(node, "read")
        self.write = self._paths(node, "write")
        self.execute = self._paths(node, "execute")
        self.connect_unix = self._paths(node, "connectUnix")
        self.bind_tcp = self._ports(node, "bindTcp")
        self.connect_tcp = self._ports(node, "connectTcp")
        self.bind_udp = self._ports(node, "bindUdp")
        self.connect_udp = self._ports(node, "connectUdp")
        self.scope = node.optional_flag("scope") is not False

    @staticmethod
    def _ports(node: Node, key: str) -> tuple[int, ...] | None:
        """None: any port; an empty list: none."""
        return node.numbers(key, 0, 65535) if node.has(key) else None

    @staticmethod
    def _paths(node: Node, key: str) -> tuple[str, ...]:
        paths = node.texts(key)
        for index, path in enumerate(paths):
            if not path.startswith("/"):
                raise node.error(f"{key}[{index}]", f"{path!r} must be an absolute path")
        return paths


class Linux:
    """`linux`; a namespace's value is the path to join, or empty for a new one."""

    __slots__ = (
        "cgroups_path",
        "devices",
        "gid_map",
        "landlock",
        "masked",
        "memory_policy",
        "mount_label",
        "namespaces",
        "net_devices",
        "personality",
        "propagation",
        "readonly",
        "resources",
        "same_ids",
        "seccomp",
        "sysctls",
        "time_offsets",
        "uid_map",
    )

    def __init__(self, node: Node) -> None:
        self.namespaces = _namespaces(node)
        self.uid_map = mappings(node, "uidMappings")
        self.gid_map = mappings(node, "gidMappings")
        self.same_ids = False  # a user namespace whose ids are the host's, because none were given
        self._check_user(node)
        self.devices = [Device(item) for item in node.nodes("devices")]
        self.sysctls = {
            check_sysctl(node.at(f"sysctl.{name}"), name, value, self.namespaces): value
            for name, value in node.table("sysctl").items()
        }
        self.resources = parse_resources(node.child("resources"))
        self.resources.in_userns = "user" in self.namespaces
        self.cgroups_path = _cgroups_path(node)
        self.masked = _absolute_list(node, "maskedPaths")
        self.readonly = _absolute_list(node, "readonlyPaths")
        self.propagation = propagation_of(node, "rootfsPropagation")
        self.mount_label = node.text("mountLabel")
        self.seccomp = node.child("seccomp")
        self.time_offsets = _time_offsets(node, self.namespaces)
        self.personality = _personality(node.child("personality"))
        self.memory_policy = node.child("memoryPolicy")
        if node.has("intelRdt"):
            raise node.error("intelRdt", "Intel RDT is not supported")
        self.net_devices = _net_devices(node, self.namespaces)
        landlock = node.child("landlock")
        self.landlock = Landlock(landlock) if landlock else None

    def _check_user(self, node: Node) -> None:
        space = self.namespaces.get("user")
        if space is None and (self.uid_map or self.gid_map):
            raise node.error("uidMappings", "mappings need a user namespace")
        if space == "" and bool(self.uid_map) != bool(self.gid_map):
            raise node.error("uidMappings", "uidMappings and gidMappings come together")
        if space == "" and not self.uid_map:
            # As crun does: every id maps to itself. Capabilities are confined all the same, ids are not.
            self.uid_map = self.gid_map = (IdMapping(0, 0, U32),)
            self.same_ids = True

    def new(self, name: str) -> bool:
        """Whether the container gets a new namespace of this kind."""
        return self.namespaces.get(name) == ""


def _namespaces(node: Node) -> dict[str, str]:
    result: dict[str, str] = {}
    for item in node.nodes("namespaces"):
        kind = item.choice("type", NAMESPACES)
        if kind in result:
            raise item.error("type", f"a second {kind!r} namespace")
        path = item.text("path")
        if path and not path.startswith("/"):
            raise item.error("path", f"{path!r} must be an absolute path")
        result[kind] = path
    if "mount" not in result:
        # pivot_root changes the root of every process in its mount namespace: without one, the host's.
        raise node.error("namespaces", "a mount namespace is needed")
    return result


def _absolute_list(node: Node, key: str) -> tuple[str, ...]:
    paths = node.texts(key)
    for index, path in enumerate(paths):
        if not path.startswith("/"):
            raise node.error(f"{key}[{index}]", f"{path!r} must be an absolute path")
    return paths


def _cgroups_path(node: Node) -> str:
    path = node.text("cgroupsPath")
    if any(part == ".." for part in path.split("/")) or any(ord(letter) < 32 for letter in path):
        raise node.error("cgroupsPath", f"{path!r} must hold neither '..' nor control characters")
    if path and path.count(":") == 2 and "/" not in path:
        raise node.error(
            "cgroupsPath", "a systemd slice is asked for; only the cgroupfs manager is supported"
        )
    return path


def _time_offsets(node: Node, namespaces: dict[str, str]) -> list[tuple[str, int, int]]:
    result: list[tuple[str, int, int]] = []
    for clock, item in node.entries("timeOffsets"):
        choice(item.path, clock, ("monotonic", "boottime"))
        result.append(
            (clock, item.number("secs", -I64, I64) or 0, item.number("nanosecs", 0, 999_999_999) or 0)
        )
    if result and namespaces.get("time") != "":
        raise node.error("timeOffsets", "needs a new time namespace")
    return result


def _personality(node: Node | None) -> int | None:
    if node is None:
        return None
    if node.texts("flags"):
        raise node.error("flags", "no flag is supported")
    return _PERSONALITIES[node.choice("domain", _PERSONALITIES)]


def _net_devices(node: Node, namespaces: dict[str, str]) -> dict[str, str]:
    result: dict[str, str] = {}
    for name, item in node.entries("netDevices"):
        result[name] = item.text("name") or name
        for each in (name, result[name]):
            if not each or len(each) > 15 or each in (".", "..") or set(each) & set("/: \t\n"):
                raise SpecError(item.path, f"{each!r} is not the name of an interface")
    if result and "network" not in namespaces:
        raise node.error("netDevices", "needs a network namespace of the container's own")
    return result
