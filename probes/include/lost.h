/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tasks that could not be bound, because there was no memory for it. Where a hook decides, a fork
 * without memory fails (lsm_follow.bpf.c). Elsewhere the child exists already: it is noted here, in
 * memory that was taken before, and settled before it returns to user space: bound if there is
 * memory by then, else killed. The same at its next call or open, should that have been skipped.
 */
#ifndef RINGFENCE_LOST_H
#define RINGFENCE_LOST_H

#include "lifecycle.h"

/* Notes a task, and counts the loss. Returns 0 if there is no place for it. */
int rf_lose(const struct rf_lost *lost, __u32 tid);
/* Binds the current task if it is a lost one, or kills it. */
int rf_settle_lost(void);
/* Forgets a task that has ended. */
int rf_forget_lost(__u32 tid);

/* Called before the current task's binding is looked up. */
static __always_inline void rf_settle_current(void)
{
	if (rf_any_lost())
		rf_settle_lost();
}

/*
 * A child of a bound task could not be bound. If it cannot even be noted, its parent is killed, and
 * the child is judged by its cgroup when it returns to user space.
 */
rf_subprogram int rf_lose_child(struct task_struct *child, const struct rf_armed *parent,
				__u64 start_ns, bool kill)
{
	struct rf_lost lost = {};

	__builtin_memcpy(&lost.task, &parent->task, sizeof(lost.task));
	lost.task.start_ns = start_ns;
	lost.container_root = parent->container_root;
	lost.start_ns = BPF_CORE_READ(child, start_boottime);
	lost.kill_pending = kill;
	if (!rf_lose(&lost, child->pid) && config.refuse_unbound)
		bpf_send_signal(9);
	return 0;
}

#endif
