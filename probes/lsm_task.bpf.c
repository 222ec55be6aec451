// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Tasks: tracers, new tasks, and changes of identity. A new task's flags are the kernel's copy.
 * Access to other processes: lsm_look.bpf.c.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm_call.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_MAKES_USER_NS (RF_EVENT_BIT(RF_SYS_UNSHARE) | RF_EVENT_BIT(RF_SYS_CLONE))

SEC("lsm/ptrace_traceme")
int RF_HOOK(lsm_ptrace_traceme, struct task_struct *parent, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_PTRACE), rf_address(parent), 0));
}

/*
 * Comes before the namespaces of the new task, and after its user namespace, which comes with it.
 */
SEC("lsm/task_alloc")
int RF_HOOK(lsm_task_alloc, struct task_struct *task, unsigned long clone_flags, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_verdict(
		rf_decide_call(RF_EVENT_BIT(RF_SYS_CLONE), 0, clone_flags | RF_FLAGS_ARE_WHOLE));
}

/*
 * 6.1: 7cd4c5c2101c. Needs no capability: the first hook of unshare(CLONE_NEWUSER), and of clone
 * before its task_alloc. That a user namespace will be made is certain here, whatever the caller's
 * memory says now.
 */
SEC("lsm/userns_create")
int RF_HOOK(lsm_userns_create, const struct cred *cred, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_verdict(rf_decide_call(RF_MAKES_USER_NS, 0, RF_CLONE_NEWUSER));
}

SEC("lsm/capset")
int RF_HOOK(lsm_capset, struct cred *new, const struct cred *old, const kernel_cap_t *effective,
	    const kernel_cap_t *inheritable, const kernel_cap_t *permitted, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_CAPSET), 0, 0));
}

SEC("lsm/task_fix_setuid")
int RF_HOOK(lsm_task_fix_setuid, struct cred *new, const struct cred *old, int flags, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_SETUID), 0, 0));
}

SEC("lsm/task_fix_setgid")
int RF_HOOK(lsm_task_fix_setgid, struct cred *new, const struct cred *old, int flags, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_SETGID), 0, 0));
}

/* 6.1: fcfe0ac2fcfa */
SEC("lsm/task_fix_setgroups")
int RF_HOOK(lsm_task_fix_setgroups, struct cred *new, const struct cred *old, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_SETGID), 0, 0));
}
