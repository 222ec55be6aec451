// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The invariants, and other decisions at opens. At an open: drift of the task (drift.bpf.c), and
 * O_TMPFILE with set-id bits. Before an exec: drift of the task, and usermode helpers
 * (usermode_helper.bpf.c). bprm_creds_for_exec (5.8) fires once, with the requested file: for a
 * script, the script and not its interpreter.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/drift.h"
#include "include/lsm.h"
#include "include/lsm_path.h"
#include "include/open.h"
#include "include/usermode_helper.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("lsm/bprm_creds_for_exec")
int RF_HOOK(lsm_bprm_creds_for_exec, struct linux_binprm *binprm, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);

	if (ret)
		return ret;
	if (armed && armed->task.container) {
		return rf_lsm_verdict(rf_drift_examine(RF_PROCESS_EXEC | RF_AT_ENTRY | RF_AT_HOOK));
	}
	if (!config.helper_hook || !rf_is_usermode_helper(task, 0))
		return 0;
	return rf_lsm_verdict(rf_helper_decide(rf_address(binprm), true));
}

#define RF_O_TMPFILE 020000000
#define RF_TMPFILE_SETID 06000

/* Decided at opens besides the rules on files, on a stack of its own: drift, and set-id bits. */
SEC("lsm/file_open")
int RF_HOOK(beside_file_open, struct file *opened, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);
	__u64 dentry;
	__u32 mode;

	if (ret)
		return ret;
	if (!armed)
		return 0;
	if (RF_FIELD(behind, opened, f_flags) & RF_O_TMPFILE) {
		mode = BPF_CORE_READ(opened, f_inode, i_mode);
		dentry = (__u64)BPF_CORE_READ(opened, f_path.dentry);
		if (mode & RF_TMPFILE_SETID && rf_decide_setid(mode, dentry, 0) > RF_ACTION_ALERT)
			return rf_lsm_refused();
	}
	return rf_lsm_verdict(rf_drift_check(task, armed, RF_FILE_OPEN | RF_AT_HOOK));
}
