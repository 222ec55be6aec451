// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Holds every struct and enum that probes and agent share, so that tools/abi.py can generate the
 * Python side from its BTF. Structs of events.h are held by RF_SHARED there. Never loaded.
 */

/* By value: BTF has only a forward declaration of a type that is reached by a pointer. */
#define RF_HOLD(kind, type) kind type abi_##type __attribute__((unused))

/* clang 14 cuts enumerators to 32 bits in BTF, so that a longer constant is two of them. */
#define RF_HOLD_U64(name)                           \
	enum abi_##name{                            \
		abi_high_##name = (name) >> 32,     \
		abi_low_##name = (name)&0xffffffff, \
	} abi_##name __attribute__((unused))

#define RF_SHARED(type, size)                                 \
	_Static_assert(sizeof(struct type) == (size), #type); \
	struct type abi_##type __attribute__((unused))

#include "include/config.h"
#include "include/containers.h"
#include "include/emit.h"
#include "include/guard.h"
#include "include/learn.h"
#include "include/rules.h"
#include "include/syscalls.h"
#include "include/tasks.h"
#include "include/trees.h"
#include "include/usermode_helper.h"
#include "include/match.h"
#include "include/write.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

RF_HOLD(enum, rf_limit);
RF_HOLD(enum, rf_event);
RF_HOLD(enum, rf_action);
RF_HOLD(enum, rf_mechanism);
RF_HOLD(enum, rf_call_number);
RF_HOLD(enum, rf_flag);
RF_HOLD(enum, rf_fact);
RF_HOLD(enum, rf_drift);
RF_HOLD(enum, rf_tamper);
RF_HOLD(enum, rf_drop);
RF_HOLD(enum, rf_hierarchy);
RF_HOLD(enum, rf_entries);
RF_HOLD(enum, rf_slot_number);
RF_HOLD(enum, rf_adopt);
RF_HOLD(enum, rf_before_limit);
RF_HOLD(enum, rf_lost_limit);
RF_HOLD(enum, rf_unarmed);
RF_HOLD(enum, rf_container_limit);
RF_HOLD(enum, rf_state);
RF_HOLD(enum, rf_pattern_kind);
RF_HOLD(enum, rf_counter_limit);
RF_HOLD(enum, rf_observe);
RF_HOLD(enum, rf_counter);
RF_HOLD(enum, rf_guard_mode);
RF_HOLD(enum, rf_guard_kind);
RF_HOLD(enum, rf_guard_limit);
RF_HOLD(enum, rf_guarded);
RF_HOLD(enum, rf_learned);
RF_HOLD(enum, rf_rule_limit);
RF_HOLD(enum, rf_set_number);
RF_HOLD(enum, rf_dim);
RF_HOLD(enum, rf_dim_kind);
RF_HOLD(enum, rf_syscall_limit);
RF_HOLD(enum, rf_operand_source);
RF_HOLD(enum, rf_relation);
RF_HOLD(enum, rf_syscall_flag);
RF_HOLD(enum, rf_helper_use);
RF_HOLD(enum, rf_write_argument);
RF_HOLD(enum, rf_write_op);
RF_HOLD(enum, rf_write_limit);
RF_HOLD(enum, rf_write_map);
RF_HOLD(enum, rf_tree);
RF_HOLD(enum, rf_tree_kind);

RF_HOLD(struct, rf_task);
RF_HOLD(struct, rf_container);
RF_HOLD(struct, rf_pattern);
RF_HOLD(struct, rf_syscall);
RF_HOLD(struct, rf_helper_key);
RF_HOLD(struct, rf_tree_key);
RF_HOLD(struct, rf_guard_key);
RF_HOLD(struct, rf_guard_state);
RF_HOLD(struct, rf_guard_wanted);
RF_HOLD(struct, rf_guarded_call);
RF_HOLD(struct, rf_ruleset);
RF_HOLD(struct, rf_event_rules);
RF_HOLD(struct, rf_operand_key);
RF_HOLD(struct, rf_text_key);
RF_HOLD(struct, rf_address_key);
RF_HOLD(struct, rf_actions);
RF_HOLD(struct, rf_drop_key);
RF_HOLD(struct, rf_learned_key);
RF_HOLD(struct, rf_counters);
RF_HOLD(struct, rf_config);
RF_HOLD(struct, rf_lost);

RF_HOLD_U64(RF_EXE_CHANGED);
RF_HOLD_U64(RF_GUARD_MAP);
RF_HOLD_U64(RF_GUARD_PROGRAM);
RF_HOLD_U64(RF_GUARD_LINK);
RF_HOLD_U64(RF_GUARD_NAME);
RF_HOLD_U64(RF_GUARD_LOOK);
RF_HOLD_U64(RF_GUARD_GROUP);
