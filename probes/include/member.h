/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Cgroups by address, and the record of a container's life: what container.bpf.c, member.bpf.c and process.bpf.c share.
 */
#ifndef RINGFENCE_MEMBER_H
#define RINGFENCE_MEMBER_H

#include "lifecycle.h"

/* Pointers as numbers, for global functions: see rf_address. */
static __always_inline __u64 rf_cgroup_address(struct cgroup *cgroup)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &cgroup);
	return address;
}

static __always_inline __u64 rf_text_address(const char *text)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &text);
	return address;
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

static __always_inline void rf_container_record(__u32 event, __u64 id, __u64 parent, __u32 slot, __u64 path)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container_event *record;
	long len;

	record = RF_RECORD(rf_container_event, event, slot, RF_ROUTE_ALERTS);
	if (!record)
		return;
	rf_header(&record->header, event, task, NULL);
	record->header.slot = slot;
	record->header.container = id;
	record->cgroup = id;
	record->parent = parent;
	len = !path ? 0 : bpf_probe_read_kernel_str(record->path, sizeof(record->path), (void *)path);
	if (len > 0)
		record->path_len = len - 1;
	if (len == sizeof(record->path) || !path)
		record->header.flags |= RF_FLAG_TRUNCATED;
	rf_submit(record, event);
}

/*
 * Leaving: an armed task moved to a cgroup that is not its container's, or, in
 * a hierarchy that we do not attribute by, to the root. It stays bound to its container.
 */
static __always_inline bool rf_leaves_container(struct cgroup *to, const struct rf_task *bound)
{
	if (!rf_in_hierarchy(to))
		return BPF_CORE_READ(to, level) == 0;
	return rf_slot_of(rf_cgroup_address(to)) != bound->slot;
}

#endif
