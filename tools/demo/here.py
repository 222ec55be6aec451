# SPDX-License-Identifier: Apache-2.0
"""Finds out whether the demonstration can run on this machine, before anything is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.containers.hierarchy import detect
from ringfence.errors import KernelError
from ringfence.proof.fixtures import new_disk

__all__ = ["absent_programs", "why_not_here"]

_NEEDED = ("runc", "busybox", "gcc", "unshare", "mkfs.ext4")
_SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def absent_programs() -> list[str]:
    """Returns programs that are not installed. A virtual machine has the same files."""
    return [name for name in _NEEDED if shutil.which(name, path=_SEARCH) is None]


def why_not_here() -> str:
    """Returns the first reason why it cannot run here, in a few words; empty: it can."""
    if os.geteuid() != 0:
        return "not root"
    try:
        NodeCapabilities.detect().require()
        root = detect().mount
    except KernelError as error:  # a container, a chroot, an old kernel
        return error.message.removeprefix("the agent cannot run here: ")
    if not os.access(root, os.W_OK):
        return f"{root} is read-only"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "not permitted to make namespaces"
    return _no_disk()


def _no_disk() -> str:
    try:
        with tempfile.TemporaryDirectory(prefix="rfdemo-") as directory, new_disk(Path(directory)):
            return ""
    except (RuntimeError, OSError) as error:
        return f"no disk of a loop device ({error})"
