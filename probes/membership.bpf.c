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

__noinline __u32 rf_slot_of(__u64 cgroup)
{
	__u32 level, depth = RF_READ(struct cgroup, cgroup, level), found = RF_NO_SLOT;

	if (!cgroup)
		return RF_NO_SLOT;
	for (level = 1; level <= RF_LEVELS; level++) {
		__u64 id;
		__u32 *slot;

		if (level > depth)
			break;
		id = rf_ancestor_id(cgroup, level);
		slot = bpf_map_lookup_elem(&containers, &id);
		if (!slot || *slot == RF_SKIP_SLOT)
			continue;
		found = *slot;
		if (found != RF_NEVER_SLOT)
			/* below the agent's own cgroup, its canary is a container all the same */
			break;
	}
	return found;
}

/*
 * While a runtime prepares a container, its program is outside of the mounts that it has made
 * already.
 */
__noinline __u32 rf_slot_by_cgroup(__u64 address)
{
	struct task_struct *task = (struct task_struct *)address;
	__u64 exe = (__u64)BPF_CORE_READ(task, mm, exe_file);
	struct rf_file file;

	if (!exe || !rf_own_mounts(task))
		return RF_NO_SLOT;
	rf_file_read(&file, exe);
	if (rf_mount_ns(&file) != rf_mnt_ns(task) &&
	    BPF_CORE_READ(task, real_parent, nsproxy, mnt_ns, ns.inum) == config.host_mnt_ns)
		return RF_NO_SLOT;
	return rf_slot_of(rf_cgroup_of(task));
}
