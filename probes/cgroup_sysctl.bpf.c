// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Reads and writes of sysctls below /proc/sys, by the kernel's own name for them
 * (kernel/core_pattern), through any mount of procfs.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/cgroup.h"
#include "include/scratch.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("cgroup/sysctl")
int cgroup_sysctl(struct bpf_sysctl *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 write = ctx->write, route;
	struct rf_container *container;
	struct rf_sysctl_event *record;
	struct rf_query query;
	struct rf_scratch *buffer;
	const struct rf_task *bound;
	struct rf_task fallback;
	long len;

	bound = rf_cgroup_bound(task, &fallback);
	if (!bound)
		return rf_allow();
	container = rf_container_of(bound);
	if (!container)
		return rf_is_orphan(bound) ? rf_deny() : rf_allow();
	rf_count(bound->slot, RF_COUNT_SYSCTL);
	rf_query_init(&query, RF_SYSCTL_ACCESS, bound, container);
	query.value[0] = write;
	buffer = rf_cgroup_buffer(task);
	if (!buffer)
		return rf_fail_no_text(&query, task, bound, RF_MECHANISM_CGROUP) ? rf_deny()
										 : rf_allow();
	buffer->text.prefixlen = 32 + 8 * RF_MATCH_TEXT;
	buffer->text.event = RF_SYSCTL_ACCESS;
	buffer->text.dim = RF_DIM_OBJECT;
	len = bpf_sysctl_get_name(ctx, buffer->text.text, RF_SYSCTL_LEN, 0);
	query.text = buffer->bit + 1;
	query.worst_case = len < 0; /* longer than any name that the kernel has */
	route = rf_cgroup_finish(&query, task, bound, container, NULL);
	if (route != RF_ROUTE_NONE) {
		record = RF_RECORD(rf_sysctl_event, RF_SYSCTL_ACCESS, bound->slot, route);
		if (record) {
			rf_header(&record->header, RF_SYSCTL_ACCESS, task, bound);
			rf_header_verdict(&record->header, &query, task, bound);
			record->header.flags = len < 0 ? RF_FLAG_TRUNCATED : 0;
			record->write = write;
			record->name_len = len < 0 ? RF_SYSCTL_LEN - 1 : len;
			bpf_probe_read_kernel_str(record->name, sizeof(record->name),
						  buffer->text.text);
			rf_submit(record, RF_SYSCTL_ACCESS);
		}
	}
	rf_scratch_put(buffer);
	return rf_refuses(query.action) ? rf_deny() : rf_allow();
}
