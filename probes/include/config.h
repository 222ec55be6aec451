/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The configuration. The agent writes it into .rodata before it loads the programs. */
#ifndef RINGFENCE_CONFIG_H
#define RINGFENCE_CONFIG_H

#include "vmlinux.h"

/* The cgroup hierarchy that identifies containers. */
enum rf_hierarchy {
	RF_HIERARCHY_V2 = 0,
	RF_HIERARCHY_DEVICES = 1,
	RF_HIERARCHY_PIDS = 2,
	RF_HIERARCHY_MEMORY = 3,
	RF_HIERARCHY_CPU = 4,
	RF_HIERARCHY_FREEZER = 5,
};

/* Is the namespace that setns enters known? See setns.bpf.c. */
enum rf_entries {
	RF_ENTRIES_UNKNOWN = 0,
	RF_ENTRIES_UNSURE = 1, /* the kernel may skip the program that stores it */
	RF_ENTRIES_CERTAIN = 2,
};

/* Defined in maps.bpf.c. */
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
	__u64 agent_start_ns; /* to the tick, which is the resolution of /proc */
	/* records per second and container on the activity ring; 0: no limit  */
	__u32 activity_rate;
	__u32 activity_burst;
	__u32 alert_rate; /* the same for alerts */
	__u32 alert_burst;
	/* an LSM hook (lsm_invariants.bpf.c) decides usermode helpers before they start */
	__u32 helper_hook;
	/* an LSM hook decides process.exec; sched_process_exec only reports it  */
	__u32 exec_hooked;
	__u32 process_share;  /* entries of `processes` per container */
	__u32 cgroup_storage; /* cgroup-BPF programs have task storage */
	/* containers that were not enrolled at creation are enrolled at their next exec  */
	__u32 late;
	__u32 task_share;  /* tasks per container (rf_exceeds_task_share); 0: no limit */
	__u64 root_cgroup; /* the topmost cgroup that the agent sees; those above it are ignored */
	__u64 host_root_device; /* of the host's root directory; 0: not known */
	__u64 host_root_inode;
	__u32 guard;	    /* RF_GUARD_*: what happens on an attempt on the agent (guard.bpf.c) */
	__u32 guard_hooked; /* LSM hooks enforce it; calls and opens are not inspected for it */
	__u32 setns_by_object; /* RF_ENTRIES_* */
	/* a task that cannot be bound is refused or killed; 0: it is bound later */
	__u32 refuse_unbound;
	__u32 grace_ms;	      /* how long a task may be unarmed in a container: unarmed.h */
	__u32 hook_mechanism; /* RF_MECHANISM_LSM, or RF_MECHANISM_HOOK: lsm.h */
	__u32 backstop;	      /* hooks have backstops: backstop.h */
	__u32 unused;
};
extern const volatile struct rf_config config;

#endif
