# SPDX-License-Identifier: Apache-2.0
"""Writes the probes' maps, which are frozen for bpf(2), by running a program (probes/write.bpf.c).

The program writes for the agent that loaded it, and refuses every other process.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from struct import Struct

from ringfence.abi import (
    WRITE_BATCH,
    WRITE_CONTAINERS,
    WRITE_DELETE,
    WRITE_FREE_SLOTS,
    WRITE_GENERATION,
    WRITE_GUARD_WANTED,
    WRITE_GUARDED_CALLS,
    WRITE_GUARDS,
    WRITE_HALVINGS,
    WRITE_HEARTBEAT,
    WRITE_HELPERS,
    WRITE_HOST_TREES,
    WRITE_OBSERVE,
    WRITE_PATTERNS,
    WRITE_POP,
    WRITE_RULE_ACTIONS,
    WRITE_RULE_ADDRESSES,
    WRITE_RULE_EVENTS,
    WRITE_RULE_OPERANDS,
    WRITE_RULE_SETS,
    WRITE_RULE_TEXTS,
    WRITE_SET,
    WRITE_SLOTS,
    WRITE_SYSCALLS,
    WRITE_TICKETS,
)
from ringfence.bpf import _syscalls

__all__ = ["LENT", "OPEN", "PROGRAM", "UNSEALED", "WRITTEN", "Writer"]

PROGRAM = "agent_write"
#: map -> enum rf_write_map; all other maps are written by probes alone
WRITTEN = {
    "generation": WRITE_GENERATION,
    "rule_sets": WRITE_RULE_SETS,
    "rule_events": WRITE_RULE_EVENTS,
    "rule_operands": WRITE_RULE_OPERANDS,
    "rule_texts": WRITE_RULE_TEXTS,
    "rule_addresses": WRITE_RULE_ADDRESSES,
    "rule_actions": WRITE_RULE_ACTIONS,
    "slots": WRITE_SLOTS,
    "free_slots": WRITE_FREE_SLOTS,
    "heartbeat": WRITE_HEARTBEAT,
    "containers": WRITE_CONTAINERS,
    "patterns": WRITE_PATTERNS,
    "tickets": WRITE_TICKETS,
    "syscalls": WRITE_SYSCALLS,
    "observe": WRITE_OBSERVE,
    "halvings": WRITE_HALVINGS,
    "helpers": WRITE_HELPERS,
    "guards": WRITE_GUARDS,
    "guard_wanted": WRITE_GUARD_WANTED,
    "guarded_calls": WRITE_GUARDED_CALLS,
    "host_trees": WRITE_HOST_TREES,
}
#: maps that are not frozen: rings are mapped for writing, counters of freed slots are cleared on all
#: CPUs, which no program of 5.15 can do, and the losses of a freed slot are taken with their values.
#: None of them decides anything.
OPEN = frozenset(("alerts", "activity", "counters", "drops"))
#: outer map -> the table of earlier agents that it gets. No program can write it: it is frozen when
#: running containers are adopted.
LENT = {"tasks_before": "tasks", "processes_before": "processes"}
UNSEALED = OPEN | frozenset(LENT)

_ARGUMENTS = Struct("=5Q")
_ATTEMPTS = 200
_PAUSE = 0.001  # seconds in which the kernel makes memory available


class Writer:
    """The program of one agent. It does not own the descriptor. Failures are OSError."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def set(self, number: int, keys: bytes, values: bytes, count: int, flags: int = 0) -> None:
        """Stores `count` entries. Not atomic: programs may see a part of them."""
        key_size, value_size = len(keys) // count, len(values) // count
        done = 0
        while done < count:
            end = done + WRITE_BATCH
            batch = keys[done * key_size : end * key_size], values[done * value_size : end * value_size]
            done += self._some(number, WRITE_SET, batch, (key_size, value_size), count - done, flags)

    def delete(self, number: int, keys: bytes, count: int) -> int:
        """Deletes entries. Returns how many of them were there."""
        size = len(keys) // count
        done = found = 0
        while done < count:
            batch = keys[done * size : (done + WRITE_BATCH) * size]
            try:
                deleted = self._some(number, WRITE_DELETE, (batch, b""), (size, 0), count - done)
            except FileNotFoundError:
                done += 1
            else:
                done, found = done + deleted, found + deleted
        return found

    def pop(self, number: int) -> int | None:
        """Takes the top of a stack; None if it is empty."""
        try:
            return self._some(number, WRITE_POP, (b"", b""), (0, 0), 1)
        except FileNotFoundError:
            return None

    def _some(
        self,
        number: int,
        op: int,
        data: tuple[bytes, bytes],
        sizes: tuple[int, int],
        count: int,
        flags: int = 0,
    ) -> int:
        what = number | op << 8 | sizes[0] << 16 | sizes[1] << 32

        def run() -> int:
            # The program reads this memory without faults: it was written a moment ago.
            addresses = map(_syscalls.address_of, data)
            arguments = _ARGUMENTS.pack(what, *addresses, min(count, WRITE_BATCH), flags)
            return _syscalls.run_program(self._fd, arguments)

        result = _patiently(run)
        if result < 0:
            raise OSError(-result, os.strerror(-result), "BPF_PROG_RUN")
        return result


def _patiently(run: Callable[[], int]) -> int:
    """Tries again while the kernel has no memory at hand, or another program holds the map."""
    for _ in range(_ATTEMPTS):
        result = run()
        if result not in (-errno.ENOMEM, -errno.EBUSY, -errno.EFAULT):
            break
        time.sleep(_PAUSE)
    return result
