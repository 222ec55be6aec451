# SPDX-License-Identifier: Apache-2.0
"""The runtime's own program, out of the container's reach (CVE-2019-5736).

A workload called `#!/proc/self/exe` executes the runtime's interpreter inside the container and could then
write to it. So what may run as a container's first process runs from a private, read-only mount of the
interpreter: through it the file cannot be opened for writing, whatever capabilities the opener has. It
costs one more execve.
"""

from __future__ import annotations

import os
import sys

from ringfence_runtime import _sys

__all__ = ["ensure_sealed", "is_sealed"]

_ST_RDONLY = 1


def is_sealed() -> bool:
    """Whether /proc/self/exe lies on a read-only mount."""
    fd = os.open("/proc/self/exe", os.O_PATH | os.O_CLOEXEC)
    try:
        return bool(os.fstatvfs(fd).f_flag & _ST_RDONLY)
    finally:
        os.close(fd)


def ensure_sealed() -> None:
    """Execute ourselves again from a read-only mount, unless that is where we are already."""
    if os.geteuid() != 0 or is_sealed():
        return
    tree = _sys.open_tree(_sys.AT_FDCWD, os.readlink("/proc/self/exe"), _sys.OPEN_TREE_CLONE)
    _sys.mount_setattr(tree, attr_set=_sys.MOUNT_ATTR_RDONLY, propagation=_sys.MS_PRIVATE)
    # The interpreter finds its library by its name, so that stays what it was.
    _sys.execveat(tree, [sys.executable, *sys.orig_argv[1:]], [f"{k}={v}" for k, v in os.environ.items()])
