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
/* In rf_task.facts only: it lies on another mount than the container's root, or the task has another root. */
#define RF_PROGRAM_ELSEWHERE (1U << 31)

/* The container that a binding names; NULL when its slot has another owner by now. */
static __always_inline struct rf_container *rf_container_of(const struct rf_task *bound)
{
	__u32 slot = bound->slot;
	struct rf_container *container = bpf_map_lookup_elem(&slots, &slot);

	if (!container || !bound->container || container->cgroup != bound->container)
		return NULL;
	return container;
}

#define RF_TICK_NS 10000000 /* USER_HZ is 100 on every architecture that we know */

/*
 * Whether it is the agent that loaded these programs. They outlive it, and then its pid may be reused, or requested
 * (clone3 with set_tid): so the start time is compared, too.
 */
static __always_inline bool rf_is_agent(struct task_struct *task)
{
	if ((__u32)task->tgid != config.agent_pid)
		return false;
	return BPF_CORE_READ(task, group_leader, start_boottime) - config.agent_start_ns < RF_TICK_NS;
}

/* The root directory of a task that is about to be armed. */
static __always_inline __u64 rf_root_of(struct task_struct *task)
{
	return (__u64)BPF_CORE_READ(task, fs, root.dentry);
}

static __always_inline struct rf_task *rf_bound(struct task_struct *task)
{
	if (rf_is_agent(task))
		return NULL;
	return (struct rf_task *)bpf_task_storage_get(&tasks, task, NULL, 0);
}

struct rf_pid_numbers {
	__s32 nr;
	__u32 pad;
	__u64 ns;
};

/*
 * From here on tasks are read by bpf_probe_read_kernel, although a pointer with a type could be
 * followed directly, at less cost: from 6.2 on, each pointer that is followed from a trusted one makes
 * the verifier search the kernel's types by name several times (type_is_rcu ...), about 1 ms each, and
 * that was most of the load time.
 */

/* What the innermost pid namespace of a process calls it, and which one that is. */
static __always_inline void rf_pid_numbers(const struct task_struct *task, struct rf_pid_numbers *out)
{
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	__u64 at = (__u64)pid + bpf_core_field_offset(struct pid, numbers);
	__u64 level = BPF_CORE_READ(pid, level);

	out->nr = 0;
	out->ns = 0;
	bpf_probe_read_kernel(out, sizeof(*out), (void *)(at + level * sizeof(*out)));
}

static __always_inline __u32 rf_pid_ns(const struct task_struct *task)
{
	struct rf_pid_numbers numbers;

	rf_pid_numbers(task, &numbers);
	return RF_READ(struct pid_namespace, numbers.ns, ns.inum);
}

static __always_inline __u32 rf_mnt_ns(struct task_struct *task)
{
	return BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
}

static __always_inline bool rf_own_mounts(struct task_struct *task)
{
	__u32 inum = rf_mnt_ns(task);

	/* A configuration that was not filled must not arm the host, nor a task that is past its namespaces. */
	return inum && config.host_mnt_ns && inum != config.host_mnt_ns;
}

/* task.bpf.c; tasks are given by address, see rf_address. */

/* CLONE_NEW* bits of the namespaces that a task shares with the host. */
__u32 rf_shared_namespaces(__u64 task);

/* member.bpf.c; cgroups are given by address, too. A slot; RF_NO_SLOT, RF_NEVER_SLOT: they belong to no container. */
__u32 rf_slot_of(__u64 cgroup);
/* The slot of an armed task that is not bound, as it could not be. */
__u32 rf_slot_by_cgroup(__u64 task);

static __always_inline bool rf_is_slot(__u32 slot)
{
	return slot < RF_SKIP_SLOT;
}

/* RF_FACT_*; read anew each time that a rule or a record asks: credentials change without an exec. */
__u32 rf_facts(__u64 task, __u32 program_facts);

/* The facts that say that a task shares these namespaces (CLONE_NEW*) with the host. */
static __always_inline __u32 rf_facts_of_host(__u32 shared)
{
	__u32 facts = 0;

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

/*
 * A task's address as a number, for global functions, which take no pointer to a task on most kernels: the
 * verifier lets no_task turn one into the other, but a read of the place where it lies does.
 */
static __always_inline __u64 rf_address(struct task_struct *task)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &task);
	return address;
}

/* Facts of a call by a 32-bit program, or by a 64-bit one that pretends to be. */
static __always_inline __u32 rf_compat_facts(struct task_struct *task)
{
	return rf_is_32bit_program(task) ? RF_FACT_COMPAT : RF_FACT_COMPAT | RF_FACT_FOREIGN_ABI;
}

/* The address of the cgroup that says owner a task is, in the hierarchy that the agent chose; 0: it has none. */
static __always_inline __u64 rf_cgroup_of(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
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
		return (__u64)BPF_CORE_READ(set, dfl_cgrp);
	}
	at = (__u64)set + bpf_core_field_offset(struct css_set, subsys) + id * sizeof(void *);
	bpf_probe_read_kernel(&css, sizeof(css), (void *)at);
	return (__u64)RF_READ(struct cgroup_subsys_state, css, cgroup);
}

/* Whether a cgroup lies in that hierarchy. */
static __always_inline bool rf_in_hierarchy(struct cgroup *cgroup)
{
	struct cgroup_root *root = BPF_CORE_READ(cgroup, root);
	__u32 mask = BPF_CORE_READ(root, subsys_mask);
	int hierarchy = BPF_CORE_READ(root, hierarchy_id);

	if (config.hierarchy == RF_HIERARCHY_V2)
		return hierarchy == 0;
	if (hierarchy == 0)
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
