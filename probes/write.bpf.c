// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Writes the maps for the agent. They are frozen: no process can change them by bpf(2) or by
 * mapping them, the agent included. A program can, and this one does so only for the agent.
 *
 * It is run by BPF_PROG_RUN, and attached nowhere. It is no BPF_PROG_TYPE_SYSCALL: such a program
 * may sleep, and those may not use tries.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/condemn.h"
#include "include/emit.h"
#include "include/guard.h"
#include "include/rules.h"
#include "include/syscalls.h"
#include "include/trees.h"
#include "include/usermode_helper.h"
#include "include/write.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_EPERM 1
#define RF_ENOENT 2
#define RF_EFAULT 14
#define RF_EINVAL 22

/* Addresses are of the agent's memory. */
#define RF_USER(to, from) bpf_probe_read_user(to, sizeof(*(to)), (void *)(from))

/* A function for each table that is looked up: keys and values have a frame of their own. */
#define RF_WRITES_TABLE(name, map, key_type, value_type)                   \
	__noinline long name(__u64 op, __u64 from, __u64 value, __u64 how) \
	{                                                                  \
		value_type to_write;                                       \
		key_type key;                                              \
                                                                           \
		if (RF_USER(&key, from))                                   \
			return -RF_EFAULT;                                 \
		if (op == RF_WRITE_DELETE)                                 \
			return bpf_map_delete_elem(&(map), &key);          \
		if (RF_USER(&to_write, value))                             \
			return -RF_EFAULT;                                 \
		return bpf_map_update_elem(&(map), &key, &to_write, how);  \
	}

struct rf_ticket {
	char name[RF_TICKET_LEN];
};

RF_WRITES_TABLE(rf_write_operands, rule_operands, struct rf_operand_key, __u32)
RF_WRITES_TABLE(rf_write_texts, rule_texts, struct rf_text_key, __u32)
RF_WRITES_TABLE(rf_write_addresses, rule_addresses, struct rf_address_key, __u32)
RF_WRITES_TABLE(rf_write_containers, containers, __u64, __u32)
RF_WRITES_TABLE(rf_write_tickets, tickets, struct rf_ticket, __u32)
RF_WRITES_TABLE(rf_write_helpers, helpers, struct rf_helper_key, __u32)
RF_WRITES_TABLE(rf_write_guards, guards, struct rf_guard_key, __u32)
RF_WRITES_TABLE(rf_write_host_trees, host_trees, struct rf_tree_key, __u32)

/* An array that programs may be reading: the value is complete before its place is touched. */
#define RF_WRITES_ARRAY(name, map, value_type)                          \
	__noinline long name(__u64 from, __u64 value)                   \
	{                                                               \
		value_type complete, *to;                               \
		__u32 index;                                            \
                                                                        \
		if (RF_USER(&index, from) || RF_USER(&complete, value)) \
			return -RF_EFAULT;                              \
		to = bpf_map_lookup_elem(&(map), &index);               \
		if (!to)                                                \
			return -RF_ENOENT;                              \
		*to = complete;                                         \
		return 0;                                               \
	}

RF_WRITES_ARRAY(rf_write_generation, generation, __u64)
RF_WRITES_ARRAY(rf_write_heartbeat, heartbeat, __u64)
RF_WRITES_ARRAY(rf_write_patterns, patterns, struct rf_pattern)
RF_WRITES_ARRAY(rf_write_syscalls, syscalls, struct rf_syscall)
RF_WRITES_ARRAY(rf_write_observe, observe, __u32)
RF_WRITES_ARRAY(rf_write_halvings, halvings, __u32)
RF_WRITES_ARRAY(rf_write_guard_wanted, guard_wanted, struct rf_guard_wanted)
RF_WRITES_ARRAY(rf_write_guarded_calls, guarded_calls, struct rf_guarded_call)

/* An array that is written in the half that no program reads, in place: values are large. */
#define RF_WRITES_HALF(name, map)                                                       \
	__noinline long name(__u64 from, __u64 value)                                   \
	{                                                                               \
		__u32 index;                                                            \
		void *to;                                                               \
                                                                                        \
		if (RF_USER(&index, from))                                              \
			return -RF_EFAULT;                                              \
		to = bpf_map_lookup_elem(&(map), &index);                               \
		if (!to)                                                                \
			return -RF_ENOENT;                                              \
		return bpf_probe_read_user(to, sizeof(RF_VALUE_OF(map)), (void *)value) \
			       ? -RF_EFAULT                                             \
			       : 0;                                                     \
	}
#define RF_VALUE_OF(map) *(map).value

RF_WRITES_HALF(rf_write_rule_sets, rule_sets)
RF_WRITES_HALF(rf_write_rule_events, rule_events)
RF_WRITES_HALF(rf_write_rule_actions, rule_actions)

/* A slot that nobody else knows: it was taken from the free ones, or is returned to them. */
__noinline long rf_write_slots(__u64 from, __u64 value)
{
	struct rf_container complete, *container;
	__u32 slot;

	if (RF_USER(&slot, from) || RF_USER(&complete, value))
		return -RF_EFAULT;
	container = bpf_map_lookup_elem(&slots, &slot);
	if (!container)
		return -RF_ENOENT;
	rf_forget_condemned(container);
	*container = complete;
	return 0;
}

__noinline long rf_write_condemned(__u64 from)
{
	struct rf_container *container;
	__u32 slot;

	if (RF_USER(&slot, from))
		return -RF_EFAULT;
	container = bpf_map_lookup_elem(&slots, &slot);
	if (!container)
		return -RF_ENOENT;
	rf_mark_condemned(container);
	return 0;
}

__noinline long rf_write_profiles(__u64 from, __u64 value)
{
	struct rf_container *container;
	__u32 place, slot, profile;

	if (RF_USER(&place, from) || RF_USER(&profile, value))
		return -RF_EFAULT;
	slot = place >> 1;
	container = bpf_map_lookup_elem(&slots, &slot);
	if (!container)
		return -RF_ENOENT;
	if (place & 1)
		container->profile[1] = profile;
	else
		container->profile[0] = profile;
	return 0;
}

__noinline long rf_write_free_slots(__u64 op, __u64 value)
{
	__u32 slot;

	if (op == RF_WRITE_POP)
		return bpf_map_pop_elem(&free_slots, &slot) ? -RF_ENOENT : (long)slot;
	if (RF_USER(&slot, value))
		return -RF_EFAULT;
	return bpf_map_push_elem(&free_slots, &slot, BPF_ANY);
}

struct rf_write_request {
	__u32 map;
	__u32 op;
	__u64 keys;
	__u64 values;
	__u64 flags;
	__u32 key_size;
	__u32 value_size;
};

/* Writes entry number `i`. Returns 0, the value of a stack, or -errno. */
__noinline long rf_write_entry(const struct rf_write_request *ask, __u64 i)
{
	__u64 key, value, op, flags;

	if (!ask)
		return -RF_EINVAL;
	op = ask->op;
	flags = ask->flags;
	key = ask->keys + i * ask->key_size;
	value = ask->values + i * ask->value_size;
	switch (ask->map) {
	case RF_WRITE_GENERATION:
		return rf_write_generation(key, value);
	case RF_WRITE_RULE_SETS:
		return rf_write_rule_sets(key, value);
	case RF_WRITE_RULE_EVENTS:
		return rf_write_rule_events(key, value);
	case RF_WRITE_RULE_OPERANDS:
		return rf_write_operands(op, key, value, flags);
	case RF_WRITE_RULE_TEXTS:
		return rf_write_texts(op, key, value, flags);
	case RF_WRITE_RULE_ADDRESSES:
		return rf_write_addresses(op, key, value, flags);
	case RF_WRITE_RULE_ACTIONS:
		return rf_write_rule_actions(key, value);
	case RF_WRITE_SLOTS:
		return rf_write_slots(key, value);
	case RF_WRITE_PROFILES:
		return rf_write_profiles(key, value);
	case RF_WRITE_FREE_SLOTS:
		return rf_write_free_slots(op, value);
	case RF_WRITE_HEARTBEAT:
		return rf_write_heartbeat(key, value);
	case RF_WRITE_CONTAINERS:
		return rf_write_containers(op, key, value, flags);
	case RF_WRITE_PATTERNS:
		return rf_write_patterns(key, value);
	case RF_WRITE_TICKETS:
		return rf_write_tickets(op, key, value, flags);
	case RF_WRITE_SYSCALLS:
		return rf_write_syscalls(key, value);
	case RF_WRITE_OBSERVE:
		return rf_write_observe(key, value);
	case RF_WRITE_HALVINGS:
		return rf_write_halvings(key, value);
	case RF_WRITE_HELPERS:
		return rf_write_helpers(op, key, value, flags);
	case RF_WRITE_GUARDS:
		return rf_write_guards(op, key, value, flags);
	case RF_WRITE_GUARD_WANTED:
		return rf_write_guard_wanted(key, value);
	case RF_WRITE_GUARDED_CALLS:
		return rf_write_guarded_calls(key, value);
	case RF_WRITE_HOST_TREES:
		return rf_write_host_trees(op, key, value, flags);
	case RF_WRITE_CONDEMNED:
		return rf_write_condemned(key);
	}
	return -RF_EINVAL;
}

/*
 * The agent. Tickets are also issued by its successor, which it has admitted, or which runs on the
 * host: neither belongs to a container.
 */
static __always_inline bool rf_may_write(struct task_struct *task, __u32 map)
{
	struct rf_armed *armed;

	if (rf_is_agent(task))
		return true;
	if (map != RF_WRITE_TICKETS)
		return false;
	armed = rf_bound(task);
	return !armed || !armed->task.container;
}

/* Returns how many entries were written; if the first one failed: -errno. */
SEC("raw_tp")
int agent_write(__u64 *ctx)
{
	struct rf_write_request ask = {
		.map = ctx[RF_WRITE_WHAT] & 0xff,
		.op = ctx[RF_WRITE_WHAT] >> 8 & 0xff,
		.keys = ctx[RF_WRITE_KEYS],
		.values = ctx[RF_WRITE_VALUES],
		.flags = ctx[RF_WRITE_FLAGS],
		.key_size = ctx[RF_WRITE_WHAT] >> 16 & 0xffff,
		.value_size = ctx[RF_WRITE_WHAT] >> 32 & 0xffff,
	};
	__u64 count = ctx[RF_WRITE_COUNT], i;
	long result;

	if (!rf_may_write(bpf_get_current_task_btf(), ask.map)) {
		rf_guard_hit(RF_TAMPER_PROGRAM, 0, 0, 0, false);
		return -RF_EPERM;
	}
	if (ask.op == RF_WRITE_POP)
		return rf_write_entry(&ask, 0);
	for (i = 0; i < RF_WRITE_BATCH; i++) {
		if (i >= count)
			break;
		result = rf_write_entry(&ask, i);
		if (result)
			return i ? i : result;
	}
	return i;
}
