// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Where records go, and how losses and verdicts are counted. */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/emit.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__noinline int rf_drop(__u32 event, __u32 reason, __u32 slot)
{
	struct rf_drop_key key = { .event = event, .reason = reason, .slot = slot };
	__u64 one = 1, *count;

	count = bpf_map_lookup_elem(&drops, &key);
	if (!count) {
		if (!bpf_map_update_elem(&drops, &key, &one, BPF_NOEXIST))
			return 0;
		count = bpf_map_lookup_elem(&drops, &key);
	}
	if (!count) { /* the table is full: counted without the container */
		__u32 unnamed = event * RF_DROP_MAX + (reason & (RF_DROP_MAX - 1));

		count = bpf_map_lookup_elem(&drops_unnamed, &unnamed);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

__noinline int rf_count_action(__u32 slot, __u32 action)
{
	rf_count(slot, RF_COUNT_ALERT);
	if (action == RF_ACTION_KILL)
		rf_count(slot, RF_COUNT_KILL);
	if (action == RF_ACTION_DENY)
		rf_count(slot, RF_COUNT_DENY);
	return 0;
}

/*
 * Takes one token of a container's bucket. CPUs that refill it at once may grant a few more: it is
 * a rate, not a count.
 */
static __always_inline bool rf_token(__u64 *tokens, __u64 *filled_ns, __u32 rate, __u32 burst)
{
	__u64 now, then, elapsed, fresh;

	if (!rate)
		return true;
	now = bpf_ktime_get_boot_ns();
	then = *filled_ns;
	elapsed = now - then;
	if (elapsed > 10000000000ULL)
		elapsed = 10000000000ULL;
	fresh = elapsed * rate / 1000000000ULL;
	if (fresh && __sync_val_compare_and_swap(filled_ns, then, now) == then) {
		fresh += *tokens;
		*tokens = fresh > burst ? burst : fresh;
	}
	if ((__s64)*tokens <= 0)
		return false;
	if ((__s64)__sync_fetch_and_sub(tokens, 1) > 0)
		return true;
	__sync_fetch_and_add(tokens, 1); /* another CPU had the last one */
	return false;
}

static __always_inline bool rf_activity_token(struct rf_container *container)
{
	__u32 zero = 0, *halved = bpf_map_lookup_elem(&halvings, &zero);
	__u32 shift = halved ? *halved & 31 : 0;

	if (!config.activity_rate)
		return true;
	return rf_token(&container->bucket, &container->bucket_ns,
			(config.activity_rate >> shift) | 1, (config.activity_burst >> shift) | 1);
}

/*
 * Returns true if nothing of this rule, or of this event without a rule, was reported of the
 * container in this second.
 */
static __always_inline bool rf_first_this_second(struct rf_container *container, __u32 number)
{
	__u64 second = bpf_ktime_get_boot_ns() >> 30, bit = 1ULL << (number & 63);
	__u32 word = (number >> 6) & (RF_REPORTED_WORDS - 1), i;

	if (container->reported_second != second) {
		container->reported_second = second;
		for (i = 0; i < RF_REPORTED_WORDS; i++)
			container->reported[i] = 0;
	}
	if (container->reported[word] & bit)
		return false;
	return !(__sync_fetch_and_or(&container->reported[word], bit) & bit);
}

/*
 * Limits the alerts of each container, kills included: the next process follows a killed one. A
 * flood of one rule does not hide the first record of another.
 */
static __always_inline bool rf_alert_token(struct rf_container *container, __u32 number)
{
	bool first = rf_first_this_second(container, number);

	return rf_token(&container->alert_bucket, &container->alert_bucket_ns, config.alert_rate,
			config.alert_burst) ||
	       first;
}

__noinline __u32 rf_route_rule(__u32 event, __u32 slot, struct rf_container *container,
			       __u32 action, __u32 rule)
{
	__u32 *level, route = RF_ROUTE_ALERTS;
	bool passes;

	if (!container)
		return RF_ROUTE_NONE;
	if (action == RF_ACTION_NONE) {
		level = bpf_map_lookup_elem(&observe, &event);
		if (!level || *level == RF_OBSERVE_OFF)
			return RF_ROUTE_NONE;
		if (*level != RF_OBSERVE_ALERTS)
			route = RF_ROUTE_ACTIVITY;
	}
	if (route == RF_ROUTE_ALERTS)
		passes = rf_alert_token(container, rule == RF_NO_RULE
							   ? RF_REPORTED_EVENTS + event
							   : rule & (RF_REPORTED_EVENTS - 1));
	else
		passes = rf_activity_token(container);
	if (!passes) {
		rf_drop(event, RF_DROP_RATE_LIMIT, slot);
		return RF_ROUTE_NONE;
	}
	return route;
}

__noinline int rf_fill_header(struct rf_header *header, __u32 event, __u64 address,
			      const struct rf_task *bound)
{
	struct task_struct *task = (struct task_struct *)address;
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	const struct cred *cred = BPF_CORE_READ(task, cred);
	struct rf_pid_numbers numbers;

	if (!header)
		return 0;
	header->event = event;
	header->version = RF_ABI_VERSION;
	header->rule = RF_NO_RULE;
	header->slot = RF_NO_SLOT;
	header->time_ns = bpf_ktime_get_boot_ns();
	header->start_ns = BPF_CORE_READ(leader, start_boottime);
	header->pid = BPF_CORE_READ(task, tgid);
	header->tid = BPF_CORE_READ(task, pid);
	header->ppid = BPF_CORE_READ(leader, real_parent, tgid);
	header->uid = BPF_CORE_READ(cred, uid.val);
	header->gid = BPF_CORE_READ(cred, gid.val);
	rf_pid_numbers(task, &numbers);
	header->vpid = numbers.nr;
	bpf_probe_read_kernel(header->comm, sizeof(header->comm), task->comm);
	if (bound) {
		header->slot = bound->slot;
		header->container = bound->container;
	}
	return 0;
}
