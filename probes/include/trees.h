/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Files of the host, by object: what a filesystem of the host holds is the host's, except below the
 * directories that containers are commonly given. The agent writes both into `host_trees`
 * (ringfence/daemon/tracking/host_trees.py). No list of names can be complete, and a name is not an
 * object.
 */
#ifndef RINGFENCE_TREES_H
#define RINGFENCE_TREES_H

#include "object.h"

/* Whose tree a file is in: bits of operand 2 of file.open, if it is opened for writing. */
enum rf_tree {
	RF_TREE_SHIFT = 20,
	RF_TREE_NONE = 0,
	RF_TREE_HOST = 1,
	RF_TREE_OWN = 4,  /* the container's root filesystem; of rf_whose_name() alone */
	RF_TREE_LOGS = 5, /* given, but what runs as root on the host follows links there */
};

/* Values of `host_trees`. */
enum rf_tree_kind {
	RF_TREE_OF_HOST = 1, /* of a filesystem, with inode 0 */
	RF_TREE_GIVEN = 2,   /* a directory or file that containers are commonly given */
	/* a home directory: given, but for names that begin with a dot, and bin */
	RF_TREE_HOME = 3,
	/* an engine's directory: its files hosts, hostname and resolv.conf are given */
	RF_TREE_ENGINE = 4,
	RF_TREE_LOG_DIRECTORY = 6, /* a directory of logs: given, but links there are not */
	RF_TREE_OF_LOGS = 7,	   /* of a filesystem, with inode 0, that is mounted for logs */
};

/* What an operation does with a name, beyond writing the file. */
#define RF_NAME_CHANGES 1 /* it is added, removed, or given to another file */
#define RF_NAME_NO_FILE 2 /* it is, or becomes, something else than a regular file */

struct rf_tree_key {
	__u64 device; /* s_dev */
	__u64 inode;  /* 0: the filesystem */
};

struct map_host_trees {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct rf_tree_key);
	__type(value, __u32);
};
extern struct map_host_trees host_trees SEC(".maps");

/*
 * Enum rf_tree of a name on a filesystem of the host. What is below `container_root`, the root
 * directory of the task's container, is the container's. `how`: RF_NAME_*.
 */
__u32 rf_tree_of(__u64 device, __u64 dentry, __u64 container_root, __u32 how);

/* Enum rf_tree of a name on a filesystem. Most are on no filesystem of the host. */
static __always_inline __u32 rf_tree_of_name(__u64 super, __u64 dentry, __u64 container_root,
					     __u32 how)
{
	struct rf_tree_key key = { .device = RF_READ(struct super_block, super, s_dev) };
	__u32 *whose = bpf_map_lookup_elem(&host_trees, &key), tree;

	if (!whose)
		return RF_TREE_NONE;
	tree = rf_tree_of(key.device, dentry, container_root, how);
	/* Only a part of such a filesystem is for logs, and no part is the host's. */
	return *whose == RF_TREE_OF_LOGS && tree == RF_TREE_HOST ? RF_TREE_NONE : tree;
}

static __always_inline __u32 rf_tree_of_file(const struct rf_file *file, __u64 container_root,
					     __u32 how)
{
	return rf_tree_of_name(file->super, file->dentry, container_root, how);
}

#endif
