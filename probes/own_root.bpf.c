// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Whose file a name is, with what is the container's own: see own_root.h. */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/own_root.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Returns true for a name below the container's root directory, on the filesystem of that. A volume
 * is another filesystem, or lies elsewhere on the same one. The host's root is no container's.
 */
static __always_inline bool rf_is_on_own_root(__u64 dentry, __u64 container_root)
{
	__u64 super = (__u64)RF_READ(struct dentry, dentry, d_sb);

	if (!container_root || rf_is_host_root(container_root) ||
	    super != (__u64)RF_READ(struct dentry, container_root, d_sb))
		return false;
	return rf_is_below(dentry, container_root, super);
}

__noinline __u32 rf_whose_name(__u64 dentry, __u64 container_root)
{
	if (rf_is_on_own_root(dentry, container_root))
		return RF_TREE_OWN;
	return rf_tree_of_name((__u64)RF_READ(struct dentry, dentry, d_sb), dentry, container_root,
			       0);
}
