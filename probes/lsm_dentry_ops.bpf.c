// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Operations on names of files. A task that may not open a file for writing may not give it a name,
 * remove its name, or put another file in its place. So the rules of file.open decide link, rename,
 * unlink, mkdir, mknod, symlink, truncate, chmod, chown and leases, by the path that the name has
 * or will have, with the attributes of its file. O_CREAT comes here, too, before the file exists.
 *
 * In a directory that is not of the task's own mounts (a leaked descriptor, /proc/PID/root), the
 * directory is decided as well, for every operation in it.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm.h"
#include "include/open.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* In `access`, beside the flags of an open: an open follows, which reports. */
#define RF_NAME_QUIET (1U << 31)

/* include/uapi/linux/fcntl.h */
#define RF_F_SETLEASE 1024
#define RF_F_UNLCK 2

static __always_inline __u32 rf_name_evaluate(const struct rf_lsm *lsm, const struct rf_file *file,
					      __u32 owner, bool quiet)
{
	bool compat = rf_in_compat(lsm->task);
	struct rf_query query;
	__u32 answer;

	answer = rf_file_query(&query, RF_FILE_OPEN, lsm->task, &lsm->armed->task, lsm->container,
			       file, rf_file_type_opened(file, owner, lsm->armed, true), compat);
	if (answer == RF_MATCH_NOTHING)
		return RF_ACTION_NONE;
	rf_file_decide(&query, lsm->task, lsm->armed, lsm->container, file, answer, -1,
		       compat ? RF_FLAG_COMPAT : 0, RF_MECHANISM_LSM, quiet);
	return query.action;
}

/*
 * Decides a name in a directory. `inode`: the file that it leads to or will lead to; 0: a new one
 * with that mode.
 */
__noinline int rf_decide_name(__u64 mnt, __u64 dentry, __u64 inode, __u32 mode, __u32 access)
{
	struct rf_file file;
	struct rf_lsm lsm;
	__u32 owner;

	if (!rf_lsm_armed(&lsm))
		return RF_ACTION_NONE;
	rf_file_named(&file, mnt, dentry, inode);
	if (!inode)
		file.mode = mode;
	file.flags = access & ~RF_NAME_QUIET;
	owner = rf_mount_owner_or_outside(lsm.task, &lsm.armed->task, &file);
	return rf_name_evaluate(&lsm, &file, owner, access & RF_NAME_QUIET);
}

/* Decides the directory of a name, if it is not of the task's own mounts. */
__noinline int rf_decide_directory(__u64 mnt, __u64 dentry)
{
	struct rf_file file;
	struct rf_lsm lsm;
	__u32 owner;

	if (!rf_lsm_armed(&lsm))
		return RF_ACTION_NONE;
	rf_file_named(&file, mnt, dentry, (__u64)RF_READ(struct dentry, dentry, d_inode));
	file.flags = RF_O_WRONLY;
	owner = rf_mount_owner_or_outside(lsm.task, &lsm.armed->task, &file);
	if (owner == RF_MOUNT_OWN)
		return RF_ACTION_NONE;
	return rf_name_evaluate(&lsm, &file, owner, false);
}

static __always_inline bool rf_refuses_in_directory(const struct path *dir)
{
	return rf_refuses(rf_decide_directory((__u64)BPF_CORE_READ(dir, mnt),
					      (__u64)BPF_CORE_READ(dir, dentry)));
}

static __always_inline __u64 rf_inode_of(const struct dentry *dentry)
{
	return (__u64)BPF_CORE_READ(dentry, d_inode);
}

static __always_inline __u32 rf_type_of(__u64 inode)
{
	return RF_READ(struct inode, inode, i_mode) & RF_S_IFMT;
}

/*
 * Returns true if the task is opening a file, so that file_open decides, too. A worker of an
 * io_uring makes files in no other way.
 */
static __always_inline bool rf_is_opening(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_call call;

	return !rf_call_in_progress(task, &call) || rf_is_open_call(&call);
}

static __always_inline int rf_lsm_name_added(const struct path *dir, struct dentry *dentry,
					     __u32 mode, __u32 quiet)
{
	__u64 mnt = (__u64)BPF_CORE_READ(dir, mnt);

	if (!rf_bound(bpf_get_current_task_btf()))
		return 0;
	if (rf_refuses_in_directory(dir))
		return rf_lsm_refused();
	return rf_lsm_verdict(
		rf_decide_name(mnt, rf_address(dentry), 0, mode, RF_O_WRONLY | RF_O_CREAT | quiet));
}

/* mknod, bind, and open with O_CREAT. */
SEC("lsm/path_mknod")
int RF_HOOK(names_path_mknod, const struct path *dir, struct dentry *dentry, umode_t mode,
	    unsigned int dev, int ret)
{
	if (ret)
		return ret;
	if (mode & RF_S_IFMT && (mode & RF_S_IFMT) != RF_S_IFREG)
		return rf_lsm_name_added(dir, dentry, mode, 0);
	return rf_lsm_name_added(dir, dentry, mode | RF_S_IFREG,
				 rf_is_opening() ? RF_NAME_QUIET : 0);
}

SEC("lsm/path_mkdir")
int RF_HOOK(names_path_mkdir, const struct path *dir, struct dentry *dentry, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_name_added(dir, dentry, mode | RF_S_IFDIR, 0);
}

SEC("lsm/path_symlink")
int RF_HOOK(names_path_symlink, const struct path *dir, struct dentry *dentry, const char *target,
	    int ret)
{
	if (ret)
		return ret;
	return rf_lsm_name_added(dir, dentry, RF_S_IFLNK, 0);
}

static __always_inline int rf_lsm_name_removed(const struct path *dir, struct dentry *dentry)
{
	__u64 mnt = (__u64)BPF_CORE_READ(dir, mnt);

	if (!rf_bound(bpf_get_current_task_btf()))
		return 0;
	if (rf_refuses_in_directory(dir))
		return rf_lsm_refused();
	return rf_lsm_verdict(rf_decide_name(mnt, rf_address(dentry), rf_inode_of(dentry), 0,
					     RF_O_WRONLY | RF_NAME_REMOVED));
}

SEC("lsm/path_unlink")
int RF_HOOK(names_path_unlink, const struct path *dir, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_name_removed(dir, dentry);
}

SEC("lsm/path_rmdir")
int RF_HOOK(names_path_rmdir, const struct path *dir, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_name_removed(dir, dentry);
}

/* A rule on the file's path would not apply to the other name: so for reading and writing. */
SEC("lsm/path_link")
int RF_HOOK(names_path_link, struct dentry *old_dentry, const struct path *new_dir,
	    struct dentry *new_dentry, int ret)
{
	__u64 mnt = (__u64)BPF_CORE_READ(new_dir, mnt), inode = rf_inode_of(old_dentry);

	if (ret)
		return ret;
	if (!rf_bound(bpf_get_current_task_btf()))
		return 0;
	if (rf_refuses_in_directory(new_dir) ||
	    rf_refuses(rf_decide_name(mnt, rf_address(old_dentry), inode, 0,
				      RF_O_RDWR | RF_NAME_MOVED)))
		return rf_lsm_refused();
	return rf_lsm_verdict(
		rf_decide_name(mnt, rf_address(new_dentry), inode, 0, RF_O_WRONLY | RF_NAME_MOVED));
}

#define RF_RENAME_EXCHANGE 2

/*
 * The file gets another name, and the file that had it is replaced, or gets the first name. The
 * flags came in 5.19 (100f59d96405). Before, their place has the result of earlier programs, which
 * is 0 here, and an exchange is decided twice.
 */
SEC("lsm/path_rename")
int RF_HOOK_NO_RESULT(names_path_rename, const struct path *old_dir, struct dentry *old_dentry,
		      const struct path *new_dir, struct dentry *new_dentry, unsigned int flags)
{
	__u64 mnt = (__u64)BPF_CORE_READ(old_dir, mnt), moved = rf_inode_of(old_dentry),
	      other = rf_inode_of(new_dentry);
	__u64 from = rf_address(old_dentry), to = rf_address(new_dentry);
	bool exchange = flags & RF_RENAME_EXCHANGE;

	if (!rf_bound(bpf_get_current_task_btf()))
		return 0;
	if (rf_refuses_in_directory(old_dir) || rf_refuses_in_directory(new_dir))
		return rf_lsm_refused();
	if (rf_refuses(rf_decide_name(mnt, from, moved, 0, RF_O_RDWR | RF_NAME_MOVED)))
		return rf_lsm_refused();
	if (!other || rf_type_of(moved) !=
			      rf_type_of(other)) { /* else it is the same query as the last one */
		if (rf_refuses(rf_decide_name(mnt, to, moved, 0, RF_O_WRONLY | RF_NAME_MOVED)))
			return rf_lsm_refused();
	}
	if (!other)
		return 0;
	if (exchange &&
	    rf_refuses(rf_decide_name(mnt, from, other, 0, RF_O_WRONLY | RF_NAME_MOVED)))
		return rf_lsm_refused();
	return rf_lsm_verdict(rf_decide_name(mnt, to, other, 0,
					     RF_NAME_MOVED | (exchange ? RF_O_RDWR : RF_O_WRONLY)));
}

static __always_inline int rf_lsm_attributes_changed(const struct path *path, __u32 quiet)
{
	const struct dentry *dentry = BPF_CORE_READ(path, dentry);

	if (!rf_bound(bpf_get_current_task_btf()))
		return 0;
	return rf_lsm_verdict(rf_decide_name((__u64)BPF_CORE_READ(path, mnt), (__u64)dentry,
					     rf_inode_of(dentry), 0, RF_O_WRONLY | quiet));
}

/* truncate(2); up to 6.1 also O_TRUNC and ftruncate of a file that was opened for it. */
SEC("lsm/path_truncate")
int RF_HOOK(names_path_truncate, const struct path *path, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_attributes_changed(path, rf_is_opening() ? RF_NAME_QUIET : 0);
}

SEC("lsm/path_chmod")
int RF_HOOK(names_path_chmod, const struct path *path, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_attributes_changed(path, 0);
}

SEC("lsm/path_chown")
int RF_HOOK(names_path_chown, const struct path *path, unsigned int uid, unsigned int gid, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_attributes_changed(path, 0);
}

/* A lease holds up everybody who opens the file, for as long as the kernel allows (45 s). */
SEC("lsm/file_fcntl")
int RF_HOOK(names_file_fcntl, struct file *file, unsigned int cmd, unsigned long arg, int ret)
{
	if (ret)
		return ret;
	if (cmd != RF_F_SETLEASE || arg == RF_F_UNLCK)
		return 0;
	return rf_lsm_attributes_changed(__builtin_preserve_access_index(&file->f_path), 0);
}
