// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What only a hook on inodes sees. These hooks also fire for what overlayfs does for a process,
 * which is not decided.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Returns true if a filesystem acts for the task, with credentials that it lent. An io_uring lends
 * a task credentials for its requests; those count.
 */
static __always_inline bool rf_has_borrowed_creds(const struct rf_lsm *lsm)
{
	/* A variable: BPF_CORE_READ would relocate the member of the probes' own struct. */
	struct task_struct *task = lsm->task;

	return BPF_CORE_READ(task, cred) != BPF_CORE_READ(task, real_cred) &&
	       lsm->call.nr != RF_NO_CALL && lsm->call.nr != RF_NR_IO_URING_ENTER;
}

/* security.capability makes a program as good as setuid. By the kernel's copy of the name. */
SEC("lsm/inode_setxattr")
int BPF_PROG(lsm_inode_setxattr, void *idmap, struct dentry *dentry, const char *name)
{
	struct rf_lsm lsm;

	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_SETXATTR);
	if (rf_has_borrowed_creds(&lsm))
		return 0;
	rf_lsm_operand(&lsm, 0, BPF_CORE_READ(dentry, d_sb, s_magic));
	return rf_lsm_decide(&lsm, rf_address(name));
}
