# SPDX-License-Identifier: Apache-2.0
"""`process` of the configuration: who the workload is and what it may do."""

from __future__ import annotations

from ringfence_linux.capabilities import CAPABILITIES, names
from ringfence_runtime import log
from ringfence_runtime.errors import SpecError
from ringfence_runtime.spec.node import U32, U64, Node, choice

__all__ = ["IoPriority", "Process", "Rlimit", "Scheduler", "User", "cpu_list"]

RLIMITS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}
SCHED_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1,
    "SCHED_FLAG_RECLAIM": 2,
    "SCHED_FLAG_DL_OVERRUN": 4,
    "SCHED_FLAG_KEEP_POLICY": 8,
    "SCHED_FLAG_KEEP_PARAMS": 16,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 32,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


class Rlimit:
    """One limit."""

    __slots__ = ("hard", "name", "path", "resource", "soft")

    def __init__(self, node: Node) -> None:
        self.name = node.choice("type", RLIMITS)
        self.resource = RLIMITS[self.name]
        self.hard = node.need_number("hard", 0, U64)
        self.soft = node.need_number("soft", 0, U64)
        self.path = node.path
        if self.soft > self.hard:
            raise node.error("soft", f"{self.soft} is above hard, {self.hard}")


class User:
    """Ids, groups and umask."""

    __slots__ = ("gid", "groups", "uid", "umask")

    def __init__(self, node: Node) -> None:
        self.uid = node.number("uid", 0, U32 - 1) or 0
        self.gid = node.number("gid", 0, U32 - 1) or 0
        self.umask = node.number("umask", 0, 0o7777)
        self.groups = node.numbers("additionalGids", 0, U32 - 1)


class Scheduler:
    """sched_setattr(2)."""

    __slots__ = ("deadline", "flags", "nice", "period", "policy", "priority", "runtime")

    def __init__(self, node: Node) -> None:
        self.policy = SCHED_POLICIES[node.choice("policy", SCHED_POLICIES)]
        self.nice = node.number("nice", -20, 19) or 0
        self.priority = node.number("priority", 0, 99) or 0
        self.flags = 0
        for index, name in enumerate(node.texts("flags")):
            self.flags |= SCHED_FLAGS[choice(f"{node.at('flags')}[{index}]", name, SCHED_FLAGS)]
        self.runtime = node.number("runtime", 0, U64) or 0
        self.deadline = node.number("deadline", 0, U64) or 0
        self.period = node.number("period", 0, U64) or 0
        if self.policy not in (1, 2) and self.priority:
            raise node.error("priority", "is only for SCHED_FIFO and SCHED_RR")
        if self.policy == 6:
            self._check_deadline(node)
        elif self.runtime or self.deadline or self.period:
            raise node.error("runtime", "runtime, deadline and period are only for SCHED_DEADLINE")

    def _check_deadline(self, node: Node) -> None:
        """What the kernel answers with a bare EINVAL (sched(7)): 1024 ns <= runtime <= deadline <= period <
        2^63.
        """
        for key in ("runtime", "deadline"):
            if not node.has(key):
                raise node.error(key, "SCHED_DEADLINE needs it")
        if not 1024 <= self.runtime < 1 << 63:
            raise node.error("runtime", f"{self.runtime} ns is not between 1024 and 2^63")
        if self.runtime > self.deadline:
            raise node.error("runtime", f"{self.runtime} is above deadline, {self.deadline}")
        if self.period and self.deadline > self.period:
            raise node.error("deadline", f"{self.deadline} is above period, {self.period}")


class IoPriority:
    """ioprio_set(2)."""

    __slots__ = ("klass", "level")

    def __init__(self, node: Node) -> None:
        self.klass = IO_CLASSES[node.choice("class", IO_CLASSES)]
        self.level = node.number("priority", 0, 7) or 0


class Process:
    """The workload's identity, environment and limits, checked but not yet looked up on any filesystem."""

    __slots__ = (
        "affinity_final",
        "affinity_initial",
        "apparmor",
        "args",
        "capabilities",
        "console_size",
        "cwd",
        "env",
        "io_priority",
        "no_new_privs",
        "oom_score_adj",
        "rlimits",
        "scheduler",
        "selinux",
        "terminal",
        "user",
        "warnings",
    )

    def __init__(self, node: Node) -> None:
        self.terminal = node.flag("terminal")
        size = node.child("consoleSize")
        self.console_size = None
        if size is not None:
            self.console_size = (size.number("height", 0, 65535) or 0, size.number("width", 0, 65535) or 0)
        self.user = User(node.child("user") or Node({}, node.at("user")))
        self.args = node.texts("args")
        self.env = node.texts("env")
        for index, item in enumerate(self.env):
            if item.find("=") < 1:
                raise node.error(f"env[{index}]", f"{item!r} is not NAME=value")
        self.cwd = node.absolute("cwd")
        self.warnings: list[str] = []  # what the specification requires to be logged, and not to fail
        self.capabilities = _capabilities(node.child("capabilities"), self.warnings)
        self.rlimits = _rlimits(node)
        self.no_new_privs = node.flag("noNewPrivileges")
        self.apparmor = node.text("apparmorProfile")
        self.selinux = node.text("selinuxLabel")
        self.oom_score_adj = node.number("oomScoreAdj", -1000, 1000)
        scheduler = node.child("scheduler")
        self.scheduler = Scheduler(scheduler) if scheduler else None
        priority = node.child("ioPriority")
        self.io_priority = IoPriority(priority) if priority else None
        affinity = node.child("execCPUAffinity")
        self.affinity_initial = cpu_list(affinity, "initial") if affinity else None
        self.affinity_final = cpu_list(affinity, "final") if affinity else None

    def warn(self) -> None:
        """Logs what is left out."""
        for warning in self.warnings:
            log.warn(f"config: {warning}: left out")


def cpu_list(node: Node, key: str) -> frozenset[int] | None:
    """A list of CPUs in the kernel's own form, `0-3,7`."""
    text = node.text(key)
    if not text:
        return None
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first) > 5 or len(last) > 5:
            raise node.error(key, f"{text!r} is not a list of CPUs such as '0-3,7'")
        if int(last or first) < int(first):
            raise node.error(key, f"{part!r} runs backwards")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def _rlimits(node: Node) -> tuple[Rlimit, ...]:
    limits = tuple(Rlimit(item) for item in node.nodes("rlimits"))
    seen: set[str] = set()
    for limit in limits:
        if limit.name in seen:
            raise SpecError(f"{limit.path}.type", f"{limit.name} is given twice")
        seen.add(limit.name)
    return limits


def _capabilities(node: Node | None, warnings: list[str]) -> dict[str, int] | None:
    """The five sets as bit masks, or None where the configuration says nothing.

    What cannot be granted is left out, with a warning (config.md, capabilities).
    """
    if node is None:
        return None
    masks: dict[str, int] = {}
    for name in CAPABILITY_SETS:
        mask = 0
        for index, capability in enumerate(node.texts(name)):
            number = CAPABILITIES.get(capability)
            if number is None:
                warnings.append(f"{node.at(name)}[{index}]: {capability!a} is not known{_meant(capability)}")
            else:
                mask |= 1 << number
        masks[name] = mask
    for missing in ("permitted", "inheritable"):
        if lost := names(masks["ambient"] & ~masks[missing]):
            warnings.append(f"{node.at('ambient')}: {', '.join(lost)} must be {missing}, too")
    return masks


def _meant(capability: str) -> str:
    """A suggestion in place of an unknown name, if there is a similar one."""
    full = f"CAP_{capability.upper().removeprefix('CAP_')}"
    return f" (did you mean {full!r}?)" if full in CAPABILITIES else ""
