/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who a task is: its container, if it is armed, and what rules call its facts.
 * Only armed tasks are subjects; everything else leaves here.
 */
#ifndef RINGFENCE_TASK_H
#define RINGFENCE_TASK_H

#include "maps.h"
#include "compat.h"

/* Facts that hold for the program, not for the credentials: kept from exec to exec. */
#define RF_FACTS_OF_PROGRAM (RF_FACT_MEMFD_EXE | RF_FACT_UPPER_EXE)

/* The container that a binding names; NULL when its slot has another owner by now. */
static __always_inline struct rf_container *rf_container_of(const struct rf_task *bound)
{
	__u32 slot = bound->slot;
	struct rf_container *container = bpf_map_lookup_elem(&slots, &slot);

	if (!container || !bound->container || container->cgroup != bound->container)
		return NULL;
	return container;
}

static __always_inline struct rf_task *rf_bound(struct task_struct *task)
{
	if ((__u32)task->tgid == config.agent_pid)
		return NULL;
	return bpf_task_storage_get(&tasks, task, NULL, 0);
}

/* cgroup programs had no task storage before 6.2: they know processes only. */
static __always_inline struct rf_task *rf_bound_process(struct task_struct *task)
{
	__u32 tgid = task->tgid;

	if (tgid == config.agent_pid)
		return NULL;
	return bpf_map_lookup_elem(&processes, &tgid);
}

struct rf_pid_numbers {
	__s32 nr;
	__u32 pad;
	__u64 ns;
};

/* What the innermost pid namespace of a process calls it, and which one that is. */
static __always_inline void rf_pid_numbers(struct task_struct *task, struct rf_pid_numbers *out)
{
	struct pid *pid = task->group_leader->thread_pid;
	__u64 at = (__u64)pid + bpf_core_field_offset(struct pid, numbers);

	out->nr = 0;
	out->ns = 0;
	if (pid)
		bpf_probe_read_kernel(out, sizeof(*out), (void *)(at + (__u64)pid->level * sizeof(*out)));
}

static __always_inline __u32 rf_pid_ns(struct task_struct *task)
{
	struct rf_pid_numbers numbers;

	rf_pid_numbers(task, &numbers);
	if (!numbers.ns)
		return 0;
	return RF_READ(struct pid_namespace, numbers.ns, ns.inum);
}

static __always_inline bool rf_own_mounts(struct task_struct *task)
{
	struct nsproxy *proxy = task->nsproxy;

	/* A configuration that was not filled must not arm the host. */
	return proxy && config.host_mnt_ns && proxy->mnt_ns->ns.inum != config.host_mnt_ns;
}

/* CLONE_NEW* bits of the namespaces that a task shares with the host. */
static __always_inline __u32 rf_shared_namespaces(struct task_struct *task)
{
	struct nsproxy *proxy = task->nsproxy;
	__u32 shared = 0;

	if (!proxy)
		return 0;
	if (proxy->mnt_ns->ns.inum == config.host_mnt_ns)
		shared |= RF_CLONE_NEWNS;
	if (proxy->net_ns->ns.inum == config.host_net_ns)
		shared |= RF_CLONE_NEWNET;
	if (proxy->ipc_ns->ns.inum == config.host_ipc_ns)
		shared |= RF_CLONE_NEWIPC;
	if (proxy->uts_ns->ns.inum == config.host_uts_ns)
		shared |= RF_CLONE_NEWUTS;
	if (proxy->cgroup_ns->ns.inum == config.host_cgroup_ns)
		shared |= RF_CLONE_NEWCGROUP;
	if (proxy->time_ns->ns.inum == config.host_time_ns)
		shared |= RF_CLONE_NEWTIME;
	if (task->cred->user_ns->ns.inum == config.host_user_ns)
		shared |= RF_CLONE_NEWUSER;
	if (rf_pid_ns(task) == config.host_pid_ns)
		shared |= RF_CLONE_NEWPID;
	return shared;
}

/* Read anew each time that a rule or a record asks: credentials change without an exec. */
static __always_inline __u32 rf_facts(struct task_struct *task, __u32 program_facts)
{
	const struct cred *cred = task->cred;
	__u32 shared = rf_shared_namespaces(task);
	__u32 facts = program_facts & RF_FACTS_OF_PROGRAM;
	__u64 effective = rf_capability(cred, cap_effective);

	if (cred->user_ns->level)
		facts |= RF_FACT_USER_NAMESPACE;
	if (effective & (1ULL << RF_CAP_SYS_ADMIN))
		facts |= RF_FACT_CAP_SYS_ADMIN;
	if ((effective & RF_CAP_ALL) == RF_CAP_ALL)
		facts |= RF_FACT_ALL_CAPABILITIES;
	if (!cred->euid.val)
		facts |= RF_FACT_ROOT;
	if (!task->seccomp.mode)
		facts |= RF_FACT_NO_SECCOMP;
	if (task->atomic_flags & RF_PFA_NO_NEW_PRIVS)
		facts |= RF_FACT_NO_NEW_PRIVS;
	if (shared & RF_CLONE_NEWPID)
		facts |= RF_FACT_HOST_PID;
	if (shared & RF_CLONE_NEWNET)
		facts |= RF_FACT_HOST_NETWORK;
	if (shared & RF_CLONE_NEWIPC)
		facts |= RF_FACT_HOST_IPC;
	if (shared & RF_CLONE_NEWUTS)
		facts |= RF_FACT_HOST_UTS;
	if (shared & RF_CLONE_NEWCGROUP)
		facts |= RF_FACT_HOST_CGROUP;
	return facts;
}

/* The id of the cgroup that says whose a task is, in the hierarchy that the agent chose. */
static __always_inline __u64 rf_cgroup_of(struct task_struct *task)
{
	struct css_set *set = task->cgroups;
	__u64 css = 0, at;
	__u32 id;

	switch (config.hierarchy) {
	case RF_HIERARCHY_DEVICES:
		id = rf_subsys(devices_cgrp_id);
		break;
	case RF_HIERARCHY_PIDS:
		id = rf_subsys(pids_cgrp_id);
		break;
	case RF_HIERARCHY_MEMORY:
		id = rf_subsys(memory_cgrp_id);
		break;
	case RF_HIERARCHY_CPU:
		id = rf_subsys(cpu_cgrp_id);
		break;
	case RF_HIERARCHY_FREEZER:
		id = rf_subsys(freezer_cgrp_id);
		break;
	default:
		return BPF_CORE_READ(set, dfl_cgrp, kn, id);
	}
	at = (__u64)set + bpf_core_field_offset(struct css_set, subsys) + id * sizeof(void *);
	bpf_probe_read_kernel(&css, sizeof(css), (void *)at);
	return RF_READ(struct cgroup_subsys_state, css, cgroup, kn, id);
}

/* Whether a cgroup lies in that hierarchy. */
static __always_inline bool rf_our_hierarchy(struct cgroup *cgroup)
{
	struct cgroup_root *root = cgroup->root;
	__u32 mask = root->subsys_mask;

	if (config.hierarchy == RF_HIERARCHY_V2)
		return root->hierarchy_id == 0;
	if (root->hierarchy_id == 0)
		return false;
	switch (config.hierarchy) {
	case RF_HIERARCHY_DEVICES:
		return mask & (1U << rf_subsys(devices_cgrp_id));
	case RF_HIERARCHY_PIDS:
		return mask & (1U << rf_subsys(pids_cgrp_id));
	case RF_HIERARCHY_MEMORY:
		return mask & (1U << rf_subsys(memory_cgrp_id));
	case RF_HIERARCHY_CPU:
		return mask & (1U << rf_subsys(cpu_cgrp_id));
	default:
		return mask & (1U << rf_subsys(freezer_cgrp_id));
	}
}

#endif
