// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* In whose tree a file is: see trees.h. Global functions: see task_facts.bpf.c. */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/membership.h"
#include "include/operands.h"
#include "include/trees.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Directories between a file and the one that decides. A file that is deeper is the host's: an
 * operation that fails is better than one that passes.
 */
#define RF_TREE_DEPTH 128
#define RF_TREE_STEPS 8 /* at a time */

/* Not an enum rf_tree: the directory above decides. */
#define RF_TREE_ABOVE 16

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

/* The way up from a file. */
struct rf_tree_walk {
	__u64 device;
	__u64 file;
	__u64 dentry; /* where it is */
	__u64 child;  /* the one before; 0: this is the file */
	__u64 container_root;
	__u32 how;
};

/* One directory on the way up. Returns an enum rf_tree, or RF_TREE_ABOVE. */
__noinline __u32 rf_tree_step(struct rf_tree_walk *walk)
{
	struct rf_tree_key key = {};
	__u64 dentry, inode, parent;
	__u32 *found = NULL;

	if (!walk)
		return RF_TREE_HOST;
	dentry = walk->dentry;
	if (dentry == walk->container_root)
		return RF_TREE_NONE;
	inode = (__u64)RF_READ(struct dentry, dentry, d_inode);
	key.device = walk->device;
	key.inode = inode ? RF_READ(struct inode, inode, i_ino) : 0; /* 0: it does not exist yet */
	if (key.inode)
		found = bpf_map_lookup_elem(&host_trees, &key);
	if (found)
		return rf_tree_says(*found, walk->child, walk->file, walk->how);
	parent = (__u64)RF_READ(struct dentry, dentry, d_parent);
	/* The filesystem's root, or a name without a place, which was reached by its handle. */
	if (!parent || parent == dentry)
		return RF_TREE_HOST;
	walk->child = dentry;
	walk->dentry = parent;
	return RF_TREE_ABOVE;
}

/* Some of these. Functions, so that the verifier follows each once and not in each round. */
__noinline __u32 rf_tree_steps(struct rf_tree_walk *walk)
{
	__u32 result = RF_TREE_HOST, i;

	RF_ROLLED
	for (i = 0; i < RF_TREE_STEPS; i++) {
		result = rf_tree_step(walk);
		if (result != RF_TREE_ABOVE)
			break;
	}
	return result;
}

__noinline __u32 rf_tree_of(__u64 device, __u64 dentry, __u64 container_root, __u32 how)
{
	struct rf_tree_walk walk = {
		.device = device, .file = dentry, .dentry = dentry, .how = how
	};
	__u32 result, i;

	if (container_root && !rf_is_host_root(container_root))
		walk.container_root = container_root;
	RF_ROLLED
	for (i = 0; i < RF_TREE_DEPTH / RF_TREE_STEPS; i++) {
		result = rf_tree_steps(&walk);
		if (result != RF_TREE_ABOVE)
			return result;
	}
	return RF_TREE_HOST;
}

/* Hierarchies: the controllers of v1, those with a name alone, and v2. */
#define RF_CGROUP_LINKS 24

/* The cgroup of a directory, or of a file in it; 0: it is gone. */
static __always_inline __u64 rf_cgroup_at(__u64 dentry)
{
	__u64 inode = (__u64)RF_READ(struct dentry, dentry, d_inode), node;

	if (!inode || (RF_READ(struct inode, inode, i_mode) & RF_S_IFMT) != RF_S_IFDIR)
		inode = (__u64)RF_READ(struct dentry, dentry, d_parent, d_inode);
	node = (__u64)RF_READ(struct inode, inode, i_private);
	return node ? (__u64)RF_READ(struct kernfs_node, node, priv) : 0;
}

/* The current task's cgroup in the hierarchy of that root; 0: none. */
__noinline __u64 rf_cgroup_in(__u64 root)
{
	struct css_set *set = BPF_CORE_READ(bpf_get_current_task_btf(), cgroups);
	__u64 at = (__u64)BPF_CORE_READ(set, cgrp_links.next), link, cgroup;
	__u32 i;

	for (i = 0; i < RF_CGROUP_LINKS; i++) {
		link = at - bpf_core_field_offset(struct cgrp_cset_link, cgrp_link);
		if (at == (__u64)set + bpf_core_field_offset(struct css_set, cgrp_links))
			return 0;
		cgroup = (__u64)RF_READ(struct cgrp_cset_link, link, cgrp);
		if ((__u64)RF_READ(struct cgroup, cgroup, root) == root)
			return cgroup;
		at = (__u64)RF_READ(struct cgrp_cset_link, link, cgrp_link.next);
	}
	return 0;
}

/* How far below the root a cgroup is that has that id, at or above `cgroup`; 0: it is not there. */
__noinline __u32 rf_level_of(__u64 cgroup, __u64 id)
{
	__u32 level, depth = RF_READ(struct cgroup, cgroup, level);

	for (level = 1; level <= RF_LEVELS && level <= depth; level++) {
		if (rf_ancestor_id(cgroup, level) == id)
			return level;
	}
	return 0;
}

/*
 * A runtime puts a container into a cgroup of the same path in each hierarchy, and one of them has
 * the id. In the others the container's is the one of the current task, or above it: as far below
 * the root. A task that has left the container's cgroup has none.
 */
__noinline __u32 rf_tree_of_cgroup(__u64 dentry)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);
	__u64 cgroup = rf_cgroup_at(dentry), own, id;
	__u32 level;

	if (!armed || !cgroup)
		return RF_TREE_CGROUP;
	id = armed->task.container;
	if (rf_in_hierarchy((struct cgroup *)cgroup))
		return rf_level_of(cgroup, id) ? RF_TREE_NONE : RF_TREE_CGROUP;
	level = rf_level_of(rf_cgroup_of(task), id);
	own = rf_cgroup_in((__u64)RF_READ(struct cgroup, cgroup, root));
	if (!level || level > RF_LEVELS || !own ||
	    (__u32)RF_READ(struct cgroup, own, level) < level)
		return RF_TREE_CGROUP;
	return rf_level_of(cgroup, rf_ancestor_id(own, level)) ? RF_TREE_NONE : RF_TREE_CGROUP;
}

/* The session that a terminal controls, as a struct pid; 0: none. */
static __always_inline __u64 rf_session_of(__u64 terminal)
{
	struct tty_struct___flat *flat = (void *)terminal;
	struct tty_struct___ctrl *tty = (void *)terminal;

	if (bpf_core_field_exists(tty->ctrl))
		return (__u64)BPF_CORE_READ(tty, ctrl.session);
	return bpf_core_field_exists(flat->session) ? (__u64)BPF_CORE_READ(flat, session) : 0;
}

/*
 * A container has terminals of the host if the runtime made its console there: then its own
 * processes are in the terminal's session, or it was mounted alone, before it had one. `ptmx` has
 * no terminal: it makes new ones.
 */
__noinline __u32 rf_tree_of_terminal(__u64 dentry, __u64 mnt)
{
	struct rf_tree_key key = {};
	__u64 terminal = (__u64)RF_READ(struct dentry, dentry, d_fsdata), session;
	__u32 *found, relation;

	key.device = RF_READ(struct dentry, dentry, d_sb, s_dev);
	found = bpf_map_lookup_elem(&host_trees, &key);
	if (!found || *found != RF_TREE_OF_TERMINALS || !terminal)
		return RF_TREE_NONE;
	session = rf_session_of(terminal);
	if (!session)
		return (__u64)RF_READ(struct vfsmount, mnt, mnt_root) == dentry ? RF_TREE_NONE
										: RF_TREE_TERMINAL;
	relation = rf_relation_of_struct_pid(session);
	return relation == RF_RELATION_SELF || relation == RF_RELATION_CONTAINER ? RF_TREE_NONE
										 : RF_TREE_TERMINAL;
}
