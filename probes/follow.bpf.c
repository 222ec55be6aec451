// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Following tasks at tracepoints by perf, which the kernel does not skip as it does tp_btf: see
 * follow.h. For kernels that preempt those, if there are no hooks.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/follow.h"
#include "include/lost.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * 3f0e6f2b41d3, 6.2; for programs of this kind bc638d8cb5be, 6.12. The record has only the child's
 * number.
 */
extern struct task_struct *bpf_task_from_pid(s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;

SEC("tracepoint/task/task_newtask")
int follow_newtask(struct trace_event_raw_task_newtask *ctx)
{
	struct task_struct *parent = bpf_get_current_task_btf(), *child;
	struct rf_container *container;
	struct rf_armed *armed, *of_child;
	__u64 start_ns;

	armed = rf_bound(parent);
	container = armed ? rf_container_of(&armed->task) : NULL;
	if (!container)
		return 0;
	child = bpf_task_from_pid(ctx->pid);
	if (!child)
		return 0;
	start_ns = BPF_CORE_READ(child, group_leader, start_boottime);
	of_child = rf_follow_child(child, armed, container, start_ns);
	if (!of_child)
		rf_lose_child(child, armed, start_ns, false);
	else if (of_child->counted == RF_COUNTED_NOT_YET)
		rf_complete_binding(child, of_child, container, false);
	bpf_task_release(child);
	return 0;
}

SEC("tracepoint/sched/sched_process_exec")
int follow_process_exec(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	rf_follow_exec(task, (__u64)BPF_CORE_READ(task, mm, exe_file), false);
	return 0;
}
