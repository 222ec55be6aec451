/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The cheap question that every exec of the node is asked: is it the kernel's own?
 */
#ifndef RINGFENCE_HELPER_H
#define RINGFENCE_HELPER_H

#include "maps.h"
#include "task.h"

#define RF_KTHREADD 2

/* helper.bpf.c: judges the program that is about to run; `binprm` by address. Returns the verdict. */
int rf_helper(__u64 binprm, __u32 at_hook);

/* Nothing else has kthreadd for its parent and executes: what it leaves behind is never given to it. */
static __always_inline bool rf_is_helper(struct task_struct *task)
{
	return BPF_CORE_READ(task, real_parent, tgid) == RF_KTHREADD;
}

#endif
