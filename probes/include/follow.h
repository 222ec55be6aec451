/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Following tasks a second time. From Linux 7 on, a program at a tracepoint (tp_btf) may be
 * preempted, and then the kernel skips it for every other task that passes on that CPU. So tasks
 * are bound twice. The programs of process.bpf.c also report and count. Others are never skipped:
 * those at LSM hooks (lsm_follow.bpf.c), or, without these, those at the same tracepoints by perf,
 * which disables preemption (follow.bpf.c). The second one finds the work done.
 */
#ifndef RINGFENCE_FOLLOW_H
#define RINGFENCE_FOLLOW_H

#include "exec.h"
#include "exec_binding.h"

/*
 * Binds a child as its parent is bound, and does not count it. `start_ns` 0: it has not started.
 * Returns the child's binding, even if another program made it.
 */
static __always_inline struct rf_armed *rf_follow_child(struct task_struct *child,
							const struct rf_armed *parent,
							struct rf_container *container,
							__u64 start_ns)
{
	struct rf_armed *armed;
	struct rf_task like;

	__builtin_memcpy(&like, &parent->task, sizeof(like));
	like.start_ns = start_ns;
	armed = rf_bind(child, container, &like);
	if (!armed)
		return rf_bound(child);
	rf_inherit(armed, parent);
	return armed;
}

/*
 * The current task has become the program `file`. No earlier hook decided the first program of a
 * container, as no task was armed yet: it is killed here if a rule demands it, and
 * sched_process_exec reports it. `early`: its environment cannot be read yet, and the process
 * counts as borrowed until sched_process_exec has read it.
 */
static __always_inline void rf_follow_exec(struct task_struct *task, __u64 file, const bool early)
{
	struct rf_exec_binding binding = {};
	struct rf_container *container;
	struct rf_query query;
	struct rf_scratch *buffer;
	struct rf_armed *armed;
	struct rf_file exe;
	int is_bound;

	container = rf_exec_container(task, &binding);
	if (!container)
		return;
	armed = rf_bound(task);
	buffer = rf_exec_buffer(armed);
	rf_exec_program(task, &binding, buffer, &exe, file);
	is_bound = rf_bind_exec(&binding);
	armed = rf_bound(task);
	if (armed && armed->task.container) {
		rf_settle_namespaces(task, &binding, armed);
		armed->armed_by_exec = binding.newly_armed && is_bound;
		rf_count_task(task, armed, container, false);
		if (binding.newly_armed && buffer) {
			rf_exec_query(&query, task, &armed->task, container, &exe, buffer);
			rf_evaluate(&query, task, &armed->task, NULL);
			rf_enforce(&query);
		} else if (binding.newly_armed) {
			rf_exec_fail_no_scratch(&query, task, &armed->task, container, &exe,
						RF_MECHANISM_KILL);
		}
	}
	rf_exec_done(task, buffer, early);
}

#endif
