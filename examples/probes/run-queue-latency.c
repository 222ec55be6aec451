/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How long a task waits for a processor after it could run: the time from wake-up (or from losing the CPU while it
 * still wanted it) to running. High values mean that the node is overcommitted or the container is throttled.
 */
#include "ringfence.h"

struct wait {
	struct rf_task task;
	u64 latency_us;
	u32 cpu;
	u32 before; /* pid of the task that ran there before */
};

BPF_TABLE("lru_hash", u32, u64, since, 65536);

static inline void begin(u32 tid)
{
	u64 now = bpf_ktime_get_ns();

	if (tid)
		since.update(&tid, &now);
}

RAW_TRACEPOINT_PROBE(sched_wakeup)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];

	begin(task->pid);
	return 0;
}

RAW_TRACEPOINT_PROBE(sched_wakeup_new)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];

	begin(task->pid);
	return 0;
}

RAW_TRACEPOINT_PROBE(sched_switch)
{
	struct task_struct *prev = (struct task_struct *)ctx->args[1];
	struct task_struct *next = (struct task_struct *)ctx->args[2];
	struct wait e = {};
	u32 tid = next->pid;

	/* Preempted: it still wants to run. */
	if (prev->__state == TASK_RUNNING)
		begin(prev->pid);
	u64 *then = since.lookup(&tid);

	if (!then)
		return 0;
	e.latency_us = (bpf_ktime_get_ns() - *then) / 1000;
	since.delete(&tid);
	if (e.latency_us < MIN_US || !rf_identify(&e.task, next))
		return 0;
	e.cpu = bpf_get_smp_processor_id();
	e.before = prev->tgid;
	rf_send(&e);
	return 0;
}
