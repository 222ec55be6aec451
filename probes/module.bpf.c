// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The kernel is about to run modprobe because of a task: the module's name is the kernel's own
 * copy. If no LSM hook decides it, the task is killed here. modprobe may run all the same, as a
 * process of the kernel.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tp_btf/module_request")
int BPF_PROG(module_request, char *name, bool wait, unsigned long ip)
{
	struct rf_scratch *buffer;
	struct rf_lsm lsm;
	__u32 route;
	__u8 flags;

	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_MODULE_REQUEST);
	buffer = rf_scratch_claim(&lsm.armed->scratch);
	if (!buffer) {
		rf_fail_no_text(&lsm.query, lsm.task, &lsm.armed->task, RF_MECHANISM_KILL);
		return 0;
	}
	flags = rf_lsm_text(buffer, RF_MODULE_REQUEST, rf_address(name));
	lsm.query.text = buffer->bit + 1;
	lsm.query.worst_case = buffer->truncated;
	rf_evaluate(&lsm.query, lsm.task, &lsm.armed->task, NULL);
	flags |= rf_enforce(&lsm.query);
	rf_count_verdict(&lsm.query);
	route = rf_route(RF_MODULE_REQUEST, lsm.armed->task.slot, lsm.container, lsm.query.action);
	if (route != RF_ROUTE_NONE)
		rf_call_record(&lsm.query, &lsm.call, route, flags, 0);
	rf_scratch_release(buffer);
	return 0;
}
