/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Arming: from here on a task is a subject. Used at exec (exec_binding.bpf.c), at fork (follow.h,
 * process.bpf.c) and at adoption (adopt.bpf.c).
 */
#ifndef RINGFENCE_LIFECYCLE_H
#define RINGFENCE_LIFECYCLE_H

#include "borrowed.h"
#include "emit.h"
#include "match.h"
#include "object.h"

/* An armed process is not in `processes`: cgroup programs look at cgroups from here on. */
static __always_inline void rf_note_unlisted(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&unlisted, &zero);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/*
 * Binds a task to a container. Exactly one caller succeeds (the iterator may see a task during fork
 * or exec), and only that one counts. Returns the binding if this caller made it. Without memory
 * the task has no binding at all: the caller must refuse it, or note it (lost.h).
 */
static __always_inline struct rf_armed *
rf_bind(struct task_struct *task, struct rf_container *container, const struct rf_task *like)
{
	struct rf_armed *armed;

	armed = bpf_task_storage_get(&tasks, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!armed)
		return NULL;
	if (__sync_val_compare_and_swap(&armed->task.container, 0, like->container) != 0)
		return NULL;
	armed->task.slot = like->slot;
	armed->task.facts = like->facts;
	armed->task.exe_hash = like->exe_hash;
	armed->task.start_ns = like->start_ns;
	return armed;
}

/* Kills the current task, which cannot be bound, if the configuration wants that. Returns 0. */
static __always_inline int rf_refuse_current(__u32 slot)
{
	if (!config.refuse_unbound)
		return 0;
	rf_count(slot, RF_COUNT_REFUSED);
	bpf_send_signal(9);
	return 0;
}

/* What a child inherits besides its container and its program. */
static __always_inline void rf_inherit(struct rf_armed *child, const struct rf_armed *parent)
{
	child->container_root = parent->container_root;
	child->entering = parent->entering;
	child->refused_entries = parent->refused_entries;
	__builtin_memcpy(&child->identity, &parent->identity, sizeof(struct rf_identity));
}

/* Returns true exactly once per task; that caller increments the container's task count. */
static __always_inline bool rf_mark_counted(struct rf_armed *armed)
{
	__u32 *counted = &armed->counted;

	return __sync_val_compare_and_swap(counted, RF_COUNTED_NOT_YET, RF_COUNTED) ==
	       RF_COUNTED_NOT_YET;
}

/* Returns true exactly once per counted task; that caller decrements the container's task count. */
static __always_inline bool rf_mark_ended(struct rf_armed *armed)
{
	__u32 *counted = &armed->counted;

	return __sync_val_compare_and_swap(counted, RF_COUNTED, RF_COUNTED_ENDED) == RF_COUNTED;
}

/* Returns true if the current process makes another one, and is driven by somebody. */
static __always_inline bool rf_parent_is_borrowed(__u32 child)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tgid = task->tgid;
	struct rf_task *process = tgid == child ? NULL : bpf_map_lookup_elem(&processes, &tgid);

	return process && process->facts & RF_PROGRAM_BORROWED;
}

/*
 * Puts a bound process into the table by number, or updates its entry. A container cannot fill the
 * table: processes beyond its share are not in it.
 */
static __always_inline void rf_publish(struct task_struct *task, const struct rf_task *bound,
				       struct rf_container *container)
{
	__u32 tgid = task->tgid;
	struct rf_task copy;

	__builtin_memcpy(&copy, bound, sizeof(copy));
	if (rf_parent_is_borrowed(tgid))
		copy.facts |= RF_PROGRAM_BORROWED;
	if (!bpf_map_update_elem(&processes, &tgid, &copy, BPF_EXIST))
		return;
	if (container->processes < (__s32)config.process_share) {
		if (!bpf_map_update_elem(&processes, &tgid, &copy, BPF_NOEXIST)) {
			__sync_fetch_and_add(&container->processes, 1);
			return;
		}
	}
	rf_drop(RF_PROCESS_EXEC, RF_DROP_PROCESS_TABLE, bound->slot);
	rf_note_unlisted();
}

/*
 * Counts an armed task that is not counted yet. If it is the container's first, reports the
 * container's start, with its posture.
 */
static __always_inline void rf_count_task(struct task_struct *task, struct rf_armed *armed,
					  struct rf_container *container, bool adopted)
{
	const struct cred *cred = BPF_CORE_READ(task, cred);
	struct rf_container_event *record;
	struct rf_query query;
	__u32 shared;
	__u8 flags = adopted ? RF_FLAG_ADOPTED : 0;

	if (!rf_mark_counted(armed) || __sync_fetch_and_add(&container->tasks, 1) != 0)
		return;
	shared = rf_shared_namespaces(rf_address(task));
	container->facts = rf_facts(rf_address(task), armed->task.facts);
	__sync_fetch_and_or(&container->state, RF_STATE_STARTED);
	rf_query_init(&query, RF_CONTAINER_START, &armed->task, container);
	query.value[0] = shared;
	query.value[1] = task->seccomp.mode;
	query.value[RF_DIM_FACTS] = container->facts;
	query.known |= RF_KNOWN_FACTS;
	rf_evaluate(&query, task, &armed->task, NULL);
	if (!adopted) {
		flags |= rf_enforce(&query);
	} else if (query.action > RF_ACTION_ALERT) {
		/* An iterator cannot send signals: the record says so, and the agent acts. */
		query.action = RF_ACTION_ALERT;
		flags |= RF_FLAG_SIGNAL_FAILED;
	}
	rf_count_verdict(&query);
	record = RF_RECORD(rf_container_event, RF_CONTAINER_START, armed->task.slot,
			   RF_ROUTE_ALERTS);
	if (!record)
		return;
	rf_header(&record->header, RF_CONTAINER_START, task, &armed->task);
	rf_header_verdict(&record->header, &query, task, &armed->task);
	record->header.flags = flags;
	record->cgroup = container->cgroup;
	record->cap_effective = rf_capability(cred, cap_effective);
	record->cap_permitted = rf_capability(cred, cap_permitted);
	record->cap_bounding = rf_capability(cred, cap_bset);
	record->seccomp = task->seccomp.mode;
	record->user_ns_level = BPF_CORE_READ(cred, user_ns, level);
	record->shared_namespaces = shared;
	rf_submit(record, RF_CONTAINER_START);
}

/* What a program at task_newtask adds to an existing binding, for the case that it was skipped. */
static __always_inline void rf_complete_binding(struct task_struct *task, struct rf_armed *armed,
						struct rf_container *container, bool adopted)
{
	armed->task.start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	rf_publish(task, &armed->task, container);
	rf_count_task(task, armed, container, adopted);
}

/*
 * The same where the stack is short. A container's first task is not counted: the iterator
 * completes it, and reports the start (rf_complete_half_bound). Namespaces are claimed when the
 * task is checked.
 */
static __always_inline void rf_enter_binding(struct task_struct *task, struct rf_armed *armed,
					     struct rf_container *container)
{
	rf_publish(task, &armed->task, container);
	if (container->tasks > 0 && rf_mark_counted(armed))
		__sync_fetch_and_add(&container->tasks, 1);
}

#endif
