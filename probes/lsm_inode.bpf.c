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
int RF_HOOK_NO_RESULT(lsm_inode_setxattr, void *idmap, struct dentry *dentry, const char *name)
{
	return rf_decide_attribute(dentry, name);
}

SEC("lsm/inode_removexattr")
int RF_HOOK(lsm_inode_removexattr, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	return ret ? ret : rf_decide_attribute(dentry, name);
}

/* 6.2: 72b3897e7736. Before, inode_setxattr sees access lists, too. */
SEC("lsm/inode_set_acl")
int RF_HOOK_NO_RESULT(lsm_inode_set_acl, void *idmap, struct dentry *dentry, const char *name)
{
	return rf_decide_attribute(dentry, name);
}

SEC("lsm/inode_remove_acl")
int RF_HOOK(lsm_inode_remove_acl, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	return ret ? ret : rf_decide_attribute(dentry, name);
}

/*
 * Inode flags, by file_setattr(2) and by the ioctls that a rule on ioctl() also sees. From 6.17 on
 * ("lsm: introduce new hooks for setting/getting inode fsxattr").
 */
SEC("lsm/inode_file_setattr")
int RF_HOOK(lsm_inode_file_setattr, struct dentry *dentry, void *flags, int ret)
{
	return ret ? ret : rf_decide_attribute(dentry, NULL);
}

/* include/linux/fs.h. Mode, owner and size come to the hooks on paths. */
#define RF_ATTR_SIZE 8
#define RF_ATTR_TIMES 0x30 /* ATTR_ATIME, ATTR_MTIME */

/*
 * Times, by utimensat(2). In 6.9 the hook got a first argument ("security: Align inode_setattr hook
 * definition with EVM"), and inode_post_setattr came with it. The result of earlier programs, which
 * is 0 here, is not read, as its place differs. All arguments are read at fixed places, which the
 * verifier requires and the compiler would not keep.
 */
SEC("lsm/inode_setattr")
int RF_HOOK_NO_RESULT(lsm_inode_setattr, __u64 first, __u64 second, __u64 third)
{
	struct iattr *changes;
	unsigned int valid;
	__u64 dentry;

	barrier_var(first);
	barrier_var(second);
	barrier_var(third);
	if (bpf_core_field_exists(union security_list_options, inode_post_setattr)) {
		dentry = second;
		changes = (struct iattr *)third;
	} else {
		dentry = first;
		changes = (struct iattr *)second;
	}
	valid = BPF_CORE_READ(changes, ia_valid);
	if (valid & RF_ATTR_SIZE || !(valid & RF_ATTR_TIMES))
		return 0;
	return rf_decide_attribute((struct dentry *)dentry, NULL);
}
