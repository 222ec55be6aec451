/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a probe of the operator's own (bcc dialect) has beside what bcc gives it. It is put before every
 * probe; #include "ringfence.h" is allowed and does nothing.
 *
 *   struct rf_task            who it was; a member `task` of the event, for `container: task`
 *   rf_identify(&e.task, t)   fill it in for a task; 0 where that belongs to no container
 *   rf_identify_current(&e.task)
 *   rf_container()            id of the container's cgroup of the current task, 0: the host's
 *   rf_container_of(t)        the same of another task
 *   rf_read(p->member)        a member of a kernel struct, wherever the pointer came from
 *   rf_send(&e)               the one door out: sampled, rate limited, every loss counted
 *
 * The id of a container is that of the agent's own events. On hosts with cgroup version 1 it lies in the hierarchy
 * that runtimes use, which bpf_get_current_cgroup_id() does not see: that name means rf_container() here.
 */
#include <linux/sched.h>
#include <linux/cgroup.h>

#define RF_INLINE static inline __attribute__((always_inline, unused))
#define bpf_get_current_cgroup_id() rf_container()

/* bcc itself only follows pointers that it has seen come from the hook's arguments. */
#define rf_read(expression)                                                        \
	({                                                                         \
		__typeof__(expression) rf_value;                                   \
		__builtin_memset(&rf_value, 0, sizeof(rf_value));                  \
		bpf_probe_read_kernel(&rf_value, sizeof(rf_value), &(expression)); \
		rf_value;                                                          \
	})

struct rf_task {
	u64 container;
	u64 start_ns; /* of the process, CLOCK_BOOTTIME: with its pid it names one process for ever */
	u32 pid;
	u32 tid;
	char comm[16];
};

enum { RF_SENT, RF_SAMPLED, RF_LIMITED, RF_FULL, RF_HOST, RF_COUNTS };

struct rf_window {
	u64 number;
	u64 used;
};

/* The time in which this version of the probe sends events, CLOCK_BOOTTIME: `from` inclusive, `until` exclusive.
 * from 0: not yet; until 0: no end. Two versions can be attached at once, and only one of them reports an event. */
struct rf_term {
	u64 from;
	u64 until;
};

BPF_RINGBUF_OUTPUT(rf_ring, RF_RING_PAGES);
BPF_PERCPU_ARRAY(rf_counts, u64, RF_COUNTS);
BPF_ARRAY(rf_terms, struct rf_term, 1);
BPF_ARRAY(rf_node_window, struct rf_window, 1);
BPF_TABLE("lru_hash", u64, struct rf_window, rf_windows, RF_WINDOWS); /* by container */

#define RF_LEVELS 16 /* that a task's cgroup may lie below its container's */

#ifdef RF_MAPS
/* The agent's own tables: tasks that run a container's code, cgroups of containers, containers. */
struct rf_binding {
	u64 container;
	u32 slot;
	u32 facts;
	u64 exe_hash;
	u64 start_ns;
};
BPF_TABLE_PINNED("hash", u32, struct rf_binding, rf_processes, 65536, RF_MAPS "/processes");
BPF_TABLE_PINNED("hash", u64, u32, rf_cgroups, 32768, RF_MAPS "/containers");
BPF_TABLE_PINNED("array", u32, u64, rf_slots, 4096, RF_MAPS "/slots");
#endif

RF_INLINE void rf_count(u32 which)
{
	u64 *count = rf_counts.lookup(&which);

	/* An interrupt may run another program of the probe between the read and the write. */
	if (count)
		lock_xadd(count, 1);
}

/* The cgroup that says whose a task is, in the hierarchy that the agent chose. */
RF_INLINE struct cgroup *rf_its_cgroup(struct task_struct *task)
{
	struct css_set *set = NULL;
	struct cgroup *cgroup = NULL;

	bpf_probe_read_kernel(&set, sizeof(set), &task->cgroups);
#ifdef RF_SUBSYS
	struct cgroup_subsys_state *css = NULL;

	bpf_probe_read_kernel(&css, sizeof(css), &set->subsys[RF_SUBSYS]);
	bpf_probe_read_kernel(&cgroup, sizeof(cgroup), &css->cgroup);
#else
	bpf_probe_read_kernel(&cgroup, sizeof(cgroup), &set->dfl_cgrp);
#endif
	return cgroup;
}

RF_INLINE u64 rf_cgroup_id(struct cgroup *cgroup)
{
	struct kernfs_node *node = NULL;
	u64 id = 0;

	bpf_probe_read_kernel(&node, sizeof(node), &cgroup->kn);
	bpf_probe_read_kernel(&id, sizeof(id), &node->id);
	return id;
}

RF_INLINE u64 rf_container_of(struct task_struct *task)
{
#ifdef RF_MAPS
	u32 tgid = 0;

	bpf_probe_read_kernel(&tgid, sizeof(tgid), &task->tgid);
	struct rf_binding *bound = rf_processes.lookup(&tgid);

	if (bound)
		return bound->container;
	struct cgroup *cgroup = rf_its_cgroup(task);

	/* The agent knows a container's own cgroup; what lies below is found from there upwards. */
#pragma unroll
	for (int level = 0; level < RF_LEVELS; level++) {
		struct cgroup_subsys_state *above = NULL;
		u64 id = rf_cgroup_id(cgroup);
		u32 *found = rf_cgroups.lookup(&id);

		if (found) {
			u32 slot = *found;
			u64 *container = rf_slots.lookup(&slot);

			return container ? *container : 0;
		}
		bpf_probe_read_kernel(&above, sizeof(above), &cgroup->self.parent);
		if (!above)
			return 0;
		cgroup = (struct cgroup *)((char *)above - __builtin_offsetof(struct cgroup, self));
	}
	return 0;
#else
	return rf_cgroup_id(rf_its_cgroup(task));
#endif
}

RF_INLINE u64 rf_container(void)
{
	return rf_container_of((struct task_struct *)bpf_get_current_task());
}

RF_INLINE int rf_identify(struct rf_task *who, struct task_struct *task)
{
	struct task_struct *leader = NULL;

	who->container = rf_container_of(task);
	bpf_probe_read_kernel(&leader, sizeof(leader), &task->group_leader);
	bpf_probe_read_kernel(&who->start_ns, sizeof(who->start_ns), &leader->start_boottime);
	bpf_probe_read_kernel(&who->pid, sizeof(who->pid), &task->tgid);
	bpf_probe_read_kernel(&who->tid, sizeof(who->tid), &task->pid);
	bpf_probe_read_kernel(&who->comm, sizeof(who->comm), &task->comm);
	return who->container != 0;
}

RF_INLINE int rf_identify_current(struct rf_task *who)
{
	return rf_identify(who, (struct task_struct *)bpf_get_current_task());
}

/*
 * 1 where the window's places are taken. It is one window for all CPUs, and they may race for its last places: then a
 * few events more pass, and are counted.
 */
RF_INLINE int rf_full(struct rf_window *window, u64 number, u64 places)
{
	if (window->number != number) {
		window->number = number;
		window->used = 0;
	}
	if (window->used >= places)
		return 1;
	lock_xadd(&window->used, 1);
	return 0;
}

/* A container first: what it has too much of takes no place of the others'. */
RF_INLINE int rf_limited(u64 now, u64 container)
{
#if RF_WINDOW_EVENTS
	struct rf_window none = {};
	struct rf_window *window = rf_windows.lookup_or_try_init(&container, &none);
	u64 number = now / RF_WINDOW_NS;
	u32 zero = 0;

	if (window && rf_full(window, number, RF_WINDOW_EVENTS))
		return 1;
	window = rf_node_window.lookup(&zero);
	return window && rf_full(window, number, RF_WINDOW_EVENTS * RF_WINDOW_CONTAINERS);
#else
	return 0;
#endif
}

RF_INLINE int rf_drop(u32 why)
{
	rf_count(why);
	return 0;
}

RF_INLINE int rf_emit(void *event, u64 size, u64 container)
{
	u64 now = bpf_ktime_get_boot_ns();
	u32 zero = 0;
	struct rf_term *term = rf_terms.lookup(&zero);

	/* The other version counts it. */
	if (!term || !term->from || now < term->from || (term->until && now >= term->until))
		return 0;
#if RF_SAMPLE > 1
	if (bpf_get_prandom_u32() % RF_SAMPLE)
		return rf_drop(RF_SAMPLED);
#endif
	if (rf_limited(now, container))
		return rf_drop(RF_LIMITED);
	char *record = rf_ring.ringbuf_reserve(sizeof(now) + size);

	if (!record)
		return rf_drop(RF_FULL);
	*(u64 *)record = now;
	bpf_probe_read_kernel(record + sizeof(now), size, event);
	rf_ring.ringbuf_submit(record, 0);
	rf_count(RF_SENT);
	return 1;
}

#ifdef RF_OWNER
#define rf_owner(e) ((e)->RF_OWNER)
#else
#define rf_owner(e) 0 /* only the agent can say */
#endif
#ifdef RF_DROP_HOST
#define rf_of_host(e) (!rf_owner(e))
#else
#define rf_of_host(e) 0
#endif

/* 1 where the event was sent; 0 where it was left out, which is counted. */
#define rf_send(e)                                                                                                 \
	({                                                                                                         \
		_Static_assert(                                                                                    \
			__builtin_types_compatible_p(__typeof__(*(e)), struct RF_EVENT),                           \
			"rf_send() takes a pointer to the struct that `event` of the YAML names: " RF_EVENT_NAME); \
		rf_of_host(e) ? rf_drop(RF_HOST) : rf_emit((e), sizeof(*(e)), rf_owner(e));                        \
	})
