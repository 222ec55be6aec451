# SPDX-License-Identifier: Apache-2.0
"""The numbers and shapes of the self-defence: probes/include/guard.h, and enum rf_tamper of events.h."""

from __future__ import annotations

from enum import IntEnum

from ringfence.abi.layout import Field, Layout

# rf_config.guard
GUARD_OFF = 0
GUARD_ALERT = 1
GUARD_DENY = 2

# rf_guard_key.device of what is no file
GUARD_MAP = 0xFFFFFFFF00000001
GUARD_PROGRAM = 0xFFFFFFFF00000002
GUARD_LINK = 0xFFFFFFFF00000003
GUARD_NAME = 0xFFFFFFFF00000004
GUARD_LOOK = 0xFFFFFFFF00000005
GUARD_GROUP = 0xFFFFFFFF00000006

# values of `guards`: the rest is the agent's
GUARD_TREE = 3
GUARD_FILE = 4
GUARD_ABOVE = 5
GUARD_CGROUP = 6
GUARD_OBJECT = 7
GUARD_PART = 8
GUARD_WHOLE = 9
GUARD_TICKET = 10
GUARD_CGROUP_ABOVE = 12
GUARD_WANTED = 64

# rf_guarded_call.how
GUARDED_PROCESS = 1
GUARDED_PIDFD = 2
GUARDED_PRIORITY = 3
GUARDED_IO_PRIORITY = 4
GUARDED_PATHS = 5
GUARDED_FILE = 6
GUARDED_NONE = 0xFF


class Tamper(IntEnum):
    """enum rf_tamper: what of the agent's is reached for, and how. MAYBE is or'ed to another one."""

    SIGNAL = 1
    TRACE = 2
    LIMIT = 3
    PRIORITY = 4
    PROC = 5
    MAP = 6
    PROGRAM = 7
    LINK = 8
    FILE = 9
    TICKET = 10
    CGROUP = 11
    MOUNT = 12
    SOCKET = 13
    TASKS = 14
    LOOK = 32
    MAYBE = 0x100

    @property
    def label(self) -> str:
        """The name in JSON."""
        return self.name.lower()


GUARD_KEY = Layout(
    "rf_guard_key",
    Field("device", "u64"),
    Field("id", "u64"),
)

GUARD_STATE = Layout(
    "rf_guard_state",
    Field("ticket_magic", "u64"),
    Field("ticket_device", "u64"),
    Field("ticket_inode", "u64"),
    Field("gone", "u64"),
)

GUARD_WISH = Layout(
    "rf_guard_wanted",
    Field("fd", "s32"),
    Field("kind", "u32"),
)

GUARDED_CALL = Layout(
    "rf_guarded_call",
    Field("how", "u8"),
    Field("what", "u8"),
    Field("needs", "u8"),
    Field("pad", "u8"),
    Field("arg", "bytes", 4),
)

LAYOUTS = (GUARD_KEY, GUARD_STATE, GUARD_WISH, GUARDED_CALL)
