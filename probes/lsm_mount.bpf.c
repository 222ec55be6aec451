// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Mounts by either API. sb_mount has the kernel's copies of the arguments of mount(2), before any
 * is used. What the new calls make is the same event, decided on the kernel's objects:
 * sb_kern_mount with the filesystem, sb_remount when one changes.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_MS_REMOUNT 32

SEC("lsm/sb_mount")
int RF_HOOK(lsm_sb_mount, const char *device, const struct path *path, const char *type,
	    unsigned long flags, void *data, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_MOUNT);
	rf_lsm_operand(&lsm, 0, flags);
	return rf_lsm_decide_two(&lsm, (__u64)type, (__u64)device);
}

/* Not for mount(2), which sb_mount has decided. */
static __always_inline int rf_lsm_filesystem(const struct super_block *super, __u64 flags)
{
	struct rf_lsm lsm;

	if (!rf_lsm_armed(&lsm) || rf_lsm_query(&lsm, RF_SYS_MOUNT))
		return 0;
	rf_lsm_operand(&lsm, 0, flags);
	return rf_lsm_decide(&lsm, (__u64)BPF_CORE_READ(super, s_type, name));
}

SEC("lsm/sb_kern_mount")
int RF_HOOK(lsm_sb_kern_mount, struct super_block *super, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_filesystem(super, 0);
}

SEC("lsm/sb_remount")
int RF_HOOK(lsm_sb_remount, struct super_block *super, void *options, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_filesystem(super, RF_MS_REMOUNT);
}

SEC("lsm/sb_umount")
int RF_HOOK(lsm_sb_umount, struct vfsmount *mnt, int flags, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_UMOUNT);
	rf_lsm_operand(&lsm, 0, (__u32)flags);
	return rf_lsm_decide_path(&lsm, rf_address(mnt), (__u64)BPF_CORE_READ(mnt, mnt_root));
}

SEC("lsm/sb_pivotroot")
int RF_HOOK(lsm_sb_pivotroot, const struct path *old_path, const struct path *new_path, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_PIVOT_ROOT);
	return rf_lsm_decide_path(&lsm, (__u64)BPF_CORE_READ(new_path, mnt),
				  (__u64)BPF_CORE_READ(new_path, dentry));
}

SEC("lsm/move_mount")
int RF_HOOK(lsm_move_mount, const struct path *from, const struct path *to, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_MOVE_MOUNT);
	return rf_lsm_decide_path(&lsm, (__u64)BPF_CORE_READ(to, mnt),
				  (__u64)BPF_CORE_READ(to, dentry));
}

/*
 * Also fires for each option of mount(2), which is no fsconfig. sb_kern_mount decides the result.
 */
SEC("lsm/fs_context_parse_param")
int RF_HOOK(lsm_fs_context_parse_param, struct fs_context *context, struct fs_parameter *parameter,
	    int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm) || !rf_lsm_query(&lsm, RF_SYS_FSCONFIG))
		return 0;
	return rf_lsm_decide(&lsm, (__u64)BPF_CORE_READ(parameter, key));
}
