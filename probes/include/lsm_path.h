/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The verdict on files that are created with set-id bits, for the hooks that see them. */
#ifndef RINGFENCE_LSM_PATH_H
#define RINGFENCE_LSM_PATH_H

#include "lsm.h"

/*
 * Decides a file that has set-id bits from the start. `name` 0: it has none (O_TMPFILE). Returns
 * the verdict.
 */
int rf_decide_setid(__u32 mode, __u64 dentry, __u64 name);

#endif
