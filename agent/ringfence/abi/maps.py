# SPDX-License-Identifier: Apache-2.0
"""The maps inside outer maps, which the agent makes: see probes/include/rules.h."""

from __future__ import annotations

from typing import NamedTuple

from ringfence.abi.generated import (
    ACTIONS,
    ADDRESS_KEY,
    EVENT_MAX,
    EVENT_RULES,
    OPERAND_KEY,
    RULESET,
    TEXT_KEY,
)

__all__ = ["INNER_MAPS", "InnerMap"]


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
