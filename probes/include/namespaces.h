/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which container a namespace belongs to. A namespace, of any kind, belongs to each container of
 * which a task was settled in it: armed in it, or the one that made it. What belongs to no
 * container is the host's: its first namespaces, and those of its services.
 */
#ifndef RINGFENCE_NAMESPACES_H
#define RINGFENCE_NAMESPACES_H

#include "compat.h"
#include "config.h"
#include "containers.h"
#include "syscalls.h"
#include "task_facts.h"
#include "tasks.h"

/*
 * Returns true for a namespace that the kernel made at boot, or in which the agent's host is. The
 * numbers of living namespaces are unique, of whatever kind they are.
 */
static __always_inline bool rf_is_initial_ns(__u64 ns)
{
	__u32 inum = RF_READ(struct ns_common, ns, inum);

	return inum == config.host_mnt_ns || inum == config.host_pid_ns ||
	       inum == config.host_net_ns || inum == config.host_ipc_ns ||
	       inum == config.host_uts_ns || inum == config.host_cgroup_ns ||
	       inum == config.host_user_ns || inum == config.host_time_ns;
}

/* The address of the ns_common in a namespace of a kind, which is what these functions take. */
#define RF_NS_COMMON(type, address) ((__u64)(address) + bpf_core_field_offset(struct type, ns))

/* Returns 1 if a namespace belongs to a container. */
int rf_owns_ns(__u32 slot, __u64 container, __u64 ns);

/* Enum rf_relation of a namespace to a container: CONTAINER, OTHER or HOST. */
__u32 rf_ns_relation(__u32 slot, __u64 container, __u64 ns);

/*
 * From here on the namespace belongs to the container. A container that has claimed its share
 * (RF_CLAIMS) gets the place of a namespace that is gone; if there is none, the namespace stays
 * the host's.
 */
int rf_claim_ns(__u32 slot, __u64 container, __u64 ns);

/* Claims those namespaces of a task (its address) whose CLONE_NEW* are in `kinds`. */
int rf_claim_namespaces(__u64 task, const struct rf_task *bound, __u64 kinds);
#define RF_EVERY_KIND (~0ULL)

/* Claims what is in one nsproxy and not in another. */
int rf_claim_made(__u64 next, __u64 was, const struct rf_task *bound);

/*
 * A container that was started on the host's network may return to it. The facts of its task do
 * not say that, once the task is in another network.
 */
static __always_inline __u32 rf_setns_facts(const struct rf_container *container)
{
	return container->facts & RF_FACT_HOST_NETWORK;
}

#endif
