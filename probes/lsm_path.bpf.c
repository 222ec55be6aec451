// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What changes directories and modes. The hooks on paths, not those on inodes: they are asked for what a process
 * does by a call (or by an io_uring), and not when overlayfs makes its own nodes on the process's behalf.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * mknod, and open with O_CREAT: a file that is setuid from the start is as good as a chmod. A socket that is
 * bound comes here, too, and is no mknod.
 */
SEC("lsm/path_mknod")
int BPF_PROG(lsm_path_mknod, const struct path *dir, struct dentry *dentry, umode_t mode, unsigned int dev, int ret)
{
	__u32 type = mode & RF_S_IFMT;
	struct rf_lsm lsm;
	__u64 name;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	name = (__u64)BPF_CORE_READ(dentry, d_name.name);
	if (!type)
		type = RF_S_IFREG;
	if (type == RF_S_IFREG && mode & RF_S_ISUGID) {
		rf_lsm_ask(&lsm, RF_SYS_CHMOD);
		rf_lsm_operand(&lsm, 0, mode);
		if (rf_lsm_decide(&lsm, name))
			return rf_lsm_refused();
	}
	if (!rf_lsm_ask(&lsm, RF_SYS_MKNOD) && (type == RF_S_IFREG || type == RF_S_IFSOCK))
		return 0;
	rf_lsm_operand(&lsm, 0, type);
	return rf_lsm_decide(&lsm, name);
}

/* open with O_TMPFILE makes it, and linkat gives it a name: asked by beside_file_open (lsm_invariants.bpf.c). */
__noinline int rf_decide_tmpfile(__u32 mode)
{
	struct rf_lsm lsm;

	if (!rf_lsm_armed(&lsm))
		return RF_ACTION_NONE;
	rf_lsm_ask(&lsm, RF_SYS_CHMOD);
	rf_lsm_operand(&lsm, 0, mode);
	rf_lsm_decide(&lsm, 0);
	return lsm.question.action;
}

SEC("lsm/path_symlink")
int BPF_PROG(lsm_path_symlink, const struct path *dir, struct dentry *dentry, const char *target, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_ask(&lsm, RF_SYS_SYMLINK);
	return rf_lsm_decide(&lsm, (__u64)target);
}

SEC("lsm/path_chmod")
int BPF_PROG(lsm_path_chmod, const struct path *path, umode_t mode, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_ask(&lsm, RF_SYS_CHMOD);
	rf_lsm_operand(&lsm, 0, mode);
	return rf_lsm_decide_path(&lsm, (__u64)BPF_CORE_READ(path, mnt), (__u64)BPF_CORE_READ(path, dentry));
}

SEC("lsm/path_chroot")
int BPF_PROG(lsm_path_chroot, const struct path *path, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_ask(&lsm, RF_SYS_CHROOT);
	return rf_lsm_decide_path(&lsm, (__u64)BPF_CORE_READ(path, mnt), (__u64)BPF_CORE_READ(path, dentry));
}
