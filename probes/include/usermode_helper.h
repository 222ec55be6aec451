/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Usermode helpers, and the cheap check that every exec of the node passes: does the kernel run it?
 */
#ifndef RINGFENCE_USERMODE_HELPER_H
#define RINGFENCE_USERMODE_HELPER_H

#include "compat.h"
#include "task_facts.h"

/*
 * The programs that the kernel may run on the host, found by the agent. Key: the path that the
 * kernel was given (FNV-1a; a program may behave differently by another name, as busybox and
 * systemctl do), and its file: device, inode, and ctime in ns (inode numbers are reused). A script
 * has an entry with its path alone, as its interpreter is the file that runs.
 */
struct rf_helper_key {
	__u64 device;
	__u64 inode;
	__u64 changed;
	__u64 path;
};

/* The value: what the kernel may run it for. Only core_pattern lets its writer choose arguments. */
enum rf_helper_use {
	RF_HELPER_CORE = 1,
	RF_HELPER_OTHER = 2,
};

struct map_helpers {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct rf_helper_key);
	__type(value, __u32);
};
extern struct map_helpers helpers SEC(".maps");

/* Decides the program that is about to run. `binprm` is an address. Returns the verdict. */
int rf_helper_decide(__u64 binprm, __u32 at_hook);

/*
 * The first exec of a child of a kernel thread: of kthreadd, or of the worker that waits for the
 * helper's end (UMH_WAIT_PROC: request_module, request_key). init is a child of the idle task,
 * which has number 0. Later programs of a helper are not its first exec. `executed`: the value of
 * self_exec_id here.
 */
static __always_inline bool rf_is_usermode_helper(struct task_struct *task, __u64 executed)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);

	return BPF_CORE_READ(parent, flags) & RF_PF_KTHREAD && BPF_CORE_READ(parent, tgid) &&
	       BPF_CORE_READ(task, self_exec_id) == executed;
}

#endif
