// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The program that a task runs, as rules know it. */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/program.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__noinline __u32 rf_program(__u64 address, struct rf_scratch *buffer, struct rf_file *exe,
			    __u64 file, __u64 container_root)
{
	struct task_struct *task = (struct task_struct *)address;
	__u64 root_mount, root_dentry, dentry;
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	__u32 facts;

	if (!buffer || !exe)
		return 0;
	rf_file_read(exe, file);
	facts = rf_program_facts(exe);
	root_dentry = (__u64)BPF_CORE_READ(fs, root.dentry);
	root_mount = (__u64)BPF_CORE_READ(fs, root.mnt) - bpf_core_field_offset(struct mount, mnt);
	dentry = (__u64)RF_READ(struct file, file, f_path.dentry);
	/*
	 * A path is the program's name in the image only from the container's root, and on that
	 * mount.
	 */
	if (root_dentry != container_root || rf_mount_of(exe) != root_mount)
		facts |= RF_PROGRAM_ELSEWHERE;
	rf_path_as_mounted(buffer, dentry, rf_mount_of(exe), root_dentry, root_mount);
	buffer->hash = rf_hash_path(buffer);
	return facts;
}
