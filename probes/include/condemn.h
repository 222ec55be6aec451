/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Condemned containers. Where a call cannot be refused, its caller is killed and its effect stays.
 * A caller that shares its descriptors, its directories or its memory with another process, or has
 * used an io_uring, leaves the effect to that one, and the next process that dies for a call
 * continues where it ended. So such a kill condemns the whole container, as does an attempt on the
 * agent that was not refused. From then on every hook refuses, and each task is killed at its next
 * call. The agent kills the rest (daemon/defence/condemned.py). Only the end of the container takes
 * that back.
 */
#ifndef RINGFENCE_CONDEMN_H
#define RINGFENCE_CONDEMN_H

#include "compat.h"
#include "containers.h"

/* Number of condemned containers: if it is 0, tasks need not be looked at. */
struct map_condemned {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct map_condemned condemned SEC(".maps");

/*
 * Kills the current thread group for a call of that event, which may take effect. Condemns its
 * container if another process shares what the call can change. Returns flags for the header.
 */
__u8 rf_kill(__u32 event);

/* Reports that the current task has condemned its container. */
int rf_report_condemned(__u32 event);

static __always_inline bool rf_any_condemned(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&condemned, &zero);

	return count && *count;
}

/*
 * Returns true if a task of another thread group has the same descriptor table, directories or
 * memory (`may_share`: RF_STATE_SHARES of the container), or may have the same io_uring.
 */
int rf_shares_with_others(__u32 may_share);

/*
 * Notes a clone after which two processes share descriptors or memory. Threads of one process do
 * not count. A vfork by a process of one thread does not count for memory: that thread waits for
 * its child.
 */
static __always_inline void rf_note_sharing(struct rf_container *container, __u64 clone_flags,
					    const struct task_struct *parent)
{
	__u32 *state = &container->state;

	if (clone_flags & RF_CLONE_THREAD)
		return;
	if (clone_flags & RF_CLONE_FILES)
		__sync_fetch_and_or(state, RF_STATE_SHARES_FILES);
	if (!(clone_flags & RF_CLONE_VM) || *state & RF_STATE_SHARES)
		return;
	if (clone_flags & RF_CLONE_VFORK && BPF_CORE_READ(parent, signal, live.counter) <= 1)
		return;
	__sync_fetch_and_or(state, RF_STATE_SHARES);
}

/*
 * The same for a task that ran before the agent: nobody has seen its clone. Both counts may be too
 * high for a moment: if something looks at the memory in /proc, or a thread starts or ends.
 */
static __always_inline void rf_note_shared_before(struct rf_container *container,
						  const struct task_struct *task)
{
	__s32 live = BPF_CORE_READ(task, signal, live.counter);

	if (BPF_CORE_READ(task, mm, mm_users.counter) > live)
		__sync_fetch_and_or(&container->state, RF_STATE_SHARES);
	if (BPF_CORE_READ(task, files, count.counter) > live)
		__sync_fetch_and_or(&container->state, RF_STATE_SHARES_FILES);
}

/* Returns true exactly once per container. */
static __always_inline bool rf_mark_condemned(struct rf_container *container)
{
	__u32 zero = 0, *state = &container->state;
	__u64 *count;

	if (__sync_fetch_and_or(state, RF_STATE_CONDEMNED) & RF_STATE_CONDEMNED)
		return false;
	count = bpf_map_lookup_elem(&condemned, &zero);
	if (count)
		__sync_fetch_and_add(count, 1);
	return true;
}

/* The slot is about to be cleared. */
static __always_inline void rf_forget_condemned(const struct rf_container *container)
{
	__u32 zero = 0;
	__u64 *count;

	if (!rf_is_condemned(container))
		return;
	count = bpf_map_lookup_elem(&condemned, &zero);
	if (count)
		__sync_fetch_and_add(count, -1);
}

#endif
