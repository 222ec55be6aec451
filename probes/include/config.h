/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The configuration that the agent writes before it loads the programs.
 */
#ifndef RINGFENCE_CONFIG_H
#define RINGFENCE_CONFIG_H

#include "vmlinux.h"

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
	__u32 helper_hook; /* helpers are decided at an LSM hook (lsm_invariants.bpf.c), before they
			      become it */
	__u32 exec_hooked; /* an LSM hook decides process.exec: sched_process_exec only tells of it
			    */
	__u32 process_share;  /* entries of `processes` that one container may have */
	__u32 cgroup_storage; /* cgroup-BPF programs have task storage */
	__u32 late; /* containers that were not enrolled when they were made are at their next exec
		     */
	__u32 task_share;  /* tasks that one container may have (rf_exceeds_task_share); 0: as many
			      as it likes */
	__u64 root_cgroup; /* the topmost that the agent sees: nothing above it is its business */
	__u64 host_root_device; /* of the host's root directory; 0: not known */
	__u64 host_root_inode;
	__u32 guard; /* RF_GUARD_*: what binding of who reaches for the agent (guard.bpf.c) */
	__u32 guard_hooked; /* LSM hooks see to that: calls and opens are not looked at for it */
};
extern const volatile struct rf_config config;

#endif
