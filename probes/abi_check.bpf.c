// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Holds every struct and enum that probes and agent share, so that its BTF can be compared with the
 * Python mirror (tests/abi). Never loaded.
 */
#include "include/config.h"
#include "include/containers.h"
#include "include/emit.h"
#include "include/guard.h"
#include "include/learn.h"
#include "include/rules.h"
#include "include/syscalls.h"
#include "include/tasks.h"
#include "include/usermode_helper.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* By value: BTF has only a forward declaration of a type that is reached by a pointer. */
#define RF_HOLD(kind, type) kind type abi_##type __attribute__((unused))

RF_HOLD(enum, rf_event);
RF_HOLD(enum, rf_action);
RF_HOLD(enum, rf_mechanism);
RF_HOLD(enum, rf_fact);
RF_HOLD(enum, rf_drop);
RF_HOLD(enum, rf_operand_source);
RF_HOLD(enum, rf_relation);
RF_HOLD(enum, rf_counter);
RF_HOLD(enum, rf_tamper);

RF_HOLD(struct, rf_header);
RF_HOLD(struct, rf_object);
RF_HOLD(struct, rf_container_event);
RF_HOLD(struct, rf_task_event);
RF_HOLD(struct, rf_exec_event);
RF_HOLD(struct, rf_cgroup_event);
RF_HOLD(struct, rf_file_event);
RF_HOLD(struct, rf_device_event);
RF_HOLD(struct, rf_sysctl_event);
RF_HOLD(struct, rf_net_event);
RF_HOLD(struct, rf_unix_event);
RF_HOLD(struct, rf_drift_event);
RF_HOLD(struct, rf_tamper_event);
RF_HOLD(struct, rf_syscall_event);

RF_HOLD(struct, rf_task);
RF_HOLD(struct, rf_container);
RF_HOLD(struct, rf_carried);
RF_HOLD(struct, rf_pattern);
RF_HOLD(struct, rf_syscall);
RF_HOLD(struct, rf_helper_key);
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
