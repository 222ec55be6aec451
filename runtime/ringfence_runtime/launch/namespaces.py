# SPDX-License-Identifier: Apache-2.0
"""Namespaces that a container joins: opened by the parent, once, and checked before they are trusted.

A path is text from the bundle's author, and may lead to the host's own namespace, whatever its name says. So
settings that need a namespace of the container's own (sysctls, host names, interfaces) are decided on the
namespace that was opened, not on the presence of a path.
"""

from __future__ import annotations

import fcntl
import os

from ringfence_runtime.errors import Error, SpecError
from ringfence_runtime.spec.linux import NAMESPACES, sysctl_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.spec import Config

__all__ = ["FILES", "open_namespaces"]

#: the names below /proc/PID/ns that are not those of the configuration
FILES = {"network": "net", "mount": "mnt"}
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2): gives the CLONE_NEW* flag
# User first gives rights in the others; but some can only be joined before rights on the host are gone.
_ORDER = ("user", "pid", "time", "network", "ipc", "uts", "cgroup", "mount")


def open_namespaces(config: Config, found: dict[str, int]) -> None:
    """Open those to join into `found`, in the order of joining. Error where one is not what it must be."""
    for name in _ORDER:
        path = config.linux.namespaces.get(name)
        if path:
            found[name] = _open(name, path)
    shared = {name for name, fd in found.items() if _is_hosts(name, fd)}
    if "mount" in shared:
        raise Error(
            "config: linux.namespaces: the mount namespace to join is the host's own",
            hint="without a path the container gets a new one",
        )
    _check_owned(config, shared)


def _open(name: str, path: str) -> int:
    where = f"config: linux.namespaces: the {name} namespace {path}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise Error(f"{where}: cannot be opened: {error.strerror}") from None
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != NAMESPACES[name]:
        os.close(fd)
        raise Error(f"{where}: is not a {name} namespace")
    return fd


def _is_hosts(name: str, fd: int) -> bool:
    """Whether it is the runtime's own, or that of the machine's first process."""
    status = os.fstat(fd)
    for pid in ("self", "1"):
        try:
            other = os.stat(f"/proc/{pid}/ns/{FILES.get(name, name)}")
        except OSError:
            continue  # a runtime in a container of its own may not see it
        if (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino):
            return True
    return False


def _check_owned(config: Config, shared: set[str]) -> None:
    """Nothing may be set in a namespace that is the host's: CVE-2022-0811 with a path instead of a name."""
    linux = config.linux
    for name in linux.sysctls:
        space = sysctl_namespace(name.replace("/", "."))
        if space in shared:
            raise SpecError(
                f"linux.sysctl.{name.replace('/', '.')}", f"the {space} namespace to join is the host's own"
            )
    if "uts" in shared:
        for key in ("hostname", "domainname"):
            if getattr(config, key):
                raise SpecError(key, "the uts namespace to join is the host's own")
    if "network" in shared and linux.net_devices:
        raise SpecError("linux.netDevices", "the network namespace to join is the host's own")
