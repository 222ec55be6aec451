// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The facts of a task. Global functions: the verifier checks each of them separately, and their
 * branches do not multiply with those of the callers. Before 6.3 that was the difference between
 * 15,000 and 200,000 steps.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/task_facts.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Mounts between a directory and the root of its namespace. */
#define RF_MOUNTS_ABOVE 32

/* One mount on the way up, in a function that is verified once. */
struct rf_mount_climb {
	__u64 mount;
	__u64 root; /* of these mounts, as far as is known; 0: not reached */
};

/*
 * The mount that a namespace begins with is hidden by the container's root, which lies on its root
 * directory, and may be hidden by another. So the root is the first mount from which on each lies
 * on the root directory of the one above. Returns false at the namespace's first mount.
 */
__noinline int rf_mount_above(struct rf_mount_climb *climb)
{
	__u64 mount, parent;

	if (!climb)
		return false;
	mount = climb->mount;
	parent = (__u64)RF_READ(struct mount, mount, mnt_parent);
	if (!climb->root)
		climb->root = (__u64)RF_READ(struct mount, mount, mnt.mnt_root);
	if (!parent || parent == mount)
		return false;
	if ((__u64)RF_READ(struct mount, mount, mnt_mountpoint) !=
	    (__u64)RF_READ(struct mount, parent, mnt.mnt_root))
		climb->root = 0;
	climb->mount = parent;
	return true;
}

__noinline __u64 rf_root_of_mounts(__u64 task)
{
	struct rf_mount_climb climb = {};
	__u32 i;

	climb.mount = (__u64)BPF_CORE_READ((struct task_struct *)task, fs, root.mnt) -
		      bpf_core_field_offset(struct mount, mnt);
	for (i = 0; i < RF_MOUNTS_ABOVE; i++) {
		if (!rf_mount_above(&climb))
			return climb.root;
	}
	return 0;
}

/* Compared at once: else the compiler keeps all numbers on the stack until the end. */
#define RF_SHARES(number, hosts, flag)    \
	do {                              \
		if ((number) == (hosts))  \
			shared |= (flag); \
		barrier_var(shared);      \
	} while (0)

__noinline __u32 rf_shared_namespaces(__u64 address)
{
	struct task_struct *task = (struct task_struct *)address;
	struct nsproxy *proxy = BPF_CORE_READ(task, nsproxy);
	__u32 shared = 0;

	if (!proxy)
		return 0;
	RF_SHARES(BPF_CORE_READ(proxy, mnt_ns, ns.inum), config.host_mnt_ns, RF_CLONE_NEWNS);
	RF_SHARES(BPF_CORE_READ(proxy, net_ns, ns.inum), config.host_net_ns, RF_CLONE_NEWNET);
	RF_SHARES(BPF_CORE_READ(proxy, ipc_ns, ns.inum), config.host_ipc_ns, RF_CLONE_NEWIPC);
	RF_SHARES(BPF_CORE_READ(proxy, uts_ns, ns.inum), config.host_uts_ns, RF_CLONE_NEWUTS);
	RF_SHARES(BPF_CORE_READ(proxy, cgroup_ns, ns.inum), config.host_cgroup_ns,
		  RF_CLONE_NEWCGROUP);
	RF_SHARES(BPF_CORE_READ(proxy, time_ns, ns.inum), config.host_time_ns, RF_CLONE_NEWTIME);
	RF_SHARES(BPF_CORE_READ(task, cred, user_ns, ns.inum), config.host_user_ns,
		  RF_CLONE_NEWUSER);
	RF_SHARES(rf_pid_ns(task), config.host_pid_ns, RF_CLONE_NEWPID);
	return shared;
}

__noinline __u32 rf_facts(__u64 address, __u32 program_facts)
{
	struct task_struct *task = (struct task_struct *)address;
	const struct cred *cred = BPF_CORE_READ(task, cred);
	__u32 shared = rf_shared_namespaces(address);
	__u32 facts = program_facts & RF_FACTS_OF_PROGRAM;
	__u64 effective = rf_capability(cred, cap_effective);

	if (BPF_CORE_READ(cred, user_ns, level))
		facts |= RF_FACT_USER_NAMESPACE;
	if (effective & (1ULL << RF_CAP_SYS_ADMIN))
		facts |= RF_FACT_CAP_SYS_ADMIN;
	if ((effective & RF_CAP_ALL) == RF_CAP_ALL)
		facts |= RF_FACT_ALL_CAPABILITIES;
	if (!BPF_CORE_READ(cred, euid.val))
		facts |= RF_FACT_ROOT;
	if (!BPF_CORE_READ(task, seccomp.mode))
		facts |= RF_FACT_NO_SECCOMP;
	if (BPF_CORE_READ(task, atomic_flags) & RF_PFA_NO_NEW_PRIVS)
		facts |= RF_FACT_NO_NEW_PRIVS;
	return facts | rf_facts_of_host(shared);
}
