// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What a container needs: every system call and capability of its armed tasks, counted by program.
 * Loaded only by an agent that learns (`ringfence run --learn`), as a program at each call of the
 * node is too expensive for normal use. A call that seccomp refuses never reaches sys_enter, which
 * comes after the filter, but it reaches sys_exit.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/emit.h"
#include "include/learn.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_EPERM 1
#define RF_EACCES 13
#define RF_ENOSYS 38

static __always_inline void rf_learn(struct task_struct *task, __u32 kind, __u32 number,
				     bool compat)
{
	struct rf_armed *armed = rf_bound(task);
	struct rf_learned_key key = {};
	__u64 one = 1, *count;

	if (!armed || !armed->task.container)
		return;
	key.slot = armed->task.slot;
	key.number = number;
	key.kind = kind;
	key.compat = compat;
	bpf_get_current_comm(key.comm, sizeof(key.comm));
	count = bpf_map_lookup_elem(&learned, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	else if (bpf_map_update_elem(&learned, &key, &one, BPF_NOEXIST))
		rf_drop(RF_SYS_CLONE, RF_DROP_TABLE_FULL, armed->task.slot);
}

SEC("tp_btf/sys_enter")
int BPF_PROG(learn_enter, struct pt_regs *regs, long id)
{
	struct task_struct *task = bpf_get_current_task_btf();

	rf_learn(task, RF_LEARNED_CALL, id, rf_in_compat(task));
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(learn_exit, struct pt_regs *regs, long result)
{
	struct task_struct *task;
	struct rf_call call;

	if (result != -RF_EPERM && result != -RF_EACCES && result != -RF_ENOSYS)
		return 0;
	task = bpf_get_current_task_btf();
	rf_read_call(&call, regs, rf_in_compat(task));
	rf_learn(task, RF_LEARNED_CALL_REFUSED, call.nr, call.compat);
	return 0;
}

/* The kernel's answer to a capability check (a tracepoint since 6.14). */
SEC("tp_btf/cap_capable")
int BPF_PROG(learn_capable, const struct cred *cred, struct user_namespace *target,
	     const struct user_namespace *owner, int cap, int result)
{
	rf_learn(bpf_get_current_task_btf(), result ? RF_LEARNED_CAP_REFUSED : RF_LEARNED_CAP, cap,
		 false);
	return 0;
}
