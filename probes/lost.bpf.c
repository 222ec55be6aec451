// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Lost tasks: see lost.h. A child returns to user space by the exit of the call that made it, so
 * the programs there are the first that it reaches. They are attached where no hook refuses forks.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/drift.h"
#include "include/lost.h"
#include "include/membership.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline __u64 *rf_lost_entries(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&lost_count, &zero);
}

__noinline int rf_lose(const struct rf_lost *lost, __u32 tid)
{
	__u64 *count = rf_lost_entries();
	struct rf_lost copy, *known;

	if (!lost || !count)
		return 0;
	__builtin_memcpy(&copy, lost, sizeof(copy));
	known = bpf_map_lookup_elem(&lost_tasks, &tid);
	if (known && known->start_ns == copy.start_ns) { /* by the other program that follows */
		known->kill_pending |= copy.kill_pending;
		return 1;
	}
	rf_drop(RF_PROCESS_FORK, RF_DROP_TABLE_FULL, copy.task.slot);
	if (known) /* of a task that has ended */
		return !bpf_map_update_elem(&lost_tasks, &tid, &copy, BPF_EXIST);
	if (bpf_map_update_elem(&lost_tasks, &tid, &copy, BPF_NOEXIST))
		return 0;
	__sync_fetch_and_add(count, 1);
	return 1;
}

__noinline int rf_forget_lost(__u32 tid)
{
	__u64 *count = rf_lost_entries();

	if (count && !bpf_map_delete_elem(&lost_tasks, &tid))
		__sync_fetch_and_add(count, -1);
	return 0;
}

/* The table has no place: the children that are not in it are found by their cgroup. */
static __always_inline int rf_settle_unnoted(struct task_struct *task)
{
	__u64 *count = rf_lost_entries();
	struct rf_armed *armed = rf_bound(task);
	__u32 slot;

	if (!count || *count < RF_LOST_MAX || (armed && armed->task.container) || rf_is_agent(task))
		return 0;
	slot = rf_slot_by_cgroup(rf_address(task));
	return rf_is_slot(slot) ? rf_refuse_current(slot) : 0;
}

__noinline int rf_settle_lost(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_lost *lost, copy;
	struct rf_armed *armed;
	__u32 tid = task->pid;

	lost = bpf_map_lookup_elem(&lost_tasks, &tid);
	if (!lost || lost->start_ns != BPF_CORE_READ(task, start_boottime))
		return rf_settle_unnoted(task);
	__builtin_memcpy(&copy, lost, sizeof(copy));
	container = rf_container_of(&copy.task);
	if (!container) {
		rf_forget_lost(tid);
		return 0;
	}
	armed = rf_bind(task, container, &copy.task);
	if (copy.kill_pending || (!armed && !rf_bound(task)))
		return rf_refuse_current(copy.task.slot);
	if (!armed) { /* the iterator has bound it */
		rf_forget_lost(tid);
		return 1;
	}
	armed->container_root = copy.container_root;
	rf_drift_watch(task, armed);
	rf_enter_binding(task, armed, container);
	rf_forget_lost(tid);
	return 1;
}

#define RF_BORN_BY(call)                           \
	SEC("tracepoint/syscalls/sys_exit_" #call) \
	int born_by_##call(void *ctx)              \
	{                                          \
		rf_settle_current();               \
		return 0;                          \
	}

RF_BORN_BY(clone)
RF_BORN_BY(clone3)
RF_BORN_BY(fork)
RF_BORN_BY(vfork)
