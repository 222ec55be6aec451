// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* In whose tree a file is: see trees.h. Global functions: see task_facts.bpf.c. */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/trees.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Directories between a file and the one that decides. A file that is deeper is the host's: an
 * operation that fails is better than one that passes.
 */
#define RF_TREE_DEPTH 128

/* Results of a step, below every address. Those of enum rf_tree are final, too. */
#define RF_STEP_RESULTS 15

struct rf_tree_name {
	__u64 word[2];
};

static __always_inline void rf_tree_name(struct rf_tree_name *name, __u64 dentry)
{
	__builtin_memset(name, 0, sizeof(*name));
	bpf_probe_read_kernel_str(name, sizeof(*name),
				  (void *)RF_READ(struct dentry, dentry, d_name.name));
}

/* Returns true for names in a home directory that its owner's shell and session execute. */
static __always_inline bool rf_is_private_name(__u64 dentry)
{
	struct rf_tree_name name;

	rf_tree_name(&name, dentry);
	return (name.word[0] & 0xff) == '.' ||
	       name.word[0] == RF_NAME8('b', 'i', 'n', 0, 0, 0, 0, 0);
}

/* Returns true for the files that engines make for each container, and mount into it. */
static __always_inline bool rf_is_engine_name(__u64 dentry)
{
	struct rf_tree_name name;

	rf_tree_name(&name, dentry);
	return (name.word[0] == RF_NAME8('h', 'o', 's', 't', 's', 0, 0, 0) && !name.word[1]) ||
	       (name.word[0] == RF_NAME8('h', 'o', 's', 't', 'n', 'a', 'm', 'e') &&
		!name.word[1]) ||
	       (name.word[0] == RF_NAME8('r', 'e', 's', 'o', 'l', 'v', '.', 'c') &&
		name.word[1] == RF_NAME8('o', 'n', 'f', 0, 0, 0, 0, 0));
}

/*
 * What a registered directory says of a file. `child`: the name in it on the way; 0: itself, whose
 * name belongs to the directory above. The engine's files are written in place: a link there would
 * make the engine write elsewhere.
 */
static __always_inline __u64 rf_tree_says(__u32 kind, __u64 child, __u64 file, __u32 how)
{
	switch (kind) {
	case RF_TREE_GIVEN:
		return !child && how & RF_NAME_CHANGES ? RF_TREE_HOST : RF_TREE_NONE;
	case RF_TREE_LOG_DIRECTORY:
		return !child && how & RF_NAME_CHANGES ? RF_TREE_HOST : RF_TREE_LOGS;
	case RF_TREE_HOME:
		return !child || rf_is_private_name(child) ? RF_TREE_HOST : RF_TREE_NONE;
	case RF_TREE_ENGINE:
		return child && !how && rf_is_engine_name(file) ? RF_TREE_NONE : RF_TREE_HOST;
	default:
		return RF_TREE_HOST;
	}
}

/*
 * One directory on the way up. Returns an enum rf_tree, or the address of the parent to check next.
 * A function, so that the verifier follows it once and not in each round.
 */
__noinline __u64 rf_tree_step(__u64 device, __u64 dentry, __u64 child, __u64 file, __u32 how)
{
	struct rf_tree_key key = { .device = device };
	__u64 inode = (__u64)RF_READ(struct dentry, dentry, d_inode), parent;
	__u32 *found = NULL;

	key.inode = inode ? RF_READ(struct inode, inode, i_ino) : 0; /* 0: it does not exist yet */
	if (key.inode)
		found = bpf_map_lookup_elem(&host_trees, &key);
	if (found)
		return rf_tree_says(*found, child, file, how);
	parent = (__u64)RF_READ(struct dentry, dentry, d_parent);
	/* The filesystem's root, or a name without a place, which was reached by its handle. */
	return parent <= RF_STEP_RESULTS || parent == dentry ? RF_TREE_HOST : parent;
}

__noinline __u32 rf_tree_of(__u64 device, __u64 dentry, __u64 container_root, __u32 how)
{
	__u64 file = dentry, child = 0, next;
	__u32 depth;

	if (container_root && rf_is_host_root(container_root))
		container_root = 0;
	for (depth = 0; depth < RF_TREE_DEPTH; depth++) {
		if (dentry == container_root)
			return RF_TREE_NONE;
		next = rf_tree_step(device, dentry, child, file, how);
		if (next <= RF_STEP_RESULTS)
			return next;
		child = dentry;
		dentry = next;
	}
	return RF_TREE_HOST;
}
