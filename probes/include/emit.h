/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The only way out for records: reserve, zero (ring memory holds older records), header, submit. A
 * record that is not delivered is counted by kind, reason and container. Counters and their maps
 * are here as well.
 */
#ifndef RINGFENCE_EMIT_H
#define RINGFENCE_EMIT_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "tasks.h"
#include "task_facts.h"

enum rf_counter_limit {
	RF_COUNTERS = 32,
};

/* Per event: whether it is emitted when no rule matched. */
enum rf_observe {
	RF_OBSERVE_OFF = 0,
	RF_OBSERVE_ACTIVITY = 1, /* to the activity ring, rate limited by container */
	RF_OBSERVE_ALERTS = 2,	 /* to the alerts ring */
};

struct map_observe {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_EVENT_MAX);
	__type(key, __u32);
	__type(value, __u32);
};
extern struct map_observe observe SEC(".maps");

struct map_alerts {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20); /* (agent) */
};
extern struct map_alerts alerts SEC(".maps");

struct map_activity {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20); /* (agent) */
};
extern struct map_activity activity SEC(".maps");

/* Records submitted, by event: emitted = received + still in the ring. */
struct map_emitted {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RF_EVENT_MAX);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct map_emitted emitted SEC(".maps");

/*
 * How often the activity rate is halved now, for all containers. The agent lowers the rate before
 * it falls behind.
 */
struct map_halvings {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
};
extern struct map_halvings halvings SEC(".maps");

struct rf_drop_key {
	__u16 event;
	__u16 reason; /* enum rf_drop */
	__u32 slot;
};

struct map_drops {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct rf_drop_key);
	__type(value, __u64);
};
extern struct map_drops drops SEC(".maps");

/*
 * Drops that do not fit `drops`, without the container: by event * RF_DROP_MAX + reason. Never
 * full.
 */
struct map_drops_unnamed {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_EVENT_MAX *RF_DROP_MAX);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct map_drops_unnamed drops_unnamed SEC(".maps");

/* Activity counters of a container, per CPU, read at scrape. They are not events. */
enum rf_counter {
	RF_COUNT_NONE = 0,
	RF_COUNT_FORK = 1,
	RF_COUNT_EXEC = 2,
	RF_COUNT_EXIT = 3,
	RF_COUNT_OPEN = 4,
	RF_COUNT_CONNECT = 5,
	RF_COUNT_BIND = 6,
	RF_COUNT_SENDMSG = 7,
	RF_COUNT_DEVICE = 8,
	RF_COUNT_SYSCTL = 9,
	RF_COUNT_REFUSED = 10, /* forks and first programs, as there was no memory to bind them */
	/* system calls by class; only those that are events */
	RF_COUNT_SYS_NAMESPACE = 16,
	RF_COUNT_SYS_MOUNT = 17,
	RF_COUNT_SYS_TRACE = 18,
	RF_COUNT_SYS_KERNEL = 19, /* bpf, perf, modules, kexec, reboot, syslog ... */
	RF_COUNT_SYS_CREDENTIAL = 20,
	RF_COUNT_SYS_FILE = 21,
	RF_COUNT_SYS_MEMORY = 22,
	RF_COUNT_SYS_SOCKET = 23,
	RF_COUNT_SYS_KEYRING = 24,
	RF_COUNT_SYS_PROCESS = 25, /* clone family */
	RF_COUNT_ALERT = 28,
	RF_COUNT_KILL = 29,
	RF_COUNT_DENY = 30,
};

struct rf_counters {
	__u64 n[RF_COUNTERS];
};

struct map_counters {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4096); /* (agent): as slots */
	__type(key, __u32);
	__type(value, struct rf_counters);
};
extern struct map_counters counters SEC(".maps");

#define RF_ROUTE_NONE 0
#define RF_ROUTE_ACTIVITY 1
#define RF_ROUTE_ALERTS 2

/* Counts a record that is not delivered. */
int rf_drop(__u32 event, __u32 reason, __u32 slot);

/* Counts an alert of the container, and the action that was enforced. */
int rf_count_action(__u32 slot, __u32 action);

static __always_inline void rf_count(__u32 slot, __u32 counter)
{
	struct rf_counters *mine = bpf_map_lookup_elem(&counters, &slot);

	if (mine && counter < RF_COUNTERS)
		__sync_fetch_and_add(&mine->n[counter],
				     1); /* a program may be preempted by another on its CPU */
}

/*
 * Where a record goes: verdicts to the alerts ring, the rest where `observe` says. This concerns
 * reporting only: a verdict is enforced whether it is reported or not.
 */
__u32 rf_route_rule(__u32 event, __u32 slot, struct rf_container *container, __u32 action,
		    __u32 rule);

static __always_inline __u32 rf_route(__u32 event, __u32 slot, struct rf_container *container,
				      __u32 action)
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

/* A zeroed record of a struct of events.h; NULL: the drop is counted. */
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

/*
 * Fills a header except for the verdict. `bound` may be NULL: the subject is not an armed task.
 * Always returns 0.
 */
int rf_fill_header(struct rf_header *header, __u32 event, __u64 task, const struct rf_task *bound);

static __always_inline void rf_header(struct rf_header *header, __u32 event,
				      struct task_struct *task, const struct rf_task *bound)
{
	rf_fill_header(header, event, rf_address(task), bound);
}

#endif
