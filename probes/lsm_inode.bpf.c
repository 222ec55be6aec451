// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What only a hook on inodes sees. These hooks also fire for what overlayfs does for a process,
 * which is not decided.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm.h"
#include "include/own_root.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_DIM_XATTR_TREE 1

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

/*
 * security.capability makes a program as good as setuid, an access list makes a file of the host
 * writable. By the kernel's copy of the name. An inode has no mount: of the file only its
 * filesystem and whose tree it is in are known.
 */
static __always_inline int rf_decide_attribute(struct dentry *dentry, const char *name)
{
	struct rf_lsm lsm;

	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_SETXATTR);
	if (rf_has_borrowed_creds(&lsm))
		return 0;
	rf_lsm_operand(&lsm, 0, BPF_CORE_READ(dentry, d_sb, s_magic));
	rf_lsm_operand(&lsm, RF_DIM_XATTR_TREE,
		       rf_whose_name(rf_address(dentry), lsm.armed->container_root));
	return rf_lsm_decide(&lsm, rf_address(name));
}

SEC("lsm/inode_setxattr")
int BPF_PROG(lsm_inode_setxattr, void *idmap, struct dentry *dentry, const char *name)
{
	return rf_decide_attribute(dentry, name);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(lsm_inode_removexattr, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	return ret ? ret : rf_decide_attribute(dentry, name);
}

/* 6.2: 72b3897e7736. Before, inode_setxattr sees access lists, too. */
SEC("lsm/inode_set_acl")
int BPF_PROG(lsm_inode_set_acl, void *idmap, struct dentry *dentry, const char *name)
{
	return rf_decide_attribute(dentry, name);
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(lsm_inode_remove_acl, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	return ret ? ret : rf_decide_attribute(dentry, name);
}
