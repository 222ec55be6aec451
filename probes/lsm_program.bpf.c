// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs, refused while execve can still fail. bprm_check_security fires for a script and then
 * for its interpreter, each time with the file that would run: a memfd, or one that the image did
 * not have.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/exec.h"
#include "include/lsm.h"
#include "include/program.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("lsm/bprm_check_security")
int RF_HOOK(lsm_bprm_check_security, struct linux_binprm *binprm, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_query query;
	struct rf_armed *armed;
	struct rf_task next = {};
	struct rf_scratch *buffer;
	struct rf_file exe;
	__u32 route;
	__u8 flags;

	if (ret)
		return ret;
	armed = rf_bound(task);
	if (!armed)
		return 0;
	container = rf_container_of_current(&armed->task);
	if (!container)
		return 0;
	buffer = rf_scratch_claim(&armed->scratch);
	__builtin_memcpy(&next, &armed->task, sizeof(next)); /* the task after the exec */
	if (!buffer) {
		rf_file_read(&exe, (__u64)BPF_CORE_READ(binprm, file));
		next.facts = rf_program_facts(&exe);
		rf_exec_fail_no_scratch(&query, task, &next, container, &exe, RF_MECHANISM_LSM);
		return rf_lsm_result(&query);
	}
	next.facts = rf_program(rf_address(task), buffer, &exe, (__u64)BPF_CORE_READ(binprm, file),
				armed->container_root);
	next.exe_hash = buffer->hash;
	rf_exec_query(&query, task, &next, container, &exe, buffer);
	rf_evaluate(&query, task, &next, NULL);
	flags = rf_lsm_enforce(&query);
	rf_count_verdict(&query);
	/* If no rule matched, sched_process_exec reports it. */
	if (query.action != RF_ACTION_NONE) {
		route = rf_route_verdict(&query, container);
		if (route != RF_ROUTE_NONE)
			rf_exec_record(task, &next, &exe, buffer, &query, route, flags, false);
	}
	rf_scratch_release(buffer);
	return rf_lsm_result(&query);
}
