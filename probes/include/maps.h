/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every map shared with user space, and the shape of what is in it. Maps are
 * weak, so that each object file that includes this header names the same one
 * when `bpftool gen object` links them. Sizes marked (agent) are set by the agent
 * before it loads.
 */
#ifndef RINGFENCE_MAPS_H
#define RINGFENCE_MAPS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "events.h"

#define RF_RULE_WORDS 64
#define RF_MAX_RULES (RF_RULE_WORDS * 64)
#define RF_NO_RULE 0xffff
#define RF_NO_SLOT 0xffffffff
#define RF_NEVER_SLOT 0xfffffffe /* in `containers`: neither this cgroup nor any below is a container */
#define RF_SKIP_SLOT 0xfffffffd	 /* this cgroup is no container; those below may be */
#define RF_REPORTED_WORDS 8
#define RF_REPORTED_EVENTS 256 /* where the bits of events begin, behind those of rules */
#define RF_GENERATIONS 2       /* slots that policy generations take turns in */
#define RF_SYSCALL_NRS 1024    /* native numbers from 0, 32-bit ones from 512 */
#define RF_COMPAT_BASE 512
#define RF_PATTERNS 32
#define RF_PATTERN_LEN 48
#define RF_COUNTERS 32
#define RF_MATCH_TEXT 128
/* operands of an event, then the two that every event has, then its string or address */
#define RF_DIM_FACTS RF_OPERANDS
#define RF_DIM_EXE (RF_OPERANDS + 1)
#define RF_DIM_OBJECT (RF_OPERANDS + 2)
#define RF_DIMS (RF_OPERANDS + 3)

#include "who.h"

/* ---- what: system calls -> events ------------------------------------- */

enum rf_operand_source {
	RF_FROM_NOTHING = 0,
	RF_FROM_ARG = 1,	    /* args[arg], 64 bits */
	RF_FROM_ARG32 = 2,	    /* args[arg], low 32 bits */
	RF_FROM_USER_U64 = 3,	    /* u64 at the user address args[arg] (clone3) */
	RF_FROM_SETNS_TYPE = 4,	    /* CLONE_NEW* that setns(fd = args[arg], args[arg+1]) would enter */
	RF_FROM_SETNS_TARGET = 5,   /* enum rf_relation of that namespace */
	RF_FROM_PID_TARGET = 6,	    /* enum rf_relation of the process args[arg] */
	RF_FROM_DEV_TYPE = 7,	    /* S_IFMT of the mode args[arg] */
	RF_FROM_CONST = 8,	    /* the number in `arg`: which call of the family it was */
	RF_FROM_PIDFD_TARGET = 9,   /* enum rf_relation of the process behind the pidfd args[arg] */
	RF_FROM_MOUNT_FLAGS = 10,   /* args[arg] without the magic number that the kernel takes off mount's flags */
	RF_FROM_SOCKET_FAMILY = 11, /* args[arg]; or what type and protocol, which follow, make of it */
	RF_FROM_CHROOTED = 12,	    /* 1: the task's root is not that of its mount namespace; args are not read */
	RF_FROM_PERF_TARGET = 14,   /* enum rf_relation of what perf_event_open(attr, args[arg], ...) measures */
	RF_FROM_FD_SETUID = 13,	    /* 1: descriptor args[arg] is of a program that runs as its owner or group */
};

enum rf_relation {
	RF_RELATION_UNKNOWN = 0,
	RF_RELATION_SELF = 1,	   /* the caller's own process, its own namespace */
	RF_RELATION_CONTAINER = 2, /* the caller's container */
	RF_RELATION_OTHER = 3,	   /* neither the container's nor the host's */
	RF_RELATION_HOST = 4,
};

#define RF_SYSCALL_HOOKED 0x8000  /* in rf_syscall.event: an LSM hook decides it, not the call's entry */
#define RF_SYSCALL_GUARDED 0x4000 /* guard.bpf.c is asked first: what it reaches for may be the agent's */
#define RF_SYSCALL_EVENT 0x0fff

struct rf_syscall {
	__u16 event;		  /* enum rf_event; 0: not ours */
	__u8 counter;		  /* enum of activity counters */
	__s8 text_arg;		  /* argument that is a user string; -1: none */
	__u8 source[RF_OPERANDS]; /* enum rf_operand_source */
	__u8 arg[RF_OPERANDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_SYSCALL_NRS);
	__type(key, __u32);
	__type(value, struct rf_syscall);
} syscalls __weak SEC(".maps");

/* Per event: emit it when no rule matched? */
#define RF_OBSERVE_OFF 0
#define RF_OBSERVE_ACTIVITY 1 /* to the activity ring, rate limited by container */
#define RF_OBSERVE_ALERTS 2   /* to the alerts ring */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_EVENT_MAX);
	__type(key, __u32);
	__type(value, __u32);
} observe __weak SEC(".maps");

/*
 * The programs that the kernel may run on the host, found by the agent. Key: the path that the kernel was given (FNV-1a; a
 * program may behave differently by another name, as busybox and systemctl do), and its file: device, inode, and ctime in ns
 * (inode numbers are reused). A script has an entry with its path alone, as the file that runs is its interpreter.
 */
struct rf_helper_key {
	__u64 device;
	__u64 inode;
	__u64 changed;
	__u64 path;
};

/* The value: what the kernel may run it for. core_pattern alone lets its writer choose arguments. */
#define RF_HELPER_CORE 1
#define RF_HELPER_OTHER 2

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct rf_helper_key);
	__type(value, __u32);
} helpers __weak SEC(".maps");

/*
 * Tickets: names of cgroups. A task that makes a cgroup of such a name inside its container is exempted, once per ticket:
 * only the next agent, in a pod of its own, can know the name (agent/ringfence/daemon/startup/handover.py).
 */
#define RF_TICKET_LEN 64

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__uint(key_size, RF_TICKET_LEN);
	__type(value, __u32);
} tickets __weak SEC(".maps");

#include "rules.h"

/* ---- out: rings and counters ------------------------------------------ */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20); /* (agent) */
} alerts __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20); /* (agent) */
} activity __weak SEC(".maps");

/* Records submitted, by event: emitted = received + still in the ring. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RF_EVENT_MAX);
	__type(key, __u32);
	__type(value, __u64);
} emitted __weak SEC(".maps");

/* How often the rate of activity is halved now, for all containers: the agent lowers it before it falls behind. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} halvings __weak SEC(".maps");

struct rf_drop_key {
	__u16 event;
	__u16 reason; /* enum rf_drop */
	__u32 slot;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct rf_drop_key);
	__type(value, __u64);
} drops __weak SEC(".maps");

/* What `drops` has no room for, without its container: by event * RF_DROP_MAX + reason. Never full. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_EVENT_MAX *RF_DROP_MAX);
	__type(key, __u32);
	__type(value, __u64);
} drops_unnamed __weak SEC(".maps");

/* What learn.bpf.c counts: of a container's program, by name. */
#define RF_LEARNED_CALL 1
#define RF_LEARNED_CALL_REFUSED 2 /* ended with EPERM, EACCES or ENOSYS */
#define RF_LEARNED_CAP 3
#define RF_LEARNED_CAP_REFUSED 4

struct rf_learned_key {
	__u32 slot;
	__u16 number;
	__u8 kind; /* RF_LEARNED_* */
	__u8 compat;
	char comm[16];
};

/* Activity of a container, per CPU, read at scrape. Never events. */
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
	/* system calls by class, the hooked ones */
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

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4096); /* (agent): as slots */
	__type(key, __u32);
	__type(value, struct rf_counters);
} counters __weak SEC(".maps");

/* ---- knobs, constant after load ---------------------------------------- */

/* Which cgroup hierarchy identifies containers. */
#define RF_HIERARCHY_V2 0
#define RF_HIERARCHY_DEVICES 1
#define RF_HIERARCHY_PIDS 2
#define RF_HIERARCHY_MEMORY 3
#define RF_HIERARCHY_CPU 4
#define RF_HIERARCHY_FREEZER 5

/* In .rodata of container.bpf.c; a linked object has one copy. */
struct rf_config {
	__u32 hierarchy;   /* RF_HIERARCHY_* */
	__u32 host_mnt_ns; /* inums of the host's namespaces */
	__u32 host_pid_ns;
	__u32 host_net_ns;
	__u32 host_ipc_ns;
	__u32 host_uts_ns;
	__u32 host_cgroup_ns;
	__u32 host_user_ns;
	__u32 host_time_ns;
	__u32 agent_pid;      /* with agent_start_ns: never a subject, whatever its cgroup */
	__u64 agent_start_ns; /* of the tick that it was started in: all that /proc tells */
	__u32 activity_rate;  /* records a second and container on the activity ring; 0: no limit */
	__u32 activity_burst;
	__u32 alert_rate; /* the same for alerts */
	__u32 alert_burst;
	__u32 helper_hook;	/* helpers are decided at an LSM hook (lsm_invariants.bpf.c), before they become it */
	__u32 exec_hooked;	/* an LSM hook decides process.exec: sched_process_exec only tells of it */
	__u32 process_share;	/* entries of `processes` that one container may have */
	__u32 cgroup_storage;	/* cgroup-BPF programs have task storage */
	__u32 late;		/* containers that were not enrolled when they were made are at their next exec */
	__u32 task_share;	/* tasks that one container may have (rf_exceeds_task_share); 0: as many as it likes */
	__u64 root_cgroup;	/* the topmost that the agent sees: nothing above it is its business */
	__u64 host_root_device; /* of the host's root directory; 0: not known */
	__u64 host_root_inode;
	__u32 guard;	    /* RF_GUARD_*: what binding of who reaches for the agent (guard.bpf.c) */
	__u32 guard_hooked; /* LSM hooks see to that: calls and opens are not looked at for it */
};
extern const volatile struct rf_config config;

#endif
