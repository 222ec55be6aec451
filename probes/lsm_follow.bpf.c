// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Following tasks at hooks, which the kernel never skips: see follow.h. With these hooks, no task
 * of a container is ever without its container, and none keeps the program that it has left.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/follow.h"
#include "include/lsm.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_ENOMEM 12

/*
 * Without memory to bind the child, the fork fails: no task of a container is ever without it.
 */
static __always_inline int rf_refuse_fork(const struct rf_armed *parent)
{
	int refused = -RF_ENOMEM;

	if (!config.refuse_unbound) /* noted at task_newtask */
		return 0;
	rf_count(parent->task.slot, RF_COUNT_REFUSED);
	barrier_var(refused); /* see rf_lsm_refused */
	return refused;
}

/*
 * The fork may still fail: then the binding goes with the child. The child has no number, no
 * namespaces and no start time yet. A program at task_newtask adds what exists by then, and counts
 * the child.
 */
SEC("lsm/task_alloc")
int BPF_PROG(follow_task_alloc, struct task_struct *child, unsigned long clone_flags, int ret)
{
	struct rf_container *container;
	struct rf_armed *armed;

	if (ret)
		return ret;
	armed = rf_bound(bpf_get_current_task_btf());
	container = armed ? rf_container_of(&armed->task) : NULL;
	if (!container)
		return 0;
	if (rf_is_condemned(container))
		return rf_lsm_refused();
	if (rf_follow_child(child, armed, container,
			    clone_flags & RF_CLONE_THREAD ? armed->task.start_ns : 0))
		return 0;
	return rf_refuse_fork(armed);
}

/* The task has the credentials and the memory of the new program. */
SEC("lsm/bprm_committed_creds")
int BPF_PROG(follow_exec, struct linux_binprm *binprm)
{
	rf_follow_exec(bpf_get_current_task_btf(), (__u64)BPF_CORE_READ(binprm, file), true);
	return 0;
}
