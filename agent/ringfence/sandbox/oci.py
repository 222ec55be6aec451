# SPDX-License-Identifier: Apache-2.0
"""Makes the OCI configuration of a request and the facts found for it: a pure function."""

from __future__ import annotations

import os
import stat
from typing import Any, NamedTuple

from ringfence.sandbox import fences
from ringfence.sandbox.errors import UsageError
from ringfence.sandbox.request import Request, Resources
from ringfence.sandbox.values import Device, Volume
from ringfence_runtime.launch import wasm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.images import Rootfs, User
    from ringfence_runtime.images.process import ProcessDefaults

__all__ = ["Found", "arguments", "make_config"]

_LAST = 1 << 18  # cpu shares: the kernel's own largest


class Found(NamedTuple):
    """The facts that a start looked up for a request."""

    name: str
    rootfs: Rootfs
    defaults: ProcessDefaults | None
    """of the image; None for a directory and for the host"""
    image: str
    """the name by which the image was found"""
    user: User
    network: str
    """`new`, `host`, or the path of a namespace to join"""
    files: tuple[tuple[str, str], ...] = ()
    """(source file, path in the sandbox): hosts, resolv.conf, hostname, never through the image's symlinks"""
    output: str = ""
    """a file for standard output and standard error; empty: those of the caller"""
    is_module: bool = False
    """the program is a WebAssembly module"""
    map_volumes: bool = False
    """show the files of volumes as those of the sandbox's own ids"""

    @property
    def hostname(self) -> str:
        """The sandbox's host name without --hostname."""
        return self.name[:63]


OUTPUT = "/dev/ringfence-output"


def make_config(request: Request, found: Found) -> dict[str, Any]:
    """Returns the configuration. Raises UsageError for late errors (a path that is not a device)."""
    from ringfence_runtime.cli.describe import default_spec

    config = default_spec()
    config["process"] = _process(request, found)
    config["root"] = {"path": found.rootfs.merged, "readonly": request.read_only or found.rootfs.read_only}
    config["hostname"] = request.hostname or found.hostname
    config["mounts"] = _mounts(config["mounts"], request, found)
    config["annotations"] = _annotations(request, found)
    linux = config["linux"]
    linux["cgroupsPath"] = cgroup_path(request, found.name)
    linux["resources"] |= _resources(request.resources)
    _namespaces(linux, found)
    _devices(linux, [*request.devices])
    _fence(linux, request, found)
    if request.sysctls:
        linux["sysctl"] = dict(request.sysctls)
    return config


def cgroup_path(request: Request, name: str) -> str:
    """Returns `/ringfence-NAME`, which the agent recognizes by its prefix; or NAME below --cgroup-parent."""
    if not request.cgroup_parent:
        return f"/ringfence-{name}"
    if ".." in request.cgroup_parent.split("/"):
        raise UsageError("--cgroup-parent: `..` is not allowed")
    return f"/{request.cgroup_parent.strip('/')}/{name}".replace("//", "/")


def _process(request: Request, found: Found) -> dict[str, Any]:
    names = fences.capabilities(request.fences)
    groups = sorted({*found.user.groups, *request.groups})
    process: dict[str, Any] = {
        "terminal": request.tty,
        "user": {"uid": found.user.uid, "gid": found.user.gid, "additionalGids": groups},
        "args": arguments(request, found.defaults),
        "env": _environment(request, found),
        "cwd": _directory(request, found),
        "noNewPrivileges": request.fences.no_new_privileges,
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names),
    }
    if request.limits:
        process["rlimits"] = [
            {"type": each.name, "soft": each.soft % (1 << 64), "hard": each.hard % (1 << 64)}
            for each in request.limits
        ]
    if request.tty and os.isatty(0):
        columns, lines = os.get_terminal_size(0)  # the initial size; later changes are forwarded
        process["consoleSize"] = {"height": lines, "width": columns}
    if request.oom_score is not None:
        process["oomScoreAdj"] = request.oom_score
    if request.fences.apparmor:
        process["apparmorProfile"] = request.fences.apparmor
    if request.fences.selinux:
        process["selinuxLabel"] = request.fences.selinux
    return process


def arguments(request: Request, defaults: ProcessDefaults | None) -> list[str]:
    """Returns the program and its arguments, with the image's default for what the request leaves out."""
    entrypoint = None if request.entrypoint is None else [request.entrypoint] if request.entrypoint else []
    if defaults is not None:
        return defaults.args(request.command, entrypoint=entrypoint)
    words = [*(entrypoint or ()), *request.command]
    if not words:
        raise UsageError(
            "no command is given", hint="a directory has no default one: ringfence run DIR /bin/sh"
        )
    return words


def _environment(request: Request, found: Found) -> list[str]:
    from ringfence_runtime.images.process import DEFAULT_PATH

    ours = [f"HOSTNAME={request.hostname or found.hostname}"]
    if request.tty:
        ours.append(f"TERM={os.environ.get('TERM') or 'xterm'}")
    if found.defaults is not None:
        return found.defaults.environment([*ours, *request.environment], home=found.user.home)
    merged = {item.partition("=")[0]: item for item in (f"PATH={DEFAULT_PATH}", *ours, *request.environment)}
    merged.setdefault("HOME", f"HOME={found.user.home}")
    return list(merged.values())


def _directory(request: Request, found: Found) -> str:
    cwd = request.workdir or (found.defaults.cwd if found.defaults is not None else "/")
    if not cwd.startswith("/"):
        raise UsageError(f"--workdir: {cwd!a} must be an absolute path")
    return cwd


def _mounts(standard: list[dict[str, Any]], request: Request, found: Found) -> list[dict[str, Any]]:
    mounts = [each for each in standard if each["destination"] != "/dev/shm"]
    size = str(request.shm_size)
    mounts.append(_tmpfs("/dev/shm", "nosuid", "noexec", "nodev", "mode=1777", f"size={size}"))
    mounts += [_bind(path, path, "rbind", "ro", "nosuid", "nodev", "rprivate") for path in found.rootfs.binds]
    mounts += [_tmpfs(path, "nosuid", "nodev", "mode=1777") for path in found.rootfs.scratch]
    given = {each.target for each in request.volumes}
    # A volume below a hidden path of the host's root needs an empty directory there first, as mount point.
    above = [path for path in found.rootfs.masked if any(target.startswith(f"{path}/") for target in given)]
    mounts += [_tmpfs(path, "nosuid", "nodev", "noexec", "mode=755") for path in above]
    if request.read_only and found.defaults is not None:
        # A volume that an image declares must be writable, with the image's content.
        own = [path for path in found.defaults.volumes if path not in given]
        mounts += [_tmpfs(path, "nosuid", "nodev", "tmpcopyup") for path in own]
    files = [(source, target) for source, target in found.files if target not in given]
    mounts += [
        _bind(source, target, "bind", "nosuid", "nodev", "rprivate", "dest-nofollow")
        for source, target in files
    ]
    more = ("idmap",) if found.map_volumes else ()
    mounts += [_volume(each, more) for each in request.volumes]
    if found.output:
        mounts.append(_bind(found.output, OUTPUT, "bind", "nosuid", "nodev", "noexec", "rprivate"))
    return mounts


def _bind(source: str, target: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": source, "options": list(options)}


def _tmpfs(target: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def _volume(volume: Volume, more: tuple[str, ...] = ()) -> dict[str, Any]:
    if not volume.source:
        return _tmpfs(volume.target, *volume.options)
    return _bind(volume.source, volume.target, *volume.options, *more)


def _annotations(request: Request, found: Found) -> dict[str, str]:
    """Returns the command line's labels and the sandbox's identity, without the image's untrusted labels."""
    ours = {"org.ringfence.name": found.name}
    if found.image:
        ours["org.opencontainers.image.ref.name"] = found.image
    if found.is_module:
        ours[wasm.OWN] = "true"
    return dict(request.labels) | ours


def _resources(asked: Resources) -> dict[str, Any]:
    memory = {"limit": asked.memory, "swap": asked.memory_swap, "reservation": asked.memory_reservation}
    cpu: dict[str, Any] = {}
    if asked.cpus:
        cpu |= {"period": 100_000, "quota": max(1000, round(asked.cpus * 100_000))}
    if asked.cpu_shares:
        cpu["shares"] = min(asked.cpu_shares, _LAST)
    if asked.cpuset:
        cpu["cpus"] = asked.cpuset
    parts = {
        "memory": {key: value for key, value in memory.items() if value},
        "cpu": cpu,
        "pids": {"limit": asked.pids} if asked.pids else {},
    }
    return {key: value for key, value in parts.items() if value}


def _namespaces(linux: dict[str, Any], found: Found) -> None:
    spaces = [each for each in linux["namespaces"] if each["type"] != "network"]
    if found.network == "new":
        spaces.append({"type": "network"})
    elif found.network != "host":
        spaces.append({"type": "network", "path": found.network})
    linux["namespaces"] = spaces


def _devices(linux: dict[str, Any], devices: list[Device]) -> None:
    for each in devices:
        try:
            status = os.stat(each.source)
        except OSError as error:
            raise UsageError(f"--device: {each.source}: {error.strerror}") from None
        kind = "b" if stat.S_ISBLK(status.st_mode) else "c" if stat.S_ISCHR(status.st_mode) else ""
        if not kind:
            raise UsageError(f"--device: {each.source} is not a device")
        number = {"type": kind, "major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
        node = {
            "path": each.target,
            "fileMode": status.st_mode & 0o777,
            "uid": status.st_uid,
            "gid": status.st_gid,
        }
        linux.setdefault("devices", []).append(node | number)
        linux["resources"]["devices"].append({"allow": True, "access": each.access} | number)


def _fence(linux: dict[str, Any], request: Request, found: Found) -> None:
    if not request.fences.masks:
        linux["maskedPaths"], linux["readonlyPaths"] = [], []
    shown = [each.target for each in request.volumes]
    hidden = [
        path
        for path in found.rootfs.masked
        if path not in shown and not any(target.startswith(f"{path}/") for target in shown)
    ]
    linux["maskedPaths"] = [*linux["maskedPaths"], *hidden]
    read_only = request.read_only or found.rootfs.read_only
    if (profile := fences.seccomp(request.fences)) is not None:
        linux["seccomp"] = profile
    if (rules := fences.landlock(request.fences, read_only=read_only)) is not None:
        linux["landlock"] = rules
