// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs, refused while execve can still fail. bprm_check_security is asked for a script and then for its
 * interpreter, and for each with the file that would be run: a memfd, one that the image did not have.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm.h"
#include "include/exec.h"
#include "include/lifecycle.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("lsm/bprm_check_security")
int BPF_PROG(lsm_bprm_check_security, struct linux_binprm *binprm, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_question question;
	struct rf_task *bound, next = {};
	struct rf_scratch *buffer;
	struct rf_file exe;
	__u32 route;
	__u8 flags;

	if (ret)
		return ret;
	bound = rf_bound(task);
	if (!bound)
		return 0;
	container = rf_container_of(bound);
	if (!container)
		return 0;
	buffer = rf_scratch_get();
	__builtin_memcpy(&next, bound, sizeof(next)); /* who the task would be */
	if (!buffer) {
		rf_file_read(&exe, (__u64)BPF_CORE_READ(binprm, file));
		next.facts = rf_program_facts(&exe);
		rf_ask(&question, RF_PROCESS_EXEC, &next, container);
		rf_exec_operands(&question, task, &next, &exe);
		question.known = RF_KNOWS(0) | RF_KNOWS(1) | RF_KNOWS(2); /* not: its path, and by which name */
		rf_learn_facts(&question, task, &next);
		return rf_starved(&question) ? rf_lsm_refused() : 0;
	}
	next.facts = rf_program(rf_address(task), buffer, &exe, (__u64)BPF_CORE_READ(binprm, file),
				((struct rf_armed *)bound)->home);
	next.exe_hash = buffer->hash;
	rf_ask_exec(&question, task, &next, container, &exe, buffer);
	rf_judge(&question, task, &next, NULL);
	flags = rf_lsm_carry_out(&question);
	rf_count_verdict(&question);
	/* Where no rule matched, sched_process_exec tells of it. */
	if (question.action != RF_ACTION_NONE) {
		route = rf_route_verdict(&question, container);
		if (route != RF_TO_NOWHERE)
			rf_exec_record(task, &next, &exe, buffer, &question, route, flags, false);
	}
	rf_scratch_put(buffer);
	return rf_lsm_result(&question);
}
