/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Paths from dentries, their hashes, and their use as keys of text rules. */
#ifndef RINGFENCE_PATH_H
#define RINGFENCE_PATH_H

#include "compat.h"
#include "scratch.h"

#define RF_WALK_DEPTH 256 /* levels and mounts; the path of a deeper file is unknown */
#define RF_WALK_SOME 16	  /* at a time */

#define RF_FNV_OFFSET 0xcbf29ce484222325ULL
#define RF_FNV_PRIME 0x100000001b3ULL

#define RF_CLIMBS 16
#define RF_CLIMB 16 /* levels in each */

/*
 * Goes up from a dentry, RF_CLIMB levels. Returns `root` if that was on the way, 0 if the way
 * ended, else the dentry that was reached.
 */
__u64 rf_climb(__u64 dentry, __u64 root);

/*
 * All return the length without the NUL, and leave the head of the path, of at least
 * RF_PATH_LEN - 1 characters, at buffer->walk[buffer->start]. They use buffer->name.
 */
int rf_path_in_filesystem(struct rf_scratch *buffer, __u64 dentry);
int rf_path_as_mounted(struct rf_scratch *buffer, __u64 dentry, __u64 mount, __u64 root_dentry,
		       __u64 root_mount);
__u64 rf_hash_path(struct rf_scratch *buffer);
/* FNV-1a of a string of the kernel; 0: it cannot be read. Leaves the string in buffer->name. */
__u64 rf_hash_kernel_text(struct rf_scratch *buffer, __u64 text);

/* FNV-1a of a dentry's own name. */
static __always_inline __u64 rf_hash_name(struct rf_scratch *buffer, __u64 dentry)
{
	return rf_hash_kernel_text(buffer, (__u64)RF_READ(struct dentry, dentry, d_name.name));
}

/* Copies the head of a built path, with its NUL. Returns true if it was cut. */
static __always_inline bool rf_path_copy(char *to, const __u32 size, struct rf_scratch *buffer)
{
	const char *from = buffer->walk + (buffer->start & (RF_WALK_LEN - 1));

	bpf_probe_read_kernel_str(to, size, from);
	return buffer->truncated || buffer->len >= size;
}

/*
 * Makes the built path the key of a text lookup. A path that was cut matches prefixes only, never
 * an exact name.
 */
static __always_inline void rf_text_key_path(struct rf_scratch *buffer, __u32 event)
{
	const char *from = buffer->walk + (buffer->start & (RF_WALK_LEN - 1));

	buffer->text.prefixlen = 32 + 8 * RF_MATCH_TEXT;
	buffer->text.event = event;
	buffer->text.dim = RF_DIM_OBJECT;
	bpf_probe_read_kernel(buffer->text.text, RF_MATCH_TEXT, from);
}

#endif
