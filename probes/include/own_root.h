/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whose file a name is, for events that exceptions limit to the container's own root filesystem: a
 * package manager stores set-id programs there, and not on a volume.
 */
#ifndef RINGFENCE_OWN_ROOT_H
#define RINGFENCE_OWN_ROOT_H

#include "trees.h"

#define RF_DIM_IOCTL_TREE 1 /* operand of ioctl */

/* Enum rf_tree of a name, RF_TREE_OWN included. `container_root` 0: it is not known. */
__u32 rf_whose_name(__u64 dentry, __u64 container_root);

#endif
