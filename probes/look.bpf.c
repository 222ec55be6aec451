// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Which process a file of /proc/PID belongs to, and where no hook sees a look into a process,
 * whether an opened file was the task's own before. See look.h.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/look.h"
#include "include/operands.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__noinline __u32 rf_with_process(__u64 inode, __u64 magic, __u32 owner)
{
	__u64 pid = magic == RF_MAGIC_PROC ? rf_pid_of_proc(inode) : 0;

	if (!pid)
		return owner;
	return owner | (RF_OF_PROCESS | rf_relation_of_struct_pid(pid)) << RF_OWNER_PROCESS;
}

/* Descriptors that are compared. A process that holds its pipes higher than this is rare. */
#define RF_HELD_DESCRIPTORS 64

/*
 * Returns 1 if the descriptor is another than `fd`, of that inode. The numbers are compared here:
 * a verifier that learns one of them in the loop below follows the rest of the loop for each.
 */
__noinline int rf_is_of_inode(__u64 inode, __u32 other, __u32 fd)
{
	__u64 file = other != fd ? rf_file_of_fd(other) : 0;

	return file && (__u64)RF_READ(struct file, file, f_inode) == inode;
}

/* Returns 1 if another descriptor of the task than `fd` is of that inode. */
__noinline int rf_holds_inode(__u64 inode, __u32 fd)
{
	__u32 other;

	for (other = 0; other < RF_HELD_DESCRIPTORS; other++) {
		if (rf_is_of_inode(inode, other, fd))
			return 1;
	}
	return 0;
}

/*
 * Only in the host's pid namespace are there processes of the host to reach something through. An
 * object without a mount, or a FIFO or terminal of another mount, is the task's own if it holds a
 * descriptor of it: then it was opened by /proc/self/fd, as /dev/stdout is. A namespace is judged
 * where it is entered.
 */
__noinline __u32 rf_reached_by_call(__u64 inode, __u64 magic, __u32 owner, __u32 fd)
{
	if (rf_is_held_object(inode, owner) && magic != RF_MAGIC_NSFS &&
	    rf_pid_ns(bpf_get_current_task_btf()) == config.host_pid_ns &&
	    !rf_holds_inode(inode, fd))
		owner = RF_MOUNT_PROCESS;
	return rf_with_process(inode, magic, owner);
}
