# SPDX-License-Identifier: Apache-2.0
"""AppArmor profiles and SELinux labels, where the host has them: written through a procfs of our own.

CVE-2019-19921 and CVE-2025-52881 redirected these writes to another file of another procfs. So the file is
opened below a descriptor whose filesystem is known to be procfs, without symlinks and without crossing a
mount.
"""

from __future__ import annotations

import os

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.paths import check_magic

__all__ = ["apparmor_enabled", "apply_labels", "selinux_enabled"]


def apparmor_enabled() -> bool:
    """Whether AppArmor is in force."""
    try:
        with open("/sys/module/apparmor/parameters/enabled", "rb") as file:
            return file.read(1) == b"Y"
    except OSError:
        return False


def selinux_enabled() -> bool:
    """Whether SELinux is in force."""
    return os.path.exists("/sys/fs/selinux/enforce")


def _write(procfs: int, names: tuple[str, ...], value: str, what: str) -> None:
    resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_MAGICLINKS
    failure: OSError | None = None
    for name in names:
        try:
            fd = syscalls.openat2(procfs, f"thread-self/attr/{name}", os.O_WRONLY, resolve=resolve)
        except OSError as error:
            failure = error
            continue
        try:
            check_magic(fd, syscalls.PROC_SUPER_MAGIC, f"attr/{name}")
            os.write(fd, value.encode())
            return
        except OSError as error:
            raise Error(f"config: {what}: {error.strerror}") from None
        finally:
            os.close(fd)
    raise Error(f"config: {what}: {failure.strerror if failure else 'no such attribute'}")


def apply_labels(procfs: int, *, apparmor: str, selinux: str, hosts: tuple[bool, bool]) -> None:
    """Ask for the labels at the next execve. `hosts` is (AppArmor, SELinux) as found before the root was
    changed.
    """
    if apparmor and apparmor != "unconfined":
        if not hosts[0]:
            raise Error(
                f"config: process.apparmorProfile: {apparmor!r} is asked for, but this host has no AppArmor"
            )
        _write(procfs, ("apparmor/exec", "exec"), f"exec {apparmor}", "process.apparmorProfile")
    if selinux:
        if not hosts[1]:
            raise Error(
                f"config: process.selinuxLabel: {selinux!r} is asked for, but this host has no SELinux"
            )
        _write(procfs, ("exec",), selinux, "process.selinuxLabel")
