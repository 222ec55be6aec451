// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Paths from dentries: bpf_d_path is not allowed in most of these programs, and its result depends
 * on mounts. Global functions, so that the verifier checks each walk separately. It follows a loop
 * round by round, in each program that calls it: so the round of a long loop is a global function,
 * too, verified once per program.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/object.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Rules test the first RF_PATH_LEN - 1 characters of a path at most, and a walk reaches them last.
 * So only these are kept when the space before them is used up: they are moved to the end, by way
 * of `name`.
 */
#define RF_WALK_KEPT (RF_PATH_LEN - 1)
#define RF_WALK_END (RF_WALK_LEN - 1) /* of the NUL */

static __always_inline void rf_keep_head(struct rf_scratch *buffer)
{
	__u32 start = buffer->start & (RF_WALK_LEN - 1);

	bpf_probe_read_kernel(buffer->name, RF_WALK_KEPT, buffer->walk + start);
	bpf_probe_read_kernel(buffer->walk + RF_WALK_END - RF_WALK_KEPT, RF_WALK_KEPT,
			      buffer->name);
	buffer->dropped += RF_WALK_END - RF_WALK_KEPT - start;
	buffer->start = RF_WALK_END - RF_WALK_KEPT;
}
_Static_assert(RF_WALK_END - RF_WALK_KEPT >= RF_NAME_MAX, "a name and its slash fit before it");
_Static_assert(RF_WALK_END - (RF_NAME_MAX - 1) >= RF_WALK_KEPT, "there is as much as is kept");

/*
 * Puts a name and the '/' before it in front of the path. The start of the path is kept in the
 * buffer, not in a register: the verifier would follow its range through every round of the walk,
 * and give up.
 */
static __always_inline void rf_prepend(struct rf_scratch *buffer, const struct dentry *dentry)
{
	const unsigned char *name = BPF_CORE_READ(dentry, d_name.name);
	__u32 len = BPF_CORE_READ(dentry, d_name.len) & (RF_NAME_MAX - 1);
	__u32 start;

	if (buffer->start < len + 1)
		rf_keep_head(buffer);
	start = buffer->start - len;
	barrier_var(start);
	/* Both masks are for the verifier: walk has RF_NAME_MAX bytes after RF_WALK_LEN. */
	start &= RF_WALK_LEN - 1;
	bpf_probe_read_kernel(buffer->walk + start, len, name);
	start = (start - 1) & (RF_WALK_LEN - 1);
	buffer->walk[start] = '/';
	buffer->start = start;
}

static __always_inline int rf_path_finish(struct rf_scratch *buffer)
{
	bool complete = !buffer->truncated;
	__u32 at = buffer->start & (RF_WALK_LEN - 1);

	if (complete && at == RF_WALK_END) { /* the root itself */
		at -= 1;
		buffer->walk[at] = '/';
	}
	if (!complete) /* the head is missing: it must not look like an absolute path */
		buffer->walk[at] = '?';
	buffer->walk[RF_WALK_END] = 0;
	buffer->start = at;
	buffer->len = RF_WALK_END - at + buffer->dropped;
	return buffer->len;
}

static __always_inline void rf_path_begin(struct rf_scratch *buffer)
{
	buffer->start = RF_WALK_END;
	buffer->dropped = 0;
	buffer->truncated = true;
}

/*
 * Adds one name. Returns the parent; 0: the walk is over, and the path is complete unless it is
 * `truncated`.
 */
__noinline __u64 rf_path_up(struct rf_scratch *buffer, __u64 dentry)
{
	__u64 parent = (__u64)RF_READ(struct dentry, dentry, d_parent);

	if (!buffer)
		return 0;
	if (!parent || parent == dentry) {
		buffer->truncated = false;
		return 0;
	}
	rf_prepend(buffer, (struct dentry *)dentry);
	return parent;
}

/* The same for some names. A function, as the verifier follows a loop round by round. */
__noinline __u64 rf_path_up_some(struct rf_scratch *buffer, __u64 dentry)
{
	__u32 i;

	for (i = 0; i < RF_WALK_SOME; i++) {
		dentry = rf_path_up(buffer, dentry);
		if (!dentry)
			break;
	}
	return dentry;
}

/* From the root of the file's filesystem, without crossing mounts. */
__noinline int rf_path_in_filesystem(struct rf_scratch *buffer, __u64 dentry)
{
	__u32 depth;

	if (!buffer)
		return 0;
	rf_path_begin(buffer);
	for (depth = 0; depth < RF_WALK_DEPTH; depth += RF_WALK_SOME) {
		dentry = rf_path_up_some(buffer, dentry);
		if (!dentry)
			break;
	}
	return rf_path_finish(buffer);
}

/* Adds one name, or crosses one mount, from `at` on. Returns true if there may be another. */
__noinline int rf_path_up_mounted(struct rf_scratch *buffer, __u64 root_dentry, __u64 root_mount)
{
	__u64 dentry, mount, parent;

	if (!buffer)
		return false;
	dentry = buffer->at[0];
	mount = buffer->at[1];
	parent = (__u64)RF_READ(struct dentry, dentry, d_parent);
	if (dentry == root_dentry && mount == root_mount)
		goto complete;
	if (dentry == (__u64)RF_READ(struct mount, mount, mnt.mnt_root) || parent == dentry) {
		__u64 above = (__u64)RF_READ(struct mount, mount, mnt_parent);

		if (!above || above == mount)
			goto complete;
		buffer->at[0] = (__u64)RF_READ(struct mount, mount, mnt_mountpoint);
		buffer->at[1] = above;
		return true;
	}
	if (!parent)
		goto complete;
	buffer->at[0] = parent;
	rf_prepend(buffer, (struct dentry *)dentry);
	return true;
complete:
	buffer->truncated = false;
	return false;
}

/* The same for some names and mounts: see rf_path_up_some. */
__noinline int rf_path_up_mounts(struct rf_scratch *buffer, __u64 root_dentry, __u64 root_mount)
{
	__u32 i;

	for (i = 0; i < RF_WALK_SOME; i++) {
		if (!rf_path_up_mounted(buffer, root_dentry, root_mount))
			return false;
	}
	return true;
}

/* As a task with this root sees it: from mount to mount, up to the root or to the last mount. */
__noinline int rf_path_as_mounted(struct rf_scratch *buffer, __u64 dentry, __u64 mount,
				  __u64 root_dentry, __u64 root_mount)
{
	__u32 depth;

	if (!buffer)
		return 0;
	rf_path_begin(buffer);
	buffer->at[0] = dentry;
	buffer->at[1] = mount;
	for (depth = 0; depth < RF_WALK_DEPTH; depth += RF_WALK_SOME) {
		if (!rf_path_up_mounts(buffer, root_dentry, root_mount))
			break;
	}
	return rf_path_finish(buffer);
}

__noinline __u64 rf_climb(__u64 dentry, __u64 root)
{
	__u32 level;

	for (level = 0; level < RF_CLIMB; level++) {
		__u64 parent;

		if (dentry == root)
			return root;
		parent = (__u64)RF_READ(struct dentry, dentry, d_parent);
		if (!parent || parent == dentry)
			return 0;
		dentry = parent;
	}
	return dentry;
}

/* bytes per round: RF_PATH_LEN - 1 and RF_NAME_MAX - 1 are seventeen times that */
#define RF_HASHED 15

/* Continues FNV-1a over the walk, up to its end. */
__noinline __u64 rf_hash_walk(struct rf_scratch *buffer, __u32 at, __u64 hash)
{
	__u32 i;

	if (!buffer)
		return hash;
	at &= RF_WALK_LEN - 1;
	for (i = 0; i < RF_HASHED; i++) {
		unsigned char c = buffer->walk[at + i];

		if (!c)
			break;
		hash = (hash ^ c) * RF_FNV_PRIME;
	}
	return hash;
}

/* Continues FNV-1a over the name, up to its end. */
__noinline __u64 rf_hash_text(struct rf_scratch *buffer, __u32 at, __u64 hash)
{
	__u32 i;

	if (!buffer || at > RF_NAME_MAX - RF_HASHED)
		return hash;
	for (i = 0; i < RF_HASHED; i++) {
		unsigned char c = buffer->name[at + i];

		if (!c)
			break;
		hash = (hash ^ c) * RF_FNV_PRIME;
	}
	return hash;
}

/* FNV-1a of the head of the built path that an event carries (RF_PATH_LEN - 1 bytes). */
__noinline __u64 rf_hash_path(struct rf_scratch *buffer)
{
	__u64 hash = RF_FNV_OFFSET;
	__u32 i, start, len;

	if (!buffer)
		return 0;
	start = buffer->start;
	len = buffer->len;
	for (i = 0; i < RF_PATH_LEN - 1; i += RF_HASHED) {
		if (i >= len)
			break;
		hash = rf_hash_walk(buffer, start + i, hash);
	}
	return hash;
}

__noinline __u64 rf_hash_kernel_text(struct rf_scratch *buffer, __u64 text)
{
	__u64 hash = RF_FNV_OFFSET;
	long len;
	__u32 i;

	if (!buffer)
		return 0;
	len = bpf_probe_read_kernel_str(buffer->name, sizeof(buffer->name), (void *)text);
	if (len <= 0)
		return 0;
	for (i = 0; i < RF_NAME_MAX - 1; i += RF_HASHED) {
		if ((long)i >= len)
			break;
		hash = rf_hash_text(buffer, i, hash);
	}
	return hash;
}
