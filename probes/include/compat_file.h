/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What differs between kernels of files and filesystems; a part of compat.h, which includes it.
 */
#ifndef RINGFENCE_COMPAT_FILE_H
#define RINGFENCE_COMPAT_FILE_H

/* ---- filesystems ------------------------------------------------------- */

#define RF_MAGIC_OVERLAY 0x794c7630
#define RF_MAGIC_NSFS 0x6e736673
#define RF_MAGIC_PIDFS 0x50494446
#define RF_MAGIC_ANON_INODE 0x09041934

/*
 * A pidfd is an anonymous inode named [pidfd] owner file's private_data is its struct pid up to 6.8, and
 * a file of pidfs owner inode's i_private is that from 6.9 (cb12fd8e0dab); the old form stays where
 * CONFIG_FS_PID is off (until 6.14).
 */
#define RF_PIDFD_NAME 0x5d64666469705bULL /* "[pidfd]", little endian */

/*
 * What lies behind a file of overlayfs or fuse is a file of the kernel's own. One that is mapped is all that a
 * mapping knows; from 6.8 on its path is that on the disk, and the one that was opened stands beside it (def3ae83da02).
 */
#define RF_FMODE_NOACCOUNT 0x20000000
struct backing_file___user_path {
	struct path user_path;
} __attribute__((preserve_access_index));

/* The address of the struct path by which a file behind another one was opened. */
static __always_inline __u64 rf_path_of_backing(__u64 file)
{
	const struct backing_file___user_path *backing = (void *)file;

	if (bpf_core_field_exists(backing->user_path))
		return file + bpf_core_field_offset(struct backing_file___user_path, user_path);
	return file + bpf_core_field_offset(struct file, f_path);
}

/*
 * struct ovl_inode belongs to a module: its BTF is not at hand on every node. In every kernel
 * from 4.13 on __upperdentry follows vfs_inode directly.
 */
static __always_inline bool rf_is_overlay_upper(__u64 inode)
{
	__u64 upper = 0;

	bpf_probe_read_kernel(&upper, sizeof(upper), (void *)(inode + bpf_core_type_size(struct inode)));
	return upper != 0;
}

/*
 * When an inode was last changed, in nanoseconds since 1970: i_ctime up to 6.5, __i_ctime up to 6.10 (13bc24457850),
 * two fields from 6.11 (3aa63a569c64). From 6.13 bit 31 of the nanoseconds says that somebody asked (4e40eff0b573).
 */
struct rf_timespec {
	s64 tv_sec;
	s64 tv_nsec;
};
struct inode___first {
	struct rf_timespec i_ctime;
} __attribute__((preserve_access_index));
struct inode___second {
	struct rf_timespec __i_ctime;
} __attribute__((preserve_access_index));
struct inode___third {
	s64 i_ctime_sec;
	u32 i_ctime_nsec;
} __attribute__((preserve_access_index));

static __always_inline __u64 rf_changed_ns(__u64 inode)
{
	const struct inode___first *first = (void *)inode;
	const struct inode___second *second = (void *)inode;
	const struct inode___third *third = (void *)inode;
	struct rf_timespec at = {};

	if (bpf_core_field_exists(third->i_ctime_nsec)) {
		at.tv_sec = BPF_CORE_READ(third, i_ctime_sec);
		at.tv_nsec = BPF_CORE_READ(third, i_ctime_nsec) & ~(1U << 31);
	} else if (bpf_core_field_exists(second->__i_ctime)) {
		bpf_core_read(&at, sizeof(at), &second->__i_ctime);
	} else {
		bpf_core_read(&at, sizeof(at), &first->i_ctime);
	}
	return at.tv_sec * 1000000000ULL + at.tv_nsec;
}

#endif
