// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Which container a cgroup belongs to. Global functions: see task_facts.bpf.c. Every cgroup below a
 * container's belongs to it, whatever the number and the depth: so none of them is stored, and the
 * walk goes from the root down to the first known one, which no container can influence.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/membership.h"
#include "include/object.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The slot of the ancestor at that level. RF_SKIP_SLOT: it is not a known one. */
__noinline __u32 rf_slot_at(__u64 cgroup, __u32 level)
{
	__u64 id = rf_ancestor_id(cgroup, level);
	__u32 *slot = bpf_map_lookup_elem(&containers, &id);

	return slot ? *slot : RF_SKIP_SLOT;
}

__noinline __u32 rf_slot_of(__u64 cgroup)
{
	__u32 level, depth = RF_READ(struct cgroup, cgroup, level), found = RF_NO_SLOT;

	if (!cgroup)
		return RF_NO_SLOT;
	for (level = 1; level <= RF_LEVELS; level++) {
		__u32 slot;

		if (level > depth)
			break;
		slot = rf_slot_at(cgroup, level);
		if (slot == RF_SKIP_SLOT)
			continue;
		found = slot;
		if (found != RF_NEVER_SLOT)
			/* below the agent's own cgroup, its canary is a container all the same */
			break;
	}
	return found;
}

/*
 * A runtime prepares a container, whose cgroup it has entered already, before the first task of
 * that container is armed. After that, a task counts by its cgroup whatever it is: nothing that it
 * can choose (its program, its parent, its mounts) makes it a runtime.
 */
__noinline __u32 rf_slot_by_cgroup(__u64 address)
{
	struct task_struct *task = (struct task_struct *)address;
	struct rf_container *container;
	__u32 slot;

	if (!rf_own_mounts(task))
		return RF_NO_SLOT;
	slot = rf_slot_of(rf_cgroup_of(task));
	container = bpf_map_lookup_elem(&slots, &slot);
	return container && container->state & RF_STATE_STARTED ? slot : RF_NO_SLOT;
}
