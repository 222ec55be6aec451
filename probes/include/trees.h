/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Files of the host, by object: what a filesystem of the host holds is the host's, except below the
 * directories that containers are commonly given. The same for filesystems that an engine mounted:
 * the root directory of another container. The agent writes both into `host_trees`
 * (ringfence/daemon/tracking/host_trees.py). No list of names can be complete, and a name is not an
 * object.
 */
#ifndef RINGFENCE_TREES_H
#define RINGFENCE_TREES_H

#include "object.h"

/*
 * Whose tree a file is in: bits of operand 2 of file.open, if it is opened for writing, or is a
 * terminal.
 */
enum rf_tree {
	RF_TREE_SHIFT = 20,
	RF_TREE_NONE = 0,
	RF_TREE_HOST = 1,
	RF_TREE_STORAGE = 2,  /* where an engine has the files of containers */
	RF_TREE_CGROUP = 3,   /* of a cgroup that is neither the container's nor below it */
	RF_TREE_TERMINAL = 4, /* of the host */
	RF_TREE_LOGS = 5,     /* given, but what runs as root on the host follows links there */
	RF_TREE_OWN = 6,      /* the container's root filesystem; of rf_whose_name() alone */
};

/* Values of `host_trees`. */
enum rf_tree_kind {
	RF_TREE_OF_HOST = 1, /* of a filesystem, with inode 0 */
	RF_TREE_GIVEN = 2,   /* a directory or file that containers are commonly given */
	/* a home directory: given, but for names that begin with a dot, and bin */
	RF_TREE_HOME = 3,
	/* an engine's directory: its files hosts, hostname and resolv.conf are given */
	RF_TREE_ENGINE = 4,
	/* a filesystem that an engine mounted for containers, with inode 0: others' root, mostly */
	RF_TREE_OF_STORAGE = 5,
	RF_TREE_OF_TERMINALS = 6,  /* a devpts of the host, with inode 0 */
	RF_TREE_LOG_DIRECTORY = 7, /* a directory of logs: given, but links there are not */
	RF_TREE_OF_LOGS = 8,	   /* of a filesystem, with inode 0, that is mounted for logs */
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

/* Enum rf_tree of a file or directory of a cgroup filesystem, for the current task's container. */
__u32 rf_tree_of_cgroup(__u64 dentry);

/* Enum rf_tree of a file of a devpts, reached by that mount. */
__u32 rf_tree_of_terminal(__u64 dentry, __u64 mnt);

/*
 * What is no directory that containers are given: the host's on its filesystems, an engine's on
 * those that it mounted. Of a filesystem for logs, nothing.
 */
static __always_inline __u32 rf_tree_otherwise(__u32 filesystem)
{
	if (filesystem == RF_TREE_OF_STORAGE)
		return RF_TREE_STORAGE;
	return filesystem == RF_TREE_OF_LOGS ? RF_TREE_NONE : RF_TREE_HOST;
}

/* Enum rf_tree of a name on a filesystem. Most are on the container's own root filesystem. */
static __always_inline __u32 rf_tree_of_name(__u64 super, __u64 dentry, __u64 container_root,
					     __u32 how)
{
	struct rf_tree_key key = { .device = RF_READ(struct super_block, super, s_dev) };
	__u32 *filesystem = bpf_map_lookup_elem(&host_trees, &key), tree;

	if (!filesystem)
		return RF_TREE_NONE;
	if (*filesystem == RF_TREE_OF_STORAGE &&
	    container_root == (__u64)RF_READ(struct super_block, super, s_root))
		return RF_TREE_NONE;
	tree = rf_tree_of(key.device, dentry, container_root, how);
	return tree == RF_TREE_HOST ? rf_tree_otherwise(*filesystem) : tree;
}

static __always_inline __u32 rf_tree_of_file(const struct rf_file *file, __u64 container_root,
					     __u32 how)
{
	if (file->magic == RF_MAGIC_CGROUP || file->magic == RF_MAGIC_CGROUP2)
		return rf_tree_of_cgroup(file->dentry);
	return rf_tree_of_name(file->super, file->dentry, container_root, how);
}

#endif
