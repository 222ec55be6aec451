// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Following tasks at hooks. From 6.13 on a program at a tracepoint may be preempted, and then the kernel skips it for every
 * other task that comes by on that CPU; programs at hooks it never skips. So where there are hooks, no task of a
 * container is ever without its container, and none keeps the program that it has left: what tracepoints do beyond that
 * (process.bpf.c) is to tell, to count, and to look for what only they can see.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/become.h"
#include "include/exec.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_CLONE_THREAD 0x10000

/*
 * The fork may still fail: then what is kept here goes with the child. It has no number, no namespaces and no start yet: a
 * program at task_newtask adds what it can have by then, and counts it.
 */
SEC("lsm/task_alloc")
int BPF_PROG(follow_task_alloc, struct task_struct *child, unsigned long clone_flags, int ret)
{
	struct rf_task *bound, *of_child, like;
	struct rf_container *container;

	if (ret)
		return ret;
	bound = rf_bound(bpf_get_current_task_btf());
	if (!bound)
		return 0;
	container = rf_container_of(bound);
	if (!container)
		return 0;
	__builtin_memcpy(&like, bound, sizeof(like));
	if (!(clone_flags & RF_CLONE_THREAD))
		like.start_ns = 0;
	of_child = rf_bind(child, container, &like);
	if (!of_child)
		return 0;
	((struct rf_armed *)of_child)->home = ((struct rf_armed *)bound)->home;
	__builtin_memcpy(&((struct rf_armed *)of_child)->identity, &((struct rf_armed *)bound)->identity,
			 sizeof(struct rf_identity));
	return 0;
}

/*
 * Who comes here has the credentials and the memory of the new program. No hook before was asked about the first program of
 * a container, as nobody was armed yet: here it is killed, if a rule says so, and sched_process_exec tells of it.
 */
SEC("lsm/bprm_committed_creds")
int BPF_PROG(follow_exec, struct linux_binprm *binprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_becomes becomes = {};
	struct rf_container *container;
	struct rf_question question;
	struct rf_scratch *buffer;
	struct rf_task *bound;
	struct rf_file exe;
	int became;

	container = rf_who_executes(task, &becomes);
	if (!container)
		return 0;
	buffer = rf_scratch_get();
	rf_what_is_executed(task, &becomes, buffer, &exe, (__u64)BPF_CORE_READ(binprm, file));
	became = rf_become(&becomes);
	bound = rf_bound(task);
	if (bound && bound->container) {
		((struct rf_armed *)bound)->fresh = becomes.arms && became;
		rf_counted(task, bound, container, false);
		if (buffer && becomes.arms) {
			rf_ask_exec(&question, task, bound, container, &exe, buffer);
			rf_judge(&question, task, bound, NULL);
			rf_carry_out(&question);
		}
	}
	if (buffer)
		rf_scratch_put(buffer);
	return 0;
}
