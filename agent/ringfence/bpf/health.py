# SPDX-License-Identifier: Apache-2.0
"""Checks with the kernel that links are still attached and pins still exist."""

from __future__ import annotations

import struct

from ringfence.bpf import _libbpf
from ringfence.bpf.attach import Attached
from ringfence.bpf.kernel import Kernel

__all__ = ["dead_links", "lost_pins"]

#: struct bpf_link_info: type, id, prog_id; then for a cgroup link the cgroup's id, 0 if detached
_INFO = struct.Struct("=3I4xQ")
_CGROUP = 3  # BPF_LINK_TYPE_CGROUP


def dead_links(kernel: Kernel) -> list[Attached]:
    """Returns links that were detached or whose program was replaced."""
    programs = {program.name: _program_id(program.fd) for program in kernel.programs}
    return [link for link in kernel.attached if not _alive(link, programs.get(link.program, 0))]


def lost_pins(kernel: Kernel) -> list[str]:
    """Returns names of missing pins; all of them if their directory is missing."""
    return kernel.pins.missing(kernel.attached, kernel.maps) if kernel.pins else []


def _alive(link: Attached, program: int) -> bool:
    try:
        kind, _, now, cgroup = _INFO.unpack(_libbpf.info(link.fd, _INFO.size))
    except OSError:
        return False
    return bool(now == program and (kind != _CGROUP or cgroup != 0))


def _program_id(fd: int) -> int:
    return int(struct.unpack("=2I", _libbpf.info(fd, 8))[1])
