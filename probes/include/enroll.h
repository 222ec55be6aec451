/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a cgroup becomes a container, how its slot is freed, and the records of both. */
#ifndef RINGFENCE_ENROLL_H
#define RINGFENCE_ENROLL_H

#include "emit.h"
#include "membership.h"

/*
 * Takes a slot for a container's cgroup. Returns the cgroup's slot. `path`: from the event; 0:
 * unknown.
 */
__u32 rf_enroll(__u64 cgroup, __u64 path);
/* Returns true if a cgroup's name is that of a container. */
int rf_is_container_name(__u64 cgroup);
/*
 * Enrolls a cgroup that was made unseen or while no slot was free, or its topmost ancestor that is
 * a container.
 */
__u32 rf_enroll_late(__u64 cgroup);
/* Frees the slot of a container that is gone, if no agent is there to do it. */
int rf_recycle(__u32 slot);

static __always_inline void rf_container_record(__u32 event, __u64 id, __u64 parent, __u32 slot,
						__u64 path)
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
	len = !path ? 0
		    : bpf_probe_read_kernel_str(record->path, sizeof(record->path), (void *)path);
	if (len > 0)
		record->path_len = len - 1;
	if (len == sizeof(record->path) || !path)
		record->header.flags |= RF_FLAG_TRUNCATED;
	rf_submit(record, event);
}

#endif
