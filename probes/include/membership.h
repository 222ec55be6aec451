/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which container a cgroup or a task belongs to. Cgroups are given by address: see rf_address. */
#ifndef RINGFENCE_MEMBERSHIP_H
#define RINGFENCE_MEMBERSHIP_H

#include "tasks.h"
#include "task_facts.h"

/* The slot of a cgroup; RF_NO_SLOT, RF_NEVER_SLOT: it belongs to no container. */
__u32 rf_slot_of(__u64 cgroup);
/* The slot of a task without a binding, of a container that has started; else RF_NO_SLOT. */
__u32 rf_slot_by_cgroup(__u64 task);

/*
 * The address of the cgroup that attributes a task, in the hierarchy that the agent chose; 0: none.
 */
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

/* Returns true if a cgroup is in that hierarchy. */
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

static __always_inline __u64 rf_parent_address(__u64 cgroup)
{
	__u64 css = (__u64)RF_READ(struct cgroup, cgroup, self.parent);

	return css ? css - bpf_core_field_offset(struct cgroup, self) : 0;
}

static __always_inline __u64 rf_parent_id(__u64 cgroup)
{
	__u64 parent = rf_parent_address(cgroup);

	return parent ? RF_READ(struct cgroup, parent, kn, id) : 0;
}

/*
 * Returns true if an armed task leaves its container's cgroup: for another one, or, in a hierarchy
 * that does not attribute, for the root. The task stays bound to its container.
 */
static __always_inline bool rf_leaves_container(struct cgroup *to, const struct rf_task *bound)
{
	if (!rf_in_hierarchy(to))
		return BPF_CORE_READ(to, level) == 0;
	return rf_slot_of(rf_address(to)) != bound->slot;
}

#endif
