// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Every map that user space or more than one file uses, and the configuration. The headers declare
 * them.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/condemn.h"
#include "include/containers.h"
#include "include/emit.h"
#include "include/guard.h"
#include "include/learn.h"
#include "include/rules.h"
#include "include/scratch.h"
#include "include/syscalls.h"
#include "include/tasks.h"
#include "include/trees.h"
#include "include/usermode_helper.h"
#include "include/config.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile struct rf_config config = {};

/* rules.h */
struct map_generation generation SEC(".maps");
struct map_rule_sets rule_sets SEC(".maps");
struct map_rule_events rule_events SEC(".maps");
struct map_rule_operands rule_operands SEC(".maps");
struct map_rule_texts rule_texts SEC(".maps");
struct map_rule_addresses rule_addresses SEC(".maps");
struct map_rule_actions rule_actions SEC(".maps");

/* containers.h */
struct map_slots slots SEC(".maps");
struct map_free_slots free_slots SEC(".maps");
struct map_heartbeat heartbeat SEC(".maps");
struct map_containers containers SEC(".maps");
struct map_namespace_claims namespace_claims SEC(".maps");
struct map_namespace_owners namespace_owners SEC(".maps");
struct map_patterns patterns SEC(".maps");
struct map_tickets tickets SEC(".maps");

/* condemn.h */
struct map_condemned condemned SEC(".maps");

/* tasks.h */
struct map_tasks tasks SEC(".maps");
struct map_processes processes SEC(".maps");
struct map_unlisted unlisted SEC(".maps");
struct map_lost_tasks lost_tasks SEC(".maps");
struct map_lost_count lost_count SEC(".maps");
struct map_unarmed unarmed SEC(".maps");
struct map_tasks_before tasks_before SEC(".maps");
struct map_processes_before processes_before SEC(".maps");

/* syscalls.h */
struct map_syscalls syscalls SEC(".maps");

/* emit.h */
struct map_observe observe SEC(".maps");
struct map_alerts alerts SEC(".maps");
struct map_activity activity SEC(".maps");
struct map_emitted emitted SEC(".maps");
struct map_halvings halvings SEC(".maps");
struct map_drops drops SEC(".maps");
struct map_drops_unnamed drops_unnamed SEC(".maps");
struct map_counters counters SEC(".maps");

/* usermode_helper.h */
struct map_helpers helpers SEC(".maps");

/* trees.h */
struct map_host_trees host_trees SEC(".maps");

/* learn.h */
struct map_learned learned SEC(".maps");

/* scratch.h */
struct map_scratch scratch SEC(".maps");
struct map_scratch_busy scratch_busy SEC(".maps");
struct map_scratch_shared scratch_shared SEC(".maps");
struct map_scratch_shared_busy scratch_shared_busy SEC(".maps");

/* guard.h */
struct map_guards guards SEC(".maps");
struct map_guard_state guard_state SEC(".maps");
struct map_guard_wanted guard_wanted SEC(".maps");
struct map_connecting connecting SEC(".maps");
struct map_guarded_calls guarded_calls SEC(".maps");
