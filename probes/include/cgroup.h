/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the cgroup-BPF programs share. They refuse before the effect, for the verdicts deny and
 * kill. They cannot send a signal: for kill, the agent ends the process afterwards.
 */
#ifndef RINGFENCE_CGROUP_H
#define RINGFENCE_CGROUP_H

#include "match.h"
#include "membership.h"

/*
 * Each result is a constant that the compiler cannot fold into an expression: from 6.12 on, the
 * verifier requires that a program returns 0 or 1.
 */
static __always_inline int rf_allow(void)
{
	int result = 1;

	barrier_var(result);
	return result & 1;
}

static __always_inline int rf_deny(void)
{
	return 0;
}

/*
 * The binding of the current task, as cgroup programs see it. Before 6.2 they have no task storage
 * and find processes by number. A task that is not found there, because memory or space ran out, is
 * attributed by its cgroup. Then the binding is made in `fallback`, without a program, so that no
 * exception for a program applies.
 */
static __always_inline const struct rf_task *rf_cgroup_bound(struct task_struct *task,
							     struct rf_task *fallback)
{
	struct rf_container *container;
	const struct rf_task *bound;
	struct rf_armed *armed;
	__u32 tgid = task->tgid, slot;

	if (config.cgroup_storage) {
		armed = rf_bound(task);
		if (armed && armed->task.container)
			return &armed->task;
	} else {
		if (rf_is_agent(task))
			return NULL;
		bound = bpf_map_lookup_elem(&processes, &tgid);
		/* The number may belong to another process by now. */
		if (bound && bound->start_ns == BPF_CORE_READ(task, group_leader, start_boottime))
			return bound;
	}
	if (!rf_has_unlisted() && !rf_any_lost())
		return NULL;
	slot = rf_slot_by_cgroup(rf_address(task));
	container = bpf_map_lookup_elem(&slots, &slot);
	if (!container)
		return NULL;
	__builtin_memset(fallback, 0, sizeof(*fallback));
	fallback->container = container->cgroup;
	fallback->slot = slot;
	return fallback;
}

/*
 * A buffer for a text: the task's own, or one of those that tasks without storage share. NULL: none
 * is free.
 */
static __always_inline struct rf_scratch *rf_cgroup_buffer(struct task_struct *task)
{
	struct rf_armed *armed = config.cgroup_storage ? rf_bound(task) : NULL;

	return armed ? rf_scratch_claim(&armed->scratch) : rf_scratch_get_shared();
}

/* Evaluates the rules and counts the verdict. Returns where the record goes. */
static __always_inline __u32 rf_cgroup_finish(struct rf_query *query, struct task_struct *task,
					      const struct rf_task *bound,
					      struct rf_container *container,
					      const struct rf_address_key *address)
{
	rf_evaluate_where(query, task, bound, address, true);
	if (rf_refuses(query->action))
		query->mechanism = RF_MECHANISM_CGROUP;
	rf_count_verdict(query);
	return rf_route_verdict(query, container);
}

#endif
