/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Armed tasks: what is stored with each, and how programs find it. */
#ifndef RINGFENCE_TASKS_H
#define RINGFENCE_TASKS_H

#include "compat.h"
#include "config.h"
#include "containers.h"
#include "scratch.h"

/*
 * Task storage exists only for armed tasks. It is inherited at fork and kept when the task moves.
 */
struct rf_task {
	__u64 container; /* id of the container's own cgroup */
	__u32 slot;
	__u32 facts;	/* RF_FACT_*; refreshed at exec and where credentials may change */
	__u64 exe_hash; /* FNV-1a of the program's path */
	__u64 start_ns; /* of the thread group */
};

/*
 * An open of this thread that no rule can match, whatever the file's name: the next one like it is
 * not evaluated. Kept with the task, so that no other task writes here; cleared at exec.
 */
#define RF_MEMOS 4
struct rf_memo {
	__u64 generation; /* 0: empty */
	__u64 fs_magic;
	__u64 type; /* operand 2 of file.open */
	__u32 flags;
	__u32 profile;
};

/* The identity of a task at its last check: see drift.bpf.c. Addresses are only compared. */
#define RF_NAMESPACES 6
struct rf_identity {
	__u64 cred; /* 0: not watched */
	__u64 nsproxy;
	__u64 user_ns;
	__u64 namespaces[RF_NAMESPACES];
	__u64 permitted;
	__u64 effective;
	__u32 uid[4]; /* real, saved, effective, of the filesystem */
	__u32 borrowed;
	__u32 kill_pending; /* it should not exist: killed when it is seen next, watched or not */
};

/*
 * The last call of this thread that a hook decided. One call may reach several hooks, and is
 * reported once: see lsm_call.bpf.c.
 */
struct rf_last_call {
	__u64 call; /* a hash of its registers */
	__u64 time_ns;
	__u64 reported; /* a hash of the verdict that was reported */
};

/*
 * rf_armed.counted: whether the container's task count includes a task. Not yet: a hook has bound
 * it, and the fork may still fail; or the program at task_newtask was skipped.
 */
#define RF_COUNTED_NOT_YET 0
#define RF_COUNTED 1
#define RF_COUNTED_ENDED 2

/*
 * How the call in progress reached what it opens: see look.h. A call is known by the hash of its
 * registers.
 */
struct rf_reached {
	__u64 call;  /* it looked into a process that is not of the container */
	__u64 opens; /* it has come to the open of a file of /proc/PID */
	__u64 time_ns;
};

/* Storage for queries that do not fit the stack of a program that checks its own task. Not kept. */
#define RF_QUERY_STORAGE_WORDS 32

/* The unix socket that this thread is connecting, for the exit of the call: see unix_server.bpf.c.
 */
struct rf_connecting {
	__u64 sock;
	__u32 reported; /* the rule that was reported when the call began */
	__u32 pad;
};

struct rf_armed {
	struct rf_task task;
	struct rf_identity identity;
	struct rf_last_call last_call;
	struct rf_connecting connecting;
	/* root directory of the container, as a dentry's address; only compared */
	__u64 container_root;
	__u32 counted;	       /* RF_COUNTED_* */
	__u32 armed_by_exec;   /* the exec in progress has armed it */
	__u32 entering;	       /* it has called setns since its last check */
	__u32 refused_entries; /* refusals of a namespace of the host */
	__u64 entering_ns;     /* the namespace that setns is about to enter: setns.bpf.c */
	__u32 pad;
	__u32 began_unbound; /* the call that was in progress when it was bound: see files.bpf.c */
	/*
	 * Of a task that is in a container's cgroup and mounts, but not armed (task.container is
	 * 0): since when, and since when outside of the host's root. See unarmed.h.
	 */
	__u64 seen_ns;
	__u64 left_ns;
	__u64 query_storage[RF_QUERY_STORAGE_WORDS];
	struct rf_reached reached;
	struct rf_memo memo[RF_MEMOS];
	struct rf_scratch scratch; /* the task's own: taken by rf_scratch_claim() */
	__u32 backstop;		   /* a backstop judges it: backstop.h */
	__u32 backstop_event;	   /* what it kills for */
	__u64 reserved[4];
};
/*
 * The next agent, perhaps of another build, reads `task` (rf_bound_before). The kernel lends it
 * only a table of the same size, so the size stays, and `task` stays as it is at the beginning. The
 * size is what kmalloc-2k holds (tests/abi/test_task_storage.py).
 */
#define RF_ARMED_BYTES 1904
_Static_assert(sizeof(struct rf_armed) == RF_ARMED_BYTES, "other builds read it");
_Static_assert(sizeof(struct rf_task) == 32, "other builds read it");

/* Thread -> what it connects, for cgroup programs without task storage. */
struct map_connecting {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct rf_connecting);
};
extern struct map_connecting connecting SEC(".maps");

struct map_tasks {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct rf_armed);
};
extern struct map_tasks tasks SEC(".maps");

/*
 * tgid -> the same: for cgroup-BPF programs without task storage, for queries about another
 * process, and for custom probes. A container has a share of it (config.process_share).
 */
struct map_processes {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536); /* (agent) */
	__type(key, __u32);
	__type(value, struct rf_task);
};
extern struct map_processes processes SEC(".maps");

/*
 * Number of armed processes that did not fit `processes`. If it is not 0, cgroup-BPF programs look
 * at cgroups, too.
 */
struct map_unlisted {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct map_unlisted unlisted SEC(".maps");

/* Returns true if some processes did not fit `processes`. */
static __always_inline bool rf_has_unlisted(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&unlisted, &zero);

	return count && *count;
}

/*
 * Thread id -> a task that could not be bound, because there was no memory: see lost.h.
 * Preallocated. `lost_count`: its entries. While there are none, nothing else is read.
 */
enum rf_lost_limit {
	RF_LOST_MAX = 4096,
};
struct rf_lost {
	struct rf_task task; /* the binding that it should have */
	__u64 container_root;
	__u64 start_ns; /* of the thread: ids are reused */
	__u64 kill_pending;
};

struct map_lost_tasks {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, RF_LOST_MAX);
	__type(key, __u32);
	__type(value, struct rf_lost);
};
extern struct map_lost_tasks lost_tasks SEC(".maps");

struct map_lost_count {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct map_lost_count lost_count SEC(".maps");

static __always_inline bool rf_any_lost(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&lost_count, &zero);

	return count && *count;
}

enum rf_unarmed {
	RF_UNARMED_ENTRANTS = 0, /* how many entered a container's cgroup; the agent looks later */
	RF_UNARMED_FIRST_NS = 1, /* time of the first adoption: tasks seen by then are not new */
	RF_UNARMED_VALUES = 2,
};
struct map_unarmed {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_UNARMED_VALUES);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct map_unarmed unarmed SEC(".maps");

/*
 * Tables of the agents before this one, the newest first, while this agent adopts. The iterator
 * that adopts reads what each task was bound to: no copy is as new as they are, or as complete
 * (`processes` has a container's share, `tasks` has every task).
 */
enum rf_before_limit {
	RF_BEFORE = 4,
};
struct map_tasks_before {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, RF_BEFORE);
	__type(key, __u32);
	__array(values, struct map_tasks);
};
extern struct map_tasks_before tasks_before SEC(".maps");

struct map_processes_before {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, RF_BEFORE);
	__type(key, __u32);
	__array(values, struct map_processes);
};
extern struct map_processes_before processes_before SEC(".maps");

/* In a line of the iterator instead of a slot: why the task is not bound. */
enum rf_adopt {
	RF_ADOPT_NOTHING = 0xffffffff,
	RF_ADOPT_WAITS = 0xfffffffe,  /* soon bound: it has left the host's root */
	RF_ADOPT_ENTERS = 0xfffffffd, /* a runtime prepares a container */
	RF_ADOPT_NO_MEMORY = 0xfffffffc,
};

#define RF_TICK_NS 10000000 /* USER_HZ is 100 on every supported architecture */

/*
 * Returns true for the agent that loaded these programs. They outlive it, and then its pid may be
 * reused, or requested (clone3 with set_tid): so the start time is compared, too.
 */
static __always_inline bool rf_is_agent(struct task_struct *task)
{
	if ((__u32)task->tgid != config.agent_pid)
		return false;
	return BPF_CORE_READ(task, group_leader, start_boottime) - config.agent_start_ns <
	       RF_TICK_NS;
}

static __always_inline struct rf_armed *rf_bound(struct task_struct *task)
{
	if (rf_is_agent(task))
		return NULL;
	return bpf_task_storage_get(&tasks, task, NULL, 0);
}

/* The container of a binding; NULL if its slot has another owner by now. */
static __always_inline struct rf_container *rf_container_of(const struct rf_task *bound)
{
	__u32 slot = bound->slot;
	struct rf_container *container = bpf_map_lookup_elem(&slots, &slot);

	if (!container || !bound->container || container->cgroup != bound->container)
		return NULL;
	return container;
}

/*
 * Returns true if a task without rf_container_of() outlived its container. It was not counted, as a
 * program was skipped: its slot has another owner, and its rules are unknown. A task without a
 * program is just being adopted on another CPU: its slot may not be written yet (rf_bind).
 */
static __always_inline bool rf_is_orphan(const struct rf_task *bound)
{
	return bound->container && bound->exe_hash;
}

/*
 * The container of the current task's binding. An orphan is killed. Not for cgroup programs, which
 * cannot send signals.
 */
static __always_inline struct rf_container *rf_container_of_current(const struct rf_task *bound)
{
	struct rf_container *container = rf_container_of(bound);

	if (!container && rf_is_orphan(bound))
		bpf_send_signal(9);
	return container;
}

#endif
