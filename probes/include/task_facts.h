/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What rules call the facts of a task, and the namespaces that they depend on. */
#ifndef RINGFENCE_TASK_FACTS_H
#define RINGFENCE_TASK_FACTS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "compat.h"
#include "config.h"
#include "events.h"

/* Facts of the program, not of the credentials: kept from exec to exec. */
#define RF_FACTS_OF_PROGRAM (RF_FACT_MEMFD_EXE | RF_FACT_UPPER_EXE)
/*
 * In rf_task.facts only: the program is on another mount than the container's root, or the task has
 * another root.
 */
#define RF_PROGRAM_ELSEWHERE (1U << 31)

/* The root directory of a task that is about to be armed. */
static __always_inline __u64 rf_root_of(struct task_struct *task)
{
	return (__u64)BPF_CORE_READ(task, fs, root.dentry);
}

/*
 * The root directory of the mounts that a task is in, for a task that was not seen to begin; 0: it
 * cannot be found. Not the task's own root directory, nor that of the mount that this one is on: a
 * task chooses both (chroot).
 */
__u64 rf_root_of_mounts(__u64 task);

struct rf_pid_numbers {
	__s32 nr;
	__u32 pad;
	__u64 ns;
};

/*
 * From here on, tasks are read by bpf_probe_read_kernel, although a typed pointer could be followed
 * directly, at less cost. From 6.2 on, each pointer followed from a trusted one makes the verifier
 * search the kernel's types by name several times (type_is_rcu ...), about 1 ms each. That was most
 * of the load time.
 */

/* The process's number in its innermost pid namespace, and that namespace. */
static __always_inline void rf_pid_numbers(const struct task_struct *task,
					   struct rf_pid_numbers *out)
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

	/*
	 * An empty configuration must not arm the host, nor must a task without namespaces be
	 * armed.
	 */
	return inum && config.host_mnt_ns && inum != config.host_mnt_ns;
}

/* CLONE_NEW* bits of the namespaces that a task shares with the host. */
__u32 rf_shared_namespaces(__u64 task);

/*
 * RF_FACT_*, read each time that a rule or a record needs them: credentials change without an exec.
 */
__u32 rf_facts(__u64 task, __u32 program_facts);

/* The facts that follow from sharing these namespaces (CLONE_NEW*) with the host. */
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

/* Facts of a call by a 32-bit program, or by a 64-bit one that uses the 32-bit ABI. */
static __always_inline __u32 rf_compat_facts(struct task_struct *task)
{
	return rf_is_32bit_program(task) ? RF_FACT_COMPAT : RF_FACT_COMPAT | RF_FACT_FOREIGN_ABI;
}

#endif
