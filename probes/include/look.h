/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Relations of processes, carried to what is reached through them.
 * `owner` is RF_MOUNT_* of an opened file. The functions return it, corrected if the file is not
 * the task's and was reached through a process that is not of the container, and with the relation
 * of the process to which a file of /proc/PID belongs (<< RF_OWNER_PROCESS).
 */
#ifndef RINGFENCE_LOOK_H
#define RINGFENCE_LOOK_H

#include "open.h"

/* The relation alone. */
__u32 rf_with_process(__u64 inode, __u64 magic, __u32 owner);

/*
 * At the exit of the call, by the descriptors that the task holds: there is no hook that could have
 * seen the look.
 */
__u32 rf_reached_by_call(__u64 inode, __u64 magic, __u32 owner, __u32 fd);

/*
 * Returns true if an object is the task's own or not depending on the process through which it was
 * reached: it has no mount, or is no file of the mount where it is. Others are judged by the mount.
 */
static __always_inline bool rf_is_held_object(__u64 inode, __u32 owner)
{
	__u32 type = RF_READ(struct inode, inode, i_mode) & RF_S_IFMT;

	return owner == RF_MOUNT_INTERNAL || (owner != RF_MOUNT_OWN && type != RF_S_IFREG &&
					      type != RF_S_IFDIR && type != RF_S_IFBLK);
}

/* Returns true if it has to be called: most files are on the task's own mounts, and not of proc. */
static __always_inline bool rf_is_reached(const struct rf_file *file, __u32 owner)
{
	return owner != RF_MOUNT_OWN || file->magic == RF_MAGIC_PROC;
}

#endif
