/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The one door out: reserve, zero (ring memory holds older records), header, submit.
 * A record that does not leave is counted by kind, reason and container.
 */
#ifndef RINGFENCE_EMIT_H
#define RINGFENCE_EMIT_H

#include "maps.h"
#include "task.h"

#define RF_ROUTE_NONE 0
#define RF_ROUTE_ACTIVITY 1
#define RF_ROUTE_ALERTS 2

/* task.bpf.c: counts a record that does not leave. */
int rf_drop(__u32 event, __u32 reason, __u32 slot);

static __always_inline void rf_count(__u32 slot, __u32 counter)
{
	struct rf_counters *mine = bpf_map_lookup_elem(&counters, &slot);

	if (mine && counter < RF_COUNTERS)
		__sync_fetch_and_add(&mine->n[counter], 1); /* a program may be preempted by another on its CPU */
}

/*
 * task.bpf.c: where a record goes: verdicts to the alerts ring, the rest where `observe` says. This is about reporting
 * only: a verdict is carried out whether it is reported or not.
 */
__u32 rf_route_rule(__u32 event, __u32 slot, struct rf_container *container, __u32 action, __u32 rule);

static __always_inline __u32 rf_route(__u32 event, __u32 slot, struct rf_container *container, __u32 action)
{
	return rf_route_rule(event, slot, container, action, RF_NO_RULE);
}

static __always_inline void *rf_reserve(__u32 event, __u32 slot, __u32 route, const __u64 size)
{
	void *record;

	if (route == RF_ROUTE_ALERTS)
		record = bpf_ringbuf_reserve(&alerts, size, 0);
	else
		record = bpf_ringbuf_reserve(&activity, size, 0);
	if (!record) {
		rf_drop(event, RF_DROP_RING_FULL, slot);
		return NULL;
	}
	return record;
}

/* A zeroed record of a struct of events.h; NULL: counted. */
#define RF_RECORD(type, event, slot, route)                                                  \
	({                                                                                   \
		struct type *__record = rf_reserve(event, slot, route, sizeof(struct type)); \
		if (__record)                                                                \
			__builtin_memset(__record, 0, sizeof(struct type));                  \
		__record;                                                                    \
	})

static __always_inline void rf_submit(void *record, __u32 event)
{
	__u64 *count = bpf_map_lookup_elem(&emitted, &event);

	if (count)
		__sync_fetch_and_add(count, 1); /* exact: emitted = received + in the ring */
	bpf_ringbuf_submit(record, 0);
}

/* Everything of a header but the verdict. `bound` may be NULL: the subject is no armed task. */
rf_subprogram void rf_header(struct rf_header *header, __u32 event, struct task_struct *task,
			     const struct rf_task *bound)
{
	struct rf_pid_numbers numbers;
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	const struct cred *cred = BPF_CORE_READ(task, cred);

	header->event = event;
	header->version = RF_ABI_VERSION;
	header->rule = RF_NO_RULE;
	header->slot = RF_NO_SLOT;
	header->time_ns = bpf_ktime_get_boot_ns();
	header->start_ns = BPF_CORE_READ(leader, start_boottime);
	header->pid = task->tgid;
	header->tid = task->pid;
	header->ppid = BPF_CORE_READ(leader, real_parent, tgid);
	header->uid = BPF_CORE_READ(cred, uid.val);
	header->gid = BPF_CORE_READ(cred, gid.val);
	rf_pid_numbers(task, &numbers);
	header->vpid = numbers.nr;
	bpf_probe_read_kernel(header->comm, sizeof(header->comm), &task->comm);
	if (bound) {
		header->slot = bound->slot;
		header->container = bound->container;
	}
}

#endif
