// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Opens, refused before they have any effect on what is there: file_open comes before the file's own open
 * and before O_TRUNC empties it. A file that O_CREAT makes is there by then, empty. O_PATH asks no hook: such
 * a descriptor gives no access to the file, and what is opened through it comes here.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/drift.h"
#include "include/lsm.h"
#include "include/open.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_FMODE_EXEC 0x20	      /* __FMODE_EXEC in f_flags: a program or its interpreter, see process.exec */
#define RF_FMODE_NOACCOUNT 0x20000000 /* a file behind a file of overlayfs, fuse ...: the kernel's own */

SEC("lsm/file_open")
int BPF_PROG(lsm_file_open, struct file *opened, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_question question;
	struct rf_task *bound;
	struct rf_file file;
	__u32 answer, event = RF_FILE_OPEN, *level;
	bool compat;

	if (ret)
		return ret;
	bound = rf_bound(task);
	if (!bound)
		return 0;
	container = rf_container_of(bound);
	if (!container || opened->f_flags & RF_FMODE_EXEC || opened->f_mode & RF_FMODE_NOACCOUNT)
		return 0;
	if (rf_lsm_refuses(rf_checkpoint(task, bound, RF_FILE_OPEN | RF_AT_HOOK)))
		return -RF_EPERM;
	rf_count(bound->slot, RF_COUNT_OPEN);
	rf_file_read(&file, (__u64)opened);
	compat = rf_in_compat(task);
	answer = rf_first_look(&question, task, bound, container, &file, compat);
	if (answer == RF_MATCH_NOTHING) {
		level = bpf_map_lookup_elem(&observe, &event);
		if (!level || *level == RF_OBSERVE_OFF)
			return 0;
		rf_ask(&question, RF_FILE_OPEN, bound, container);
	}
	rf_second_look(&question, task, bound, container, &file, answer, -1, compat ? RF_FLAG_COMPAT : 0,
		       RF_MECHANISM_LSM);
	return rf_lsm_result(&question);
}
