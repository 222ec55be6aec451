/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Maps of tasks and containers: which tasks are armed, and their containers. A part of maps.h.
 */
#ifndef RINGFENCE_WHO_H
#define RINGFENCE_WHO_H

/* ---- who: tasks and containers ---------------------------------------- */

/* Task storage: exists only for armed tasks. Inherited at fork, kept when the task moves. */
struct rf_task {
	__u64 container; /* id of the container's own cgroup */
	__u32 slot;
	__u32 facts;	/* RF_FACT_*; refreshed at exec and where credentials may change */
	__u64 exe_hash; /* FNV-1a of the program's path */
	__u64 start_ns; /* of the thread group */
};

/*
 * An open of this thread that no rule can match, whatever the file is called: the next one like it is not
 * looked up. Kept with the task, so that no_task else writes here; forgotten at exec.
 */
#define RF_MEMOS 4
struct rf_memo {
	__u64 generation; /* 0: empty */
	__u64 fs_magic;
	__u64 type; /* operand 2 of file.open */
	__u32 flags;
	__u32 profile;
};

/* What a task is to the kernel, when it was last looked at: see drift.bpf.c. Addresses are for comparing only. */
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
	__u32 kill_pending; /* it should not have been made: killed where it is seen next, watched or not */
};

/* The last call of this thread that a hook was asked about. A call asks several, and is reported once: lsm_call.bpf.c. */
struct rf_last_call {
	__u64 call; /* a mix of its registers */
	__u64 time_ns;
	__u64 reported; /* a mix of what was reported of it */
};

/*
 * rf_armed.counted: whether a task is among its container's, rf_container.tasks. Not yet: a hook has bound it, and the
 * fork may fail yet; or the program at task_newtask was skipped. Past: it has ended.
 */
#define RF_COUNTED_NOT_YET 0
#define RF_COUNTED 1
#define RF_COUNTED_ENDED 2

/* Room for what does not fit the stack of a program that looks at its own task; nothing stays in it. */
#define RF_QUERY_STORAGE_WORDS 32

struct rf_armed {
	struct rf_task task;
	struct rf_identity identity;
	struct rf_last_call last_call;
	__u64 container_root; /* the root directory of the container, as a dentry's address; for comparing only */
	__u32 counted;	      /* RF_COUNTED_* */
	__u32 armed_by_exec;  /* the exec in progress has armed it */
	__u64 query_storage[RF_QUERY_STORAGE_WORDS];
	struct rf_memo memo[RF_MEMOS];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct rf_armed);
} tasks __weak SEC(".maps");

/*
 * tgid -> the same: for cgroup-BPF programs without task storage, for questions about another process, and for custom
 * probes. A container has a share of it (config.process_share).
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536); /* (agent) */
	__type(key, __u32);
	__type(value, struct rf_task);
} processes __weak SEC(".maps");

/* Armed processes that are not in `processes`: while there were any, cgroup-BPF programs look at cgroups, too. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} unlisted __weak SEC(".maps");

/* What the agent before this one had armed: read by the iterator that adopts, filled by the agent before. */
struct rf_carried {
	__u64 container;
	__u64 start_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536); /* (agent): as processes */
	__type(key, __u32);
	__type(value, struct rf_carried);
} carried __weak SEC(".maps");

/* rf_container.state */
#define RF_STATE_USED 1
#define RF_STATE_STARTED 2
#define RF_STATE_REMOVED 4 /* its cgroup is gone; the slot is given back when tasks is 0 */
#define RF_STATE_ADOPTED 8

struct rf_container {
	__u64 cgroup; /* id of its own (topmost enrolled) cgroup; 0: free slot */
	__u64 created_ns;
	__u32 profile[RF_GENERATIONS]; /* index into that generation's `profiles` */
	__u32 state;
	__s32 tasks;	       /* armed tasks alive */
	__u32 facts;	       /* of its first armed task */
	__s32 processes;       /* in the map of that name */
	__u64 bucket;	       /* activity ring: tokens left */
	__u64 bucket_ns;       /* and when they were last counted */
	__u64 alert_bucket;    /* the same for the ring of alerts */
	__u64 alert_bucket_ns; /* (lives of containers take no token) */
	__u64 reported_second;
	__u64 reported[RF_REPORTED_WORDS]; /* rules, and events without one, that were reported in this second */
	__u64 maker_mnt_ns;		   /* mount namespace of the task that made its cgroup; 0: not known */
};

/* Mapped by the agent: it stores `profile` alone, beside what the probes count here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4096); /* (agent) */
	__type(key, __u32);
	__type(value, struct rf_container);
} slots __weak SEC(".maps");

/*
 * Free slots. The agent fills it at the start and returns slots to it; without an agent's beat, the kernel does. Whichever
 * returns a slot first deletes its owner from `containers`, which succeeds only once.
 */
struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 4096); /* (agent) */
	__type(value, __u32);
} free_slots __weak SEC(".maps");

/* CLOCK_BOOTTIME of the agent's last beat. */
#define RF_STALE_NS 5000000000
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} heartbeat __weak SEC(".maps");

/*
 * id of a container's own cgroup -> slot, until the slot is free again. What lies below is found by its ancestors
 * (rf_slot_of): so the number of cgroups that a container makes is no matter.
 */
#define RF_LEVELS 16 /* below the root, at most, of a container's own cgroup */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096 + 64); /* (agent): slots, and cgroups that are never one */
	__type(key, __u64);
	__type(value, __u32);
} containers __weak SEC(".maps");

/* Number of a mount namespace -> the container owner task was the first to run a program in it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, __u64);
} mount_namespaces __weak SEC(".maps");

/* Names of cgroups that are containers: prefix, then digits or anything; ".scope" may follow. */
#define RF_PATTERN_HEX64 1
#define RF_PATTERN_ANY 2
#define RF_PATTERN_BUILD 3 /* 25 base-36 digits; without a prefix, in a cgroup named buildkit alone */
struct rf_pattern {
	__u8 kind; /* 0: end of the list */
	__u8 len;
	char prefix[RF_PATTERN_LEN - 2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_PATTERNS);
	__type(key, __u32);
	__type(value, struct rf_pattern);
} patterns __weak SEC(".maps");

#endif
