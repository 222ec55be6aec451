# SPDX-License-Identifier: Apache-2.0
"""What lies in the maps of probes/maps.bpf.c: one Layout a struct, and the sizes of every map."""

from __future__ import annotations

from typing import NamedTuple

from ringfence.abi import guard
from ringfence.abi.constants import (
    COUNTERS,
    DIMS,
    EVENT_MAX,
    GENERATIONS,
    MATCH_TEXT,
    MAX_RULES,
    OPERANDS,
    PATTERN_LEN,
    REPORTED_WORDS,
    RULE_WORDS,
)
from ringfence.abi.layout import Field, Layout

TASK = Layout(
    "rf_task",
    Field("container", "u64"),
    Field("slot", "u32"),
    Field("facts", "u32"),
    Field("exe_hash", "u64"),
    Field("start_ns", "u64"),
)

CONTAINER = Layout(
    "rf_container",
    Field("cgroup", "u64"),
    Field("created_ns", "u64"),
    Field("profile", "u32", GENERATIONS),
    Field("state", "u32"),
    Field("tasks", "s32"),
    Field("facts", "u32"),
    Field("processes", "s32"),
    Field("bucket", "u64"),
    Field("bucket_ns", "u64"),
    Field("alert_bucket", "u64"),
    Field("alert_bucket_ns", "u64"),
    Field("reported_second", "u64"),
    Field("reported", "u64", REPORTED_WORDS),
    Field("maker_mnt_ns", "u64"),
)

CARRIED = Layout("rf_carried", Field("container", "u64"), Field("start_ns", "u64"))

PATTERN = Layout(
    "rf_pattern",
    Field("kind", "u8"),
    Field("len", "u8"),
    Field("prefix", "char", PATTERN_LEN - 2),
)

SYSCALL = Layout(
    "rf_syscall",
    Field("event", "u16"),
    Field("counter", "u8"),
    Field("text_arg", "s8"),
    Field("source", "bytes", OPERANDS),
    Field("arg", "bytes", OPERANDS),
)

RULESET = Layout(
    "rf_ruleset",
    Field("summary", "u64"),
    Field("word", "u64", RULE_WORDS),
)

EVENT_RULES = Layout(
    "rf_event_rules",
    Field("rules", "u32"),
    Field("dim", "bytes", 8),
    Field("other", "u32", DIMS),
    Field("mask", "u64", DIMS),
)

OPERAND_KEY = Layout(
    "rf_operand_key",
    Field("event", "u16"),
    Field("dim", "u16"),
    Field("pad", "u32"),
    Field("value", "u64"),
)

TEXT_KEY = Layout(
    "rf_text_key",
    Field("prefixlen", "u32"),
    Field("event", "u16"),
    Field("dim", "u16"),
    Field("text", "char", MATCH_TEXT),
)

ADDRESS_KEY = Layout(
    "rf_address_key",
    Field("prefixlen", "u32"),
    Field("event", "u16"),
    Field("dim", "u8"),
    Field("family", "u8"),
    Field("address", "bytes", 16),
)

ACTIONS = Layout(
    "rf_actions",
    Field("deny", "u64", RULE_WORDS),
    Field("kill", "u64", RULE_WORDS),
    Field("except", "u64", RULE_WORDS),
    Field("clears", "bytes", MAX_RULES),
)

LEARNED_KEY = Layout(
    "rf_learned_key",
    Field("slot", "u32"),
    Field("number", "u16"),
    Field("kind", "u8"),
    Field("compat", "u8"),
    Field("comm", "char", 16),
)

DROP_KEY = Layout(
    "rf_drop_key",
    Field("event", "u16"),
    Field("reason", "u16"),
    Field("slot", "u32"),
)

HELPER_KEY = Layout(
    "rf_helper_key",
    Field("device", "u64"),
    Field("inode", "u64"),
    Field("changed", "u64"),
    Field("path", "u64"),
)

ACTIVITY = Layout("rf_counters", Field("n", "u64", COUNTERS))

CONFIG = Layout(
    "rf_config",
    Field("hierarchy", "u32"),
    Field("host_mnt_ns", "u32"),
    Field("host_pid_ns", "u32"),
    Field("host_net_ns", "u32"),
    Field("host_ipc_ns", "u32"),
    Field("host_uts_ns", "u32"),
    Field("host_cgroup_ns", "u32"),
    Field("host_user_ns", "u32"),
    Field("host_time_ns", "u32"),
    Field("agent_pid", "u32"),
    Field("agent_start_ns", "u64"),
    Field("activity_rate", "u32"),
    Field("activity_burst", "u32"),
    Field("alert_rate", "u32"),
    Field("alert_burst", "u32"),
    Field("helper_hook", "u32"),
    Field("exec_hooked", "u32"),
    Field("process_share", "u32"),
    Field("cgroup_storage", "u32"),
    Field("late", "u32"),
    Field("task_share", "u32"),
    Field("root_cgroup", "u64"),
    Field("host_root_device", "u64"),
    Field("host_root_inode", "u64"),
    Field("guard", "u32"),
    Field("guard_hooked", "u32"),
)

LAYOUTS = (
    TASK,
    CONTAINER,
    CARRIED,
    PATTERN,
    SYSCALL,
    RULESET,
    EVENT_RULES,
    OPERAND_KEY,
    TEXT_KEY,
    ADDRESS_KEY,
    ACTIONS,
    DROP_KEY,
    LEARNED_KEY,
    HELPER_KEY,
    *guard.LAYOUTS,
    ACTIVITY,
    CONFIG,
)


class TaskValue(NamedTuple):
    """struct rf_task: `TaskValue._make(TASK.unpack(value))`."""

    container: int
    slot: int
    facts: int
    exe_hash: int
    start_ns: int


class ContainerValue(NamedTuple):
    """struct rf_container: `ContainerValue._make(CONTAINER.unpack(value))`."""

    cgroup: int
    created_ns: int = 0
    profile0: int = 0
    profile1: int = 0
    state: int = 0
    tasks: int = 0
    facts: int = 0
    processes: int = 0
    bucket: int = 0
    bucket_ns: int = 0
    alert_bucket: int = 0
    alert_bucket_ns: int = 0
    reported_second: int = 0
    reported0: int = 0
    reported1: int = 0
    reported2: int = 0
    reported3: int = 0
    reported4: int = 0
    reported5: int = 0
    reported6: int = 0
    reported7: int = 0
    maker_mnt_ns: int = 0


class MapShape(NamedTuple):
    """Bytes of a key and of a value (of one CPU), as the agent reads and writes them."""

    key: int
    value: int


#: The maps that the agent reads or writes (not `tasks`, which only probes use); outer maps hold descriptors.
MAPS = {
    "processes": MapShape(4, TASK.size),
    "carried": MapShape(4, CARRIED.size),
    "unlisted": MapShape(4, 8),
    "heartbeat": MapShape(4, 8),
    "slots": MapShape(4, CONTAINER.size),
    "free_slots": MapShape(0, 4),
    "containers": MapShape(8, 4),
    "patterns": MapShape(4, PATTERN.size),
    "syscalls": MapShape(4, SYSCALL.size),
    "observe": MapShape(4, 4),
    "helpers": MapShape(HELPER_KEY.size, 4),
    "tickets": MapShape(64, 4),
    "guards": MapShape(guard.GUARD_KEY.size, 4),
    "guard_state": MapShape(4, guard.GUARD_STATE.size),
    "guard_wanted": MapShape(4, guard.GUARD_WISH.size),
    "guarded_calls": MapShape(4, guard.GUARDED_CALL.size),
    "rule_sets": MapShape(4, 4),
    "rule_events": MapShape(4, 4),
    "rule_profiles": MapShape(4, 4),
    "rule_operands": MapShape(4, 4),
    "rule_texts": MapShape(4, 4),
    "rule_addresses": MapShape(4, 4),
    "rule_actions": MapShape(4, 4),
    "generation": MapShape(4, 8),
    "alerts": MapShape(0, 0),
    "activity": MapShape(0, 0),
    "emitted": MapShape(4, 8),
    "halvings": MapShape(4, 4),
    "drops": MapShape(DROP_KEY.size, 8),
    "drops_unnamed": MapShape(4, 8),
    "learned": MapShape(LEARNED_KEY.size, 8),
    "counters": MapShape(4, ACTIVITY.size),
}


class InnerMap(NamedTuple):
    """What is inside an outer map. `type` is BPF_MAP_TYPE_*; `max_entries` 0: the installer chooses."""

    type: int
    key: int
    value: int
    max_entries: int
    flags: int


_HASH, _ARRAY, _LPM_TRIE = 1, 2, 11
_NO_PREALLOC, _INNER_MAP = 1, 1 << 12

#: outer map -> the inner maps that a generation brings
INNER_MAPS = {
    "rule_sets": InnerMap(_ARRAY, 4, RULESET.size, 0, _INNER_MAP),
    "rule_events": InnerMap(_ARRAY, 4, EVENT_RULES.size, EVENT_MAX, 0),
    "rule_profiles": InnerMap(_ARRAY, 4, 4, 0, _INNER_MAP),
    "rule_operands": InnerMap(_HASH, OPERAND_KEY.size, 4, 0, _NO_PREALLOC),
    "rule_texts": InnerMap(_LPM_TRIE, TEXT_KEY.size, 4, 0, _NO_PREALLOC),
    "rule_addresses": InnerMap(_LPM_TRIE, ADDRESS_KEY.size, 4, 0, _NO_PREALLOC),
    "rule_actions": InnerMap(_ARRAY, 4, ACTIONS.size, 1, 0),
}
