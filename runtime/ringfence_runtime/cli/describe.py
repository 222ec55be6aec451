# SPDX-License-Identifier: Apache-2.0
"""spec and features: a template configuration, and the features of this runtime and this kernel."""

from __future__ import annotations

import os

from ringfence_linux import strictjson
from ringfence_linux.capabilities import NAMES
from ringfence_runtime import OCI_VERSION, __version__
from ringfence_runtime.cgroup import detect
from ringfence_runtime.cli.options import Globals, expect, parse
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.agent import POLICY, REQUIRE
from ringfence_runtime.launch.mempolicy import FLAGS as MEMORY_FLAGS
from ringfence_runtime.launch.mempolicy import MODES as MEMORY_MODES
from ringfence_runtime.launch.plan import USERNS
from ringfence_runtime.security import caps, landlock, seccomp
from ringfence_runtime.security.labels import apparmor_enabled, selinux_enabled
from ringfence_runtime.spec.config import HOOK_KINDS
from ringfence_runtime.spec.linux import NAMESPACES
from ringfence_runtime.spec.mounts import OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["default_spec", "features", "spec"]

_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
_READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _default_mounts(*, rootless: bool) -> list[dict[str, Any]]:
    hard = ("nosuid", "noexec", "nodev")
    return [
        _mount("/proc", "proc", "proc"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            *(() if rootless else ("gid=5",)),
        ),
        _mount("/dev/shm", "tmpfs", "shm", *hard, "mode=1777", "size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", *hard),
        _mount("/sys", "sysfs", "sysfs", *hard, "ro"),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", *hard, "relatime", "ro"),
    ]


def default_spec(*, rootless: bool = False) -> dict[str, Any]:
    """Returns a template: a shell with Docker's fourteen capabilities, masked and read-only paths."""
    names = ["pid", "network", "ipc", "uts", "mount", "cgroup"] + (["user"] if rootless else [])
    granted = list(caps.DEFAULT)
    linux: dict[str, Any] = {
        "namespaces": [{"type": name} for name in names],
        "maskedPaths": _MASKED,
        "readonlyPaths": _READONLY,
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
    }
    if rootless:
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        del linux["resources"]
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), granted),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "ringfence",
        "mounts": _default_mounts(rootless=rootless),
        "linux": linux,
    }


def spec(settings: Globals, arguments: list[str]) -> int:
    """Writes config.json."""
    del settings
    parsed = parse(arguments, {"bundle": "s", "b": "=bundle", "rootless": "f"}, interleaved=True)
    expect(parsed, "spec", 0, 0)
    path = os.path.join(parsed.text("bundle") or ".", "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Error(f"{path} exists", hint="remove it first") from None
    with open(fd, "w", encoding="ascii") as file:
        file.write(strictjson.dumps(default_spec(rootless=parsed.flag("rootless")), indent="\t") + "\n")
    return 0


def features(settings: Globals, arguments: list[str]) -> int:
    """Prints the features."""
    del settings
    expect(parse(arguments, {}), "features", 0, 0)
    print(strictjson.dumps(describe(), indent="    "))
    return 0


def describe() -> dict[str, Any]:
    """Returns the features (features.md of the specification)."""
    hosts = detect()
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOK_KINDS),
        "mountOptions": list(OPTIONS),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(NAMES),
            "cgroup": {
                "v1": bool(hosts.v1),
                "v2": bool(hosts.unified),
                "systemd": False,
                "systemdUser": False,
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(seccomp.OPERATORS),
                "archs": sorted(seccomp.ARCHES),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": seccomp.supported_flags(),
            },
            "apparmor": {"enabled": apparmor_enabled()},
            "selinux": {"enabled": selinux_enabled()},
            "intelRdt": {"enabled": False, "schemata": False, "monitoring": False},
            "memoryPolicy": {"modes": sorted(MEMORY_MODES), "flags": sorted(MEMORY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {
            "org.ringfence.version": __version__,
            "org.ringfence.landlock": "derive",
            "org.ringfence.checkpoint": "false",
        },
        # Annotations that change the runtime's behaviour: none of them grants a container more.
        "potentiallyUnsafeConfigAnnotations": sorted((landlock.ANNOTATION, POLICY, REQUIRE, USERNS)),
    }
