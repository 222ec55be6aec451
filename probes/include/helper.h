/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The cheap query that every exec of the node is asked: is it the kernel's own?
 */
#ifndef RINGFENCE_HELPER_H
#define RINGFENCE_HELPER_H

#include "compat.h"
#include "maps.h"
#include "task.h"

/* helper.bpf.c: judges the program that is about to run; `binprm` by address. Returns the verdict. */
int rf_helper_decide(__u64 binprm, __u32 at_hook);

/*
 * The first exec of a child of a kernel thread: of kthreadd, or of the worker that waits for the helper's end
 * (UMH_WAIT_PROC: request_module, request_key). init is a child of the idle task, owner number
 * is 0. What a helper executes after that is its own matter. `executed`: how often it has, where this is asked.
 */
static __always_inline bool rf_is_usermode_helper(struct task_struct *task, __u64 executed)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);

	return BPF_CORE_READ(parent, flags) & RF_PF_KTHREAD && BPF_CORE_READ(parent, tgid) &&
	       BPF_CORE_READ(task, self_exec_id) == executed;
}

#endif
