# SPDX-License-Identifier: Apache-2.0
"""A process that holds what has no mount, for tests of looks into processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ringfence.abi import Relation
from tests.kernel.lsm import TYPE
from tests.support.cgroups import Cgroup

__all__ = ["ACT_HELD", "MOUNT_OF", "PROCESS", "THROUGH", "Holder", "held", "holding"]

#: file.open reached through a foreign process: operand and mask of a rule
THROUGH, MOUNT_OF = {TYPE: {5 << 16}}, {TYPE: 7 << 16}
#: file.open of a file of /proc/PID of a host process
PROCESS = ({TYPE: {(8 | Relation.HOST) << 20}}, {TYPE: 15 << 20})
ACT_HELD = "open:/proc/self/fd/1:0"  # its standard output, a pipe of the test


class Holder(NamedTuple):
    """A process, with the numbers of its descriptors of a memfd and of a pipe."""

    pid: int
    memfd: int
    pipe: int

    def path(self, what: str) -> str:
        """The name of one of these in /proc."""
        return f"/proc/{self.pid}/fd/{getattr(self, what)}"


@contextmanager
def holding(cgroup: Cgroup | None = None) -> Iterator[Holder]:
    """Runs it on the host, or in that container; it ignores SIGUSR1."""
    memfd, (reader, writer) = os.memfd_create("held", 0), os.pipe()
    argv = ["sh", "-c", "trap '' USR1; echo; exec sleep 600"]
    start: Callable[..., subprocess.Popen[bytes]] = cgroup.popen if cgroup else subprocess.Popen
    process = start(argv, stdout=subprocess.PIPE, pass_fds=(memfd, reader))
    for fd in (memfd, reader, writer):
        os.close(fd)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield Holder(process.pid, memfd, reader)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def held(holder: Holder, what: str) -> str:
    """The command of act.c that opens it."""
    return f"open:{holder.path(what)}:{os.O_RDONLY | os.O_NONBLOCK}"


#: (number of the call on x86-64, the place of the signal): how a process is signalled by number
SIGNALS = {
    "kill": "sys:62:{pid}:{sig}",
    "tkill": "sys:200:{pid}:{sig}",
    "tgkill": "sys:234:{pid}:{pid}:{sig}",
}
USR1 = int(signal.SIGUSR1)
