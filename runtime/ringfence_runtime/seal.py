# SPDX-License-Identifier: Apache-2.0
"""Protects the runtime's own program from the container (CVE-2019-5736).

A workload named `#!/proc/self/exe` executes the runtime's interpreter inside the container, and could
then write to it. So a container's first process runs from a private, read-only mount of the
interpreter, through which the file cannot be opened for writing, with any capabilities. It costs one
more execve. Without root such a mount is not possible: if the interpreter belongs to the user, a sealed
copy in memory is used.
"""

from __future__ import annotations

import fcntl
import os
import sys

from ringfence_linux import syscalls

__all__ = ["ensure_sealed", "is_sealed"]

_ST_RDONLY = 1
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_EXEC = 0x10  # Linux 6.3: without it, vm.memfd_noexec decides
_ME = "/proc/self/exe"


def is_sealed() -> bool:
    """Returns True if /proc/self/exe is on a read-only mount, or in sealed memory."""
    fd = os.open(_ME, os.O_PATH | os.O_CLOEXEC)
    try:
        if os.fstatvfs(fd).f_flag & _ST_RDONLY:
            return True
    finally:
        os.close(fd)
    return os.readlink(_ME).startswith("/memfd:ringfence") and _is_sealed_memory()


def _is_sealed_memory() -> bool:
    fd = os.open(_ME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:
        return False
    finally:
        os.close(fd)


def ensure_sealed() -> None:
    """Executes this program again from a read-only mount, unless it already runs from one."""
    if is_sealed():
        return
    if os.geteuid() == 0:
        program = syscalls.open_tree(syscalls.AT_FDCWD, os.readlink(_ME), syscalls.OPEN_TREE_CLONE)
        syscalls.mount_setattr(program, attr_set=syscalls.MOUNT_ATTR_RDONLY, propagation=syscalls.MS_PRIVATE)
    elif _is_ours():
        program = _copy()
    else:
        return
    # The interpreter finds its library by its name, so the name stays the same.
    syscalls.execveat(
        program, [sys.executable, *sys.orig_argv[1:]], [f"{k}={v}" for k, v in os.environ.items()]
    )


def _is_ours() -> bool:
    """Returns True if this user can write to the interpreter, or can make it writable."""
    return os.stat(_ME).st_uid == os.geteuid() or os.access(_ME, os.W_OK)


def _copy() -> int:
    try:
        copy = os.memfd_create("ringfence", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError:
        copy = os.memfd_create("ringfence", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    source = os.open(_ME, os.O_RDONLY | os.O_CLOEXEC)
    while os.sendfile(copy, source, None, 1 << 24):
        pass
    os.close(source)
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    return copy
