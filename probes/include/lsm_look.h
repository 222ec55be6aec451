/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a look into a process leaves for the hook of the open that follows it: see look.h. And the
 * operands of signal.
 */
#ifndef RINGFENCE_LSM_LOOK_H
#define RINGFENCE_LSM_LOOK_H

#include "look.h"

#define RF_DIM_SIGNAL 0
#define RF_DIM_SIGNAL_TARGET 1

__u32 rf_reached_by_hook(__u64 inode, __u64 magic, __u32 owner);

#endif
