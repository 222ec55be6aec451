/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Unarmed tasks in a container's cgroup and in mounts that are not the host's. A runtime that
 * prepares a container is such a task, for a moment, and so is anything that imitates one: a
 * program from memory, an orphan, a task in a new mount namespace, a runtime that runs the workload
 * in its own process. Nothing that a task can choose distinguishes them, except that a runtime soon
 * executes the workload, which arms it. So each line of such tasks has a limited time, counted from
 * when its first task was seen, and inherited at fork. Then it is armed as it is.
 *
 * The time is short once the task has left the host's root, as a runtime has little to do after
 * that. Before, it may wait for hooks (networks, devices) for long. It is short as well for tasks
 * that were there before the agent, for an unknown time.
 */
#ifndef RINGFENCE_UNARMED_H
#define RINGFENCE_UNARMED_H

#include "drift.h"
#include "lifecycle.h"
#include "membership.h"

#define RF_GRACE_INSIDE_NS 30000000000ULL /* not yet outside of the host's root */
#define RF_FIRST_PASS_NS 1000000000ULL
#define RF_CLONE_INTO_CGROUP 0x200000000ULL

static __always_inline __u64 rf_grace_ns(void)
{
	return config.grace_ms * 1000000ULL;
}

/* Returns true if a task's root directory is not the host's. */
static __always_inline bool rf_left_hosts_root(struct task_struct *task)
{
	return !rf_is_host_root((__u64)BPF_CORE_READ(task, fs, root.dentry));
}

/* The container that an unarmed task belongs to by its cgroup and mounts; else RF_NO_SLOT. */
static __always_inline __u32 rf_slot_of_unarmed(struct task_struct *task)
{
	struct rf_container *container;
	__u32 slot;

	if (!rf_own_mounts(task) || rf_is_agent(task))
		return RF_NO_SLOT;
	slot = rf_slot_of(rf_cgroup_of(task));
	container = bpf_map_lookup_elem(&slots, &slot);
	if (!container || !container->cgroup || !rf_is_slot(slot))
		return RF_NO_SLOT;
	/* A node may have mounts of its own: see rf_binding_by_cgroup. */
	return container->maker_mnt_ns == rf_mnt_ns(task) ? RF_NO_SLOT : slot;
}

/* An unarmed task has entered the cgroup of a container, or may have. The agent looks later. */
static __always_inline void rf_note_entrant(struct cgroup *to)
{
	__u32 at = RF_UNARMED_ENTRANTS;
	__u64 *count;

	if (!rf_in_hierarchy(to) || !rf_is_slot(rf_slot_of(rf_address(to))))
		return;
	count = bpf_map_lookup_elem(&unarmed, &at);
	if (count)
		__sync_fetch_and_add(count, 1);
}

/*
 * Notes since when a task is unarmed in a container. Returns its storage; NULL: no memory, or it is
 * armed.
 */
static __always_inline struct rf_armed *rf_see_unarmed(struct task_struct *task, __u64 now)
{
	struct rf_armed *seen;

	seen = bpf_task_storage_get(&tasks, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!seen || seen->task.container)
		return NULL;
	if (!seen->seen_ns)
		seen->seen_ns = now;
	if (!seen->left_ns && rf_left_hosts_root(task))
		seen->left_ns = now;
	return seen;
}

/* Returns true if a line of tasks was seen at the first adoption, or before. */
static __always_inline bool rf_was_before(const struct rf_armed *seen)
{
	__u32 at = RF_UNARMED_FIRST_NS;
	__u64 *first = bpf_map_lookup_elem(&unarmed, &at);

	return first && seen->seen_ns < *first + RF_FIRST_PASS_NS;
}

/* Returns true if a line of tasks has only the short time. */
static __always_inline bool rf_is_short(const struct rf_armed *seen)
{
	return seen->left_ns || rf_was_before(seen);
}

static __always_inline bool rf_grace_is_over(const struct rf_armed *seen, __u64 now, __u64 grace_ns)
{
	if (rf_was_before(seen))
		return now - seen->seen_ns >= grace_ns;
	if (seen->left_ns && now - seen->left_ns >= grace_ns)
		return true;
	return now - seen->seen_ns >= RF_GRACE_INSIDE_NS;
}

/*
 * Arms a task whose time is over, with an unknown program: no exception applies to it. Returns 0 if
 * there is no memory.
 */
static __always_inline int rf_arm_as_it_is(struct task_struct *task, __u32 slot)
{
	struct rf_container *container = bpf_map_lookup_elem(&slots, &slot);
	struct rf_task like = {};
	struct rf_armed *armed;

	if (!container)
		return 0;
	like.container = container->cgroup;
	like.slot = slot;
	like.facts = RF_PROGRAM_ELSEWHERE;
	like.start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	armed = rf_bind(task, container, &like);
	if (!armed)
		return !!rf_bound(task);
	armed->container_root = rf_root_of_mounts(rf_address(task));
	rf_claim_namespaces(rf_address(task), &armed->task, RF_EVERY_KIND);
	rf_drift_watch(task, armed);
	rf_enter_binding(task, armed, container);
	return 1;
}

/*
 * An unarmed task forks. In a container, its child inherits its time; if that is over, both are
 * armed, so that no line of tasks outruns the iterator. Returns 1 if the child could not be armed.
 */
rf_subprogram int rf_unarmed_forks(struct task_struct *parent, struct task_struct *child,
				   __u64 clone_flags)
{
	struct rf_armed *seen, *of_child;
	__u32 slot;
	__u64 now;

	if (clone_flags & RF_CLONE_INTO_CGROUP)
		rf_note_entrant(BPF_CORE_READ(child, cgroups, dfl_cgrp));
	slot = rf_slot_of_unarmed(parent);
	if (!rf_is_slot(slot))
		return 0;
	now = bpf_ktime_get_boot_ns();
	seen = rf_see_unarmed(parent, now);
	if (!seen)
		return 0;
	if (rf_grace_is_over(seen, now, rf_grace_ns())) {
		rf_arm_as_it_is(parent, slot);
		return !rf_arm_as_it_is(child, slot);
	}
	of_child = bpf_task_storage_get(&tasks, child, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (of_child && !of_child->task.container) {
		of_child->left_ns = seen->left_ns;
		of_child->seen_ns = seen->seen_ns;
	}
	return 0;
}

#endif
