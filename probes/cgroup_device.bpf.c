// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Device nodes, by number: opened or made. A cgroup-BPF program, because it can refuse before the
 * effect. It is attached to the root of the v2 hierarchy, which has every task, whatever v1
 * hierarchies exist.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/cgroup.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline void rf_device_record(struct task_struct *task, const struct rf_task *bound,
					     struct rf_query *query, __u32 route)
{
	struct rf_device_event *record =
		RF_RECORD(rf_device_event, RF_DEVICE_ACCESS, bound->slot, route);

	if (!record)
		return;
	rf_header(&record->header, RF_DEVICE_ACCESS, task, bound);
	rf_header_verdict(&record->header, query, task, bound);
	record->type = query->value[0];
	record->access = query->value[1];
	record->major = query->value[3];
	record->minor = query->value[2] & ((1 << 20) - 1);
	rf_submit(record, RF_DEVICE_ACCESS);
}

SEC("cgroup/dev")
int cgroup_device(struct bpf_cgroup_dev_ctx *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 type = ctx->access_type & 0xffff, access = ctx->access_type >> 16;
	__u32 major = ctx->major, minor = ctx->minor, route;
	struct rf_container *container;
	struct rf_query query;
	const struct rf_task *bound;
	struct rf_task fallback;

	bound = rf_cgroup_bound(task, &fallback);
	if (!bound)
		return rf_allow();
	container = rf_container_of(bound);
	if (!container)
		return rf_is_orphan(bound) ? rf_deny() : rf_allow();
	rf_count(bound->slot, RF_COUNT_DEVICE);
	rf_query_init(&query, RF_DEVICE_ACCESS, bound, container);
	query.value[0] = type;
	query.value[1] = access;
	query.value[2] = (__u64)major << 20 | minor;
	query.value[3] = major;
	route = rf_cgroup_finish(&query, task, bound, container, NULL);
	/* Reporting does not change the verdict: an empty bucket must not open the device. */
	if (route != RF_ROUTE_NONE)
		rf_device_record(task, bound, &query, route);
	return rf_refuses(query.action) ? rf_deny() : rf_allow();
}
