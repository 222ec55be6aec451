// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Paths from dentries: bpf_d_path is not allowed where we need it, and its answer
 * depends on mounts. Global functions, so that the verifier checks each walk by itself.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/object.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Puts a name and the '/' before it in front of what is there. Returns false when it does not fit.
 * Where the path begins is kept in the buffer, not in a register: the verifier would follow its range
 * through every round of the walk, and give up.
 */
static __always_inline bool rf_prepend(struct rf_scratch *buffer, const struct dentry *dentry)
{
	const unsigned char *name = BPF_CORE_READ(dentry, d_name.name);
	__u32 len = BPF_CORE_READ(dentry, d_name.len) & (RF_NAME_MAX - 1);
	__u32 start = buffer->start;

	if (start > RF_WALK_LEN - 1 || start < len + 1)
		return false;
	start -= len;
	barrier_var(start);
	/* Both masks are for the verifier: walk has RF_NAME_MAX bytes behind RF_WALK_LEN. */
	start &= RF_WALK_LEN - 1;
	bpf_probe_read_kernel(buffer->walk + start, len, name);
	start = (start - 1) & (RF_WALK_LEN - 1);
	buffer->walk[start] = '/';
	buffer->start = start;
	return true;
}

static __always_inline int rf_finish(struct rf_scratch *buffer, bool complete)
{
	__u32 at = buffer->start & (RF_WALK_LEN - 1);

	if (complete && at == RF_WALK_LEN - 1) { /* the root itself */
		at -= 1;
		buffer->walk[at] = '/';
	}
	if (!complete) /* the head is missing: it must not look like an absolute path */
		buffer->walk[at] = '?';
	buffer->walk[RF_WALK_LEN - 1] = 0;
	buffer->start = at;
	buffer->len = RF_WALK_LEN - 1 - at;
	buffer->truncated = !complete;
	return buffer->len;
}

/* From the root of the file's filesystem, across no mount. */
__noinline int rf_path_in_filesystem(struct rf_scratch *buffer, __u64 dentry)
{
	__u32 depth;
	bool complete = false;

	if (!buffer)
		return 0;
	buffer->start = RF_WALK_LEN - 1;
	for (depth = 0; depth < RF_WALK_DEPTH; depth++) {
		struct dentry *d = (struct dentry *)dentry;
		__u64 parent = (__u64)BPF_CORE_READ(d, d_parent);

		if (!parent || parent == dentry) {
			complete = true;
			break;
		}
		if (!rf_prepend(buffer, d))
			break;
		dentry = parent;
	}
	return rf_finish(buffer, complete);
}

/* As a task with this root sees it: from mount to mount, up to the root or to where the mounts end. */
__noinline int rf_path_as_mounted(struct rf_scratch *buffer, __u64 dentry, __u64 mount, __u64 root_dentry,
				  __u64 root_mount)
{
	__u32 depth;
	bool complete = false;

	if (!buffer)
		return 0;
	buffer->start = RF_WALK_LEN - 1;
	for (depth = 0; depth < RF_WALK_DEPTH; depth++) {
		struct dentry *d = (struct dentry *)dentry;
		struct mount *m = (struct mount *)mount;
		__u64 parent = (__u64)BPF_CORE_READ(d, d_parent);

		if (dentry == root_dentry && mount == root_mount) {
			complete = true;
			break;
		}
		if (dentry == (__u64)BPF_CORE_READ(m, mnt.mnt_root) || parent == dentry) {
			__u64 above = (__u64)BPF_CORE_READ(m, mnt_parent);

			if (!above || above == mount) {
				complete = true;
				break;
			}
			dentry = (__u64)BPF_CORE_READ(m, mnt_mountpoint);
			mount = above;
			continue;
		}
		if (!parent) {
			complete = true;
			break;
		}
		if (!rf_prepend(buffer, d))
			break;
		dentry = parent;
	}
	return rf_finish(buffer, complete);
}

/* FNV-1a of the head of the built path that an event carries (RF_PATH_LEN - 1 bytes). */
__noinline __u64 rf_hash_path(struct rf_scratch *buffer)
{
	__u64 hash = RF_FNV_OFFSET;
	__u32 i, start;

	if (!buffer)
		return 0;
	start = buffer->start & (RF_WALK_LEN - 1);
	for (i = 0; i < RF_PATH_LEN - 1; i++) {
		unsigned char c = buffer->walk[start + i];

		if (!c)
			break;
		hash = (hash ^ c) * RF_FNV_PRIME;
	}
	return hash;
}

/* FNV-1a of a dentry's own name. */
__noinline __u64 rf_hash_name(struct rf_scratch *buffer, __u64 dentry)
{
	__u64 hash = RF_FNV_OFFSET;
	__u32 i;

	if (!buffer)
		return 0;
	bpf_probe_read_kernel_str(buffer->name, sizeof(buffer->name), RF_READ(struct dentry, dentry, d_name.name));
	for (i = 0; i < RF_NAME_MAX - 1; i++) {
		unsigned char c = buffer->name[i];

		if (!c)
			break;
		hash = (hash ^ c) * RF_FNV_PRIME;
	}
	return hash;
}
