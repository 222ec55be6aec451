/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a file is, whatever its name: filesystem, device, inode, mount, and path from the root of
 * its filesystem. A bind mount, a symlink or a second mount of the filesystem changes none of
 * these. Kernel pointers that were read are numbers here (__u64): they are only read from.
 */
#ifndef RINGFENCE_OBJECT_H
#define RINGFENCE_OBJECT_H

#include "namespaces.h"
#include "path.h"
#include "tasks.h"
#include "task_facts.h"

#define RF_S_IFMT 0170000
#define RF_S_IFCHR 0020000
#define RF_S_IFDIR 0040000
#define RF_S_IFBLK 0060000
#define RF_S_IFREG 0100000
#define RF_S_IFLNK 0120000
#define RF_S_IFSOCK 0140000
#define RF_S_ISUGID 06000
#define RF_O_ACCMODE 03 /* of f_flags */

/* To which mount namespace the mount belongs by which a file is reached. */
#define RF_MOUNT_OWN 0	 /* the task's, or another one of its container */
#define RF_MOUNT_OTHER 1 /* another one */
#define RF_MOUNT_NONE 2	 /* none: detached, or not attached yet */
/* the task's own, but the file is not below the mount's root: reached by its handle */
#define RF_MOUNT_OUTSIDE 3
#define RF_MOUNT_INTERNAL 4 /* private to the kernel: of a pipe, a memfd, a socket, a namespace */
#define RF_MOUNT_PROCESS 5  /* not the task's, and reached through a foreign process: look.h */

struct rf_file {
	__u64 mnt;
	__u64 dentry;
	__u64 inode;
	__u64 super;
	__u64 magic;
	__u32 mode;
	__u32 flags;
};

/*
 * Adjacent fields are read by one copy and then picked out of it: one call for each is most of the
 * cost of an open. The distance is that of the running kernel; a field beyond the copy is read
 * alone.
 */
#define RF_FILE_HEAD 80
#define RF_INODE_HEAD 48
#define RF_PICK(copy, address, type, field)                                    \
	({                                                                     \
		typeof(((type *)0)->field) __value = 0;                        \
		__u32 __offset = bpf_core_field_offset(type, field);           \
		if (__offset + sizeof(__value) <= sizeof(copy))                \
			__value = *(typeof(__value) *)((copy) + __offset);     \
		else                                                           \
			bpf_probe_read_kernel(&__value, sizeof(__value),       \
					      (void *)((address) + __offset)); \
		__value;                                                       \
	})

/* On a stack frame of its own: with the copies in it, open_exit and rf_match exceed 512 bytes. */
rf_subprogram void rf_file_read(struct rf_file *out, __u64 file)
{
	char head[RF_FILE_HEAD] __attribute__((aligned(8)));
	char inode[RF_INODE_HEAD] __attribute__((aligned(8)));

	bpf_probe_read_kernel(head, sizeof(head), (void *)file);
	out->dentry = (__u64)RF_PICK(head, file, struct file, f_path.dentry);
	out->flags = RF_PICK(head, file, struct file, f_flags);
	out->mnt = (__u64)RF_PICK(head, file, struct file, f_path.mnt);
	out->inode = (__u64)RF_PICK(head, file, struct file, f_inode);
	bpf_probe_read_kernel(inode, sizeof(inode), (void *)out->inode);
	out->mode = RF_PICK(inode, out->inode, struct inode, i_mode);
	out->super = (__u64)RF_PICK(inode, out->inode, struct inode, i_sb);
	out->magic = RF_READ(struct super_block, out->super, s_magic);
}

/*
 * A file that is not open, by its mount and name. `inode` 0: it does not exist yet, and the mode is
 * that of the caller.
 */
rf_subprogram void rf_file_named(struct rf_file *out, __u64 mnt, __u64 dentry, __u64 inode)
{
	out->mnt = mnt;
	out->dentry = dentry;
	out->inode = inode;
	out->super = (__u64)RF_READ(struct dentry, dentry, d_sb);
	out->magic = RF_READ(struct super_block, out->super, s_magic);
	out->flags = 0;
	out->mode = inode ? RF_READ(struct inode, inode, i_mode) : 0;
}

/* The file behind a descriptor of the current task; 0: none. */
__u64 rf_file_of_fd(__u32 fd);

/* The struct pid of a file or directory of /proc/PID, by its inode; 0: it is of no process. */
static __always_inline __u64 rf_pid_of_proc(__u64 inode)
{
	return (__u64)RF_READ(struct proc_inode,
			      inode - bpf_core_field_offset(struct proc_inode, vfs_inode), pid);
}

/* The struct pid behind a pidfd, or a directory of /proc/PID; 0: it is neither. */
static __always_inline __u64 rf_pid_of_fd(__u32 fd)
{
	__u64 file = rf_file_of_fd(fd);
	__u64 inode, super, magic, dentry, name = 0;

	if (!file)
		return 0;
	inode = (__u64)RF_READ(struct file, file, f_inode);
	super = (__u64)RF_READ(struct inode, inode, i_sb);
	magic = RF_READ(struct super_block, super, s_magic);
	if (magic == RF_MAGIC_PROC)
		return rf_pid_of_proc(inode);
	if (magic == RF_MAGIC_PIDFS)
		return (__u64)RF_READ(struct inode, inode, i_private);
	if (magic != RF_MAGIC_ANON_INODE)
		return 0;
	dentry = (__u64)RF_READ(struct file, file, f_path.dentry);
	bpf_probe_read_kernel(&name, sizeof(name), RF_READ(struct dentry, dentry, d_name.name));
	return name == RF_PIDFD_NAME ? (__u64)RF_READ(struct file, file, private_data) : 0;
}

/* The task of a struct pid, of a process or another thread; 0: it is gone. */
static __always_inline __u64 rf_task_of_pid(__u64 pid)
{
	__u64 link = (__u64)RF_READ(struct pid, pid, tasks[0].first);

	return link ? link - bpf_core_field_offset(struct task_struct, pid_links[0]) : 0;
}

#define RF_PIDTYPE_PGID 2

/* A process of the group that a struct pid is the number of; 0: there is none. */
static __always_inline __u64 rf_task_of_group(__u64 pid)
{
	__u64 link = (__u64)RF_READ(struct pid, pid, tasks[RF_PIDTYPE_PGID].first);

	return link ? link - bpf_core_field_offset(struct task_struct, pid_links[RF_PIDTYPE_PGID])
		    : 0;
}

static __always_inline __u64 rf_mount_of(const struct rf_file *file)
{
	return file->mnt - bpf_core_field_offset(struct mount, mnt);
}

/* RF_MOUNT_* of a mount that is not in the task's mount namespace. */
rf_subprogram __u32 rf_other_mount_owner(__u64 ns, const struct rf_task *bound)
{
	if (!ns)
		return RF_MOUNT_NONE;
	if (rf_is_error(ns))
		return RF_MOUNT_INTERNAL;
	if (rf_mnt_ns_is_anonymous(ns))
		return RF_MOUNT_NONE;
	return rf_owns_ns(bound->slot, bound->container, RF_NS_COMMON(mnt_namespace, ns))
		       ? RF_MOUNT_OWN
		       : RF_MOUNT_OTHER;
}

/* Returns 1 if it is the mount namespace of the current task. */
int rf_is_own_mnt_ns(__u64 ns);

/* RF_MOUNT_* of the mount through which a file was opened by the current task. */
static __always_inline __u32 rf_mount_owner(const struct rf_task *bound, const struct rf_file *file)
{
	__u64 ns = (__u64)RF_READ(struct mount, rf_mount_of(file), mnt_ns);

	return rf_is_own_mnt_ns(ns) ? RF_MOUNT_OWN : rf_other_mount_owner(ns, bound);
}

/*
 * Returns true if a name is `root` or below it, both of the filesystem `super`. Everything is below
 * the root of the whole filesystem. A name that is too deep counts as outside.
 */
rf_subprogram bool rf_is_below(__u64 dentry, __u64 root, __u64 super)
{
	__u32 depth;

	if (root == (__u64)RF_READ(struct super_block, super, s_root))
		return true;
	for (depth = 0; depth < RF_CLIMBS; depth++) {
		dentry = rf_climb(dentry, root);
		if (dentry == root)
			return true;
		if (!dentry)
			return false;
	}
	return false;
}

/*
 * Returns true if a file is below the root of the mount through which it was opened. A handle
 * reaches any file of the filesystem.
 */
static __always_inline bool rf_below_root(const struct rf_file *file)
{
	return rf_is_below(file->dentry, (__u64)RF_READ(struct vfsmount, file->mnt, mnt_root),
			   file->super);
}

/* RF_MOUNT_*, including the check of the mount's root. */
static __always_inline __u32 rf_mount_owner_or_outside(struct task_struct *task,
						       const struct rf_task *bound,
						       const struct rf_file *file)
{
	__u32 owner = rf_mount_owner(bound, file);

	return owner == RF_MOUNT_OWN && !rf_below_root(file) ? RF_MOUNT_OUTSIDE : owner;
}

/* The inum of the namespace of the file's mount; 0: none. */
static __always_inline __u32 rf_mount_ns(const struct rf_file *file)
{
	__u64 ns = (__u64)RF_READ(struct mount, rf_mount_of(file), mnt_ns);

	return !ns || rf_is_error(ns) ? 0 : RF_READ(struct mnt_namespace, ns, ns.inum);
}

static __always_inline void rf_object_read(struct rf_object *object, const struct rf_file *file)
{
	object->device = RF_READ(struct super_block, file->super, s_dev);
	object->inode = RF_READ(struct inode, file->inode, i_ino);
	object->fs_magic = file->magic;
}

/* Returns true if a directory is the root of the host's files, by any name; false if unknown. */
static __always_inline bool rf_is_host_root(__u64 dentry)
{
	__u64 inode = (__u64)RF_READ(struct dentry, dentry, d_inode);

	return config.host_root_device &&
	       RF_READ(struct inode, inode, i_ino) == config.host_root_inode &&
	       RF_READ(struct inode, inode, i_sb, s_dev) == config.host_root_device;
}

#endif
