# SPDX-License-Identifier: Apache-2.0
"""The numbers that probes and agent share: enums and #defines of the headers in probes/include."""

from __future__ import annotations

from enum import IntEnum, IntFlag

ABI_VERSION = 1
OPERANDS = 4
SYSCALL_ARGS = 6
COMM_LEN = 16
PATH_LEN = 256
ARGS_LEN = 256
SYSCTL_LEN = 128
UNIX_PATH_LEN = 112
EVENT_MAX = 96
NO_CALL = 0xFFFFFFFF

# header.flags
FLAG_COMPAT = 0x01
FLAG_TRUNCATED = 0x02
FLAG_UNREADABLE = 0x04
FLAG_ADOPTED = 0x08
FLAG_SIGNAL_FAILED = 0x10

RULE_WORDS = 64
MAX_RULES = RULE_WORDS * 64
REPORTED_WORDS = 8
LEVELS = 16  # below the root of the hierarchy, at most, of a container's own cgroup
NEVER_SLOT = 0xFFFFFFFE  # in `containers`: no container, whatever its name, nor what lies below
SKIP_SLOT = 0xFFFFFFFD  # no container itself
DROP_MAX = 8
NO_RULE = 0xFFFF
NO_SLOT = 0xFFFFFFFF
GENERATIONS = 2
SYSCALL_NRS = 1024
COMPAT_BASE = 512
SYSCALL_HOOKED = 0x8000
SYSCALL_GUARDED = 0x4000
PATTERNS = 32
PATTERN_LEN = 48
COUNTERS = 32
MATCH_TEXT = 128
DIM_FACTS = OPERANDS
DIM_EXE = OPERANDS + 1
DIM_OBJECT = OPERANDS + 2
DIMS = OPERANDS + 3

#: in the operand DIM_EXE: the program is not as the image has it
EXE_CHANGED = 1 << 63

# rf_container.state
STATE_USED = 1
STATE_STARTED = 2
STATE_REMOVED = 4
STATE_ADOPTED = 8

# rf_pattern.kind
PATTERN_HEX64 = 1
PATTERN_ANY = 2
PATTERN_BUILD = 3

# values of `observe`
OBSERVE_OFF = 0
OBSERVE_ACTIVITY = 1
OBSERVE_ALERTS = 2

# rf_event_rules.dim
DIM_USED = 1
DIM_TEXT = 2
DIM_ADDRESS = 3

# values of `helpers`: what the kernel may run a program for
HELPER_CORE = 1
HELPER_OTHER = 2

# rf_config.hierarchy
HIERARCHY_V2 = 0
HIERARCHY_DEVICES = 1
HIERARCHY_PIDS = 2
HIERARCHY_MEMORY = 3
HIERARCHY_CPU = 4
HIERARCHY_FREEZER = 5


class EventKind(IntEnum):
    """enum rf_event: what a record is about, and what a rule names as its event."""

    NONE = 0
    CONTAINER_CREATE = 1
    CONTAINER_START = 2
    CONTAINER_STOP = 3
    CONTAINER_REMOVE = 4
    PROCESS_FORK = 5
    PROCESS_EXEC = 6
    PROCESS_EXIT = 7
    CGROUP_MKDIR = 8
    CGROUP_RMDIR = 9
    CGROUP_ATTACH = 10
    CGROUP_RELEASE = 11
    FILE_OPEN = 16
    DEVICE_ACCESS = 17
    SYSCTL_ACCESS = 18
    NET_CONNECT = 19
    NET_BIND = 20
    NET_SENDMSG = 21
    UNIX_CONNECT = 22
    FILE_MAP = 23
    FILE_RECEIVE = 24
    MODULE_REQUEST = 25
    SETSOCKOPT = 26
    FILE_LINK = 27
    KERNEL_HELPER = 28
    TASK_DRIFT = 29
    HOST_MAP = 30
    AGENT_TAMPER = 31
    SYS_CLONE = 32
    SYS_UNSHARE = 33
    SYS_SETNS = 34
    SYS_MOUNT = 35
    SYS_UMOUNT = 36
    SYS_PIVOT_ROOT = 37
    SYS_CHROOT = 38
    SYS_FSOPEN = 39
    SYS_FSCONFIG = 40
    SYS_FSMOUNT = 41
    SYS_FSPICK = 42
    SYS_OPEN_TREE = 43
    SYS_MOVE_MOUNT = 44
    SYS_MOUNT_SETATTR = 45
    SYS_PTRACE = 46
    SYS_PROCESS_VM = 47
    SYS_PIDFD_GETFD = 48
    SYS_BPF = 49
    SYS_PERF_EVENT_OPEN = 50
    SYS_MODULE_LOAD = 51
    SYS_MODULE_UNLOAD = 52
    SYS_KEXEC = 53
    SYS_CAPSET = 54
    SYS_SETUID = 55
    SYS_SETGID = 56
    SYS_OPEN_BY_HANDLE_AT = 57
    SYS_MEMFD_CREATE = 58
    SYS_USERFAULTFD = 59
    SYS_IO_URING_SETUP = 60
    SYS_KEYCTL = 61
    SYS_MKNOD = 62
    SYS_SOCKET = 63
    SYS_IOPL = 64
    SYS_SYSLOG = 65
    SYS_REBOOT = 66
    SYS_SWAP = 67
    SYS_SETTIME = 68
    SYS_CHMOD = 69
    SYS_IOCTL = 70
    SYS_SPLICE = 71
    SYS_SYMLINK = 72
    SYS_PERSONALITY = 73
    SYS_SECCOMP = 74
    SYS_ACCT = 75
    SYS_QUOTACTL = 76
    SYS_SETDOMAIN = 77
    SYS_RENAME = 78
    SYS_SETXATTR = 79

    @property
    def label(self) -> str:
        """The name in policies, JSON and metrics: file.open, unshare."""
        return _EVENT_LABELS[self]

    @classmethod
    def from_label(cls, label: str) -> EventKind:
        """The kind of that name. KeyError when there is none."""
        return _EVENTS_BY_LABEL[label]

    @property
    def is_syscall(self) -> bool:
        return self.name.startswith("SYS_")


class Action(IntEnum):
    """enum rf_action, weakest first."""

    NONE = 0
    ALERT = 1
    KILL = 2
    DENY = 3

    @property
    def label(self) -> str:
        """The name in policies and JSON."""
        return self.name.lower()


class Mechanism(IntEnum):
    """enum rf_mechanism: what carried the action out."""

    OBSERVE = 0
    KILL = 1
    CGROUP = 2
    LSM = 3

    @property
    def label(self) -> str:
        """The name in policies and JSON."""
        return self.name.lower()


class Fact(IntFlag):
    """enum rf_fact: what rules call `task:`."""

    USER_NAMESPACE = 1 << 0
    CAP_SYS_ADMIN = 1 << 1
    ALL_CAPABILITIES = 1 << 2
    ROOT = 1 << 3
    NO_SECCOMP = 1 << 4
    NO_NEW_PRIVS = 1 << 5
    HOST_PID = 1 << 6
    HOST_NETWORK = 1 << 7
    HOST_IPC = 1 << 8
    HOST_UTS = 1 << 9
    HOST_CGROUP = 1 << 10
    MEMFD_EXE = 1 << 11
    UPPER_EXE = 1 << 12
    COMPAT = 1 << 13
    FOREIGN_ABI = 1 << 14

    @property
    def label(self) -> str:
        """The name in policies. Of a single fact only."""
        return str(self.name).lower()


# rf_drift_event.changed, beside CLONE_NEW* of namespaces
DRIFT_USER = 1
DRIFT_CAPABILITIES = 2
DRIFT_BORROWED = 4


class Drop(IntEnum):
    """enum rf_drop: why a record did not leave."""

    RING_FULL = 1
    RATE_LIMIT = 2
    TABLE_FULL = 3
    MATCH_BUDGET = 4
    PROCESS_TABLE = 5

    @property
    def label(self) -> str:
        """The label of the drop metric."""
        return self.name.lower()


class OperandSource(IntEnum):
    """enum rf_operand_source: where the probe takes an operand of a system call from."""

    NOTHING = 0
    ARG = 1
    ARG32 = 2
    USER_U64 = 3
    SETNS_TYPE = 4
    SETNS_TARGET = 5
    PID_TARGET = 6
    DEV_TYPE = 7
    CONST = 8
    PIDFD_TARGET = 9
    MOUNT_FLAGS = 10
    SOCKET_FAMILY = 11
    CHROOTED = 12
    FD_SETUID = 13
    PERF_TARGET = 14


class Relation(IntEnum):
    """enum rf_relation: whose the target of a call is."""

    UNKNOWN = 0
    SELF = 1
    CONTAINER = 2
    OTHER = 3
    HOST = 4

    @property
    def label(self) -> str:
        """The name in policies."""
        return self.name.lower()


class Counter(IntEnum):
    """enum rf_counter: the index of an activity counter of a container."""

    NONE = 0
    FORK = 1
    EXEC = 2
    EXIT = 3
    OPEN = 4
    CONNECT = 5
    BIND = 6
    SENDMSG = 7
    DEVICE = 8
    SYSCTL = 9
    SYS_NAMESPACE = 16
    SYS_MOUNT = 17
    SYS_TRACE = 18
    SYS_KERNEL = 19
    SYS_CREDENTIAL = 20
    SYS_FILE = 21
    SYS_MEMORY = 22
    SYS_SOCKET = 23
    SYS_KEYRING = 24
    SYS_PROCESS = 25
    ALERT = 28
    KILL = 29
    DENY = 30

    @property
    def label(self) -> str:
        """The label of the activity metric: open, namespace."""
        return self.name.removeprefix("SYS_").lower()


def _event_label(kind: EventKind) -> str:
    if kind.is_syscall:
        return kind.name.removeprefix("SYS_").lower()
    group, _, what = kind.name.partition("_")
    return f"{'network' if group == 'NET' else group.lower()}.{what.lower()}" if what else group.lower()


_EVENT_LABELS = {kind: _event_label(kind) for kind in EventKind}
_EVENTS_BY_LABEL = {label: kind for kind, label in _EVENT_LABELS.items() if kind is not EventKind.NONE}
