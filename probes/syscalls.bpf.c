// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * System calls, at entry. One program serves all of them. It is attached to the per-syscall
 * tracepoints that are needed, and reads number and arguments from the task's saved registers, so
 * it fits calls with any number of arguments. Measured (tools/bench/hooks): a raw sys_enter program
 * costs every call of every process far more than a per-syscall tracepoint costs other calls.
 */
#include "include/borrowed.h"
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/call.h"
#include "include/drift.h"
#include "include/guard.h"
#include "include/lost.h"
#include "include/namespaces.h"
#include "include/own_root.h"
#include "include/self.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_SOCKETCALL_SOCKET 1
#define RF_SOCKETCALL_SOCKETPAIR 8

/*
 * socketcall(call, args) of 32-bit callers: unpacks the arguments of socket and socketpair. The
 * rest are no events.
 */
static __always_inline bool rf_unpack_socketcall(struct rf_call *call, __u8 *flags)
{
	__u32 args[3] = {}, i;

	if (call->args[0] != RF_SOCKETCALL_SOCKET && call->args[0] != RF_SOCKETCALL_SOCKETPAIR)
		return false;
	if (bpf_probe_read_user(args, sizeof(args), (void *)call->args[1]))
		*flags |= RF_FLAG_UNREADABLE;
	for (i = 0; i < 3; i++)
		call->args[i] = args[i];
	return true;
}

/*
 * Evaluates what needs no text. Arguments in memory that is not resident, which no benign caller
 * has, count as the worst case.
 */
static __always_inline int rf_syscall_evaluate(struct task_struct *task,
					       const struct rf_task *bound, struct rf_query *query)
{
	if (!query->worst_case)
		return rf_evaluate_no_text(query, task, bound);
	rf_query_facts(query, task, bound);
	return rf_match(query, NULL);
}

/*
 * Returns the action. On a stack frame of its own: the drift check before it needs that of the
 * caller.
 */
rf_subprogram int rf_syscall_decide(struct task_struct *task, struct rf_armed *armed,
				    struct rf_call *call, const struct rf_syscall *known,
				    __u8 flags)
{
	struct rf_query query;
	struct rf_scratch *buffer;
	__u32 event = known->event & RF_SYSCALL_EVENT_MASK, route;
	struct rf_container *container = rf_container_of_current(&armed->task);
	__u32 i, answer;

	if (!container)
		return 0;
	rf_count(armed->task.slot, known->counter);
	rf_query_init(&query, event, &armed->task, container);
	RF_ROLLED
	for (i = 0; i < RF_OPERANDS; i++)
		query.value[i] = rf_operand(call, known->source[i], known->arg[i]);
	if (event == RF_SYS_IOCTL)
		query.value[RF_DIM_IOCTL_TREE] = rf_tree_of_fd(call->args[0]);
	if (call->compat) {
		flags |= RF_FLAG_COMPAT;
		query.value[RF_DIM_FACTS] = rf_compat_facts(task);
	}
	if (event == RF_SYS_SETNS)
		query.value[RF_DIM_FACTS] |= rf_setns_facts(container);
	query.worst_case = flags & RF_FLAG_UNREADABLE;
	answer = rf_syscall_evaluate(task, &armed->task, &query);
	if (answer == RF_MATCH_NOTHING && !rf_is_observed(event))
		return 0;
	buffer = rf_scratch_claim(&armed->scratch);
	if (!buffer) {
		rf_end_no_scratch(&query, answer, RF_MECHANISM_KILL);
		return query.action;
	}
	flags |= rf_call_text(buffer, call, known->text_arg, event);
	if (answer == RF_MATCH_NEED_MORE) {
		query.text = buffer->bit + 1;
		query.known |= RF_KNOWN_OBJECT;
		rf_match(&query, NULL);
	}
	route = rf_conclude(&query, container, RF_MECHANISM_KILL, &flags);
	if (route != RF_ROUTE_NONE)
		rf_call_record(&query, call, route, flags, 0);
	rf_scratch_release(buffer);
	return query.action;
}

/* A call that was let through may change the memory of its target. */
static __always_inline void rf_borrow_by_call(const struct rf_call *call,
					      const struct rf_syscall *known)
{
	__u32 event = known->event & RF_SYSCALL_EVENT_MASK;

	if (event == RF_SYS_PTRACE)
		rf_borrow_numbered(call->args[1]);
	else if (event == RF_SYS_PROCESS_VM && known->source[1] == RF_FROM_PID_TARGET)
		rf_borrow_numbered(call->args[0]);
}

/* Returns true if the current task's container was condemned: then it is killed, at any call. */
static __always_inline bool rf_kill_condemned(const struct rf_task *bound)
{
	struct rf_container *container = rf_container_of(bound);

	if (!container || !rf_is_condemned(container))
		return false;
	bpf_send_signal(9);
	return true;
}

static __always_inline int rf_syscall_entered(struct task_struct *task, bool compat)
{
	struct rf_syscall *known;
	struct rf_armed *armed;
	struct rf_call call;
	__u8 flags = 0;
	__u32 event;

	rf_settle_current();
	armed = rf_bound(task);
	if (!armed)
		return 0;
	if (rf_any_condemned() && rf_kill_condemned(&armed->task))
		return 0;
	rf_read_call(&call, (struct pt_regs *)bpf_task_pt_regs(task), compat);
	known = bpf_map_lookup_elem(&syscalls, &call.index);
	if (!known || !known->event || known->event & RF_SYSCALL_HOOKED)
		return 0;
	event = known->event & RF_SYSCALL_EVENT_MASK;
	if (known->event & RF_SYSCALL_GUARDED)
		rf_guard_call(&call);
	if (!event)
		return 0;
	if (event == RF_TASK_DRIFT) { /* an exec: checked before the task changes */
		rf_drift_examine(RF_PROCESS_EXEC | RF_AT_ENTRY);
		return 0;
	}
	rf_drift_check(task, armed, event | RF_AT_ENTRY);
	if (event == RF_SYS_SETNS)
		armed->entering = 1;
	if (compat && call.nr == RF_COMPAT_SOCKETCALL && !rf_unpack_socketcall(&call, &flags))
		return 0;
	if (!rf_refuses(rf_syscall_decide(task, armed, &call, known, flags)))
		rf_borrow_by_call(&call, known);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter")
int syscall_enter(void *ctx)
{
	return rf_syscall_entered(bpf_get_current_task_btf(), false);
}

/*
 * Beside syscall_enter: at the functions that 32-bit and x32 calls pass, if perf has a kprobe
 * there. Other calls cost nothing then.
 */
SEC("kprobe")
int narrow_call(struct pt_regs *regs)
{
	return rf_syscall_entered(bpf_get_current_task_btf(), true);
}

/*
 * Where there is none, instead of syscall_enter: also 32-bit programs, int 0x80 and x32 calls,
 * which no per-syscall tracepoint sees. It runs at each call of every process, so its cost for
 * other calls is limited to one look into the table of calls.
 */
SEC("tp_btf/sys_enter")
int BPF_PROG(every_call, struct pt_regs *regs, long id)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 index = id; /* an x32 number is beyond the native ones, too */
	bool compat = rf_in_compat(task) || index >= RF_COMPAT_BASE;
	struct rf_syscall *known;

	if (!compat) {
		known = bpf_map_lookup_elem(&syscalls, &index);
		if ((!known || !known->event) && !rf_any_condemned())
			return 0;
	}
	return rf_syscall_entered(task, compat);
}

/*
 * The target of chroot(2) is known only when it is done. The entry decides as well: only there it
 * is known whether the task was chrooted before.
 */
SEC("tracepoint/syscalls/sys_exit_chroot")
int chroot_exit(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	struct rf_syscall *known, now;
	struct rf_armed *armed;
	struct rf_call call;

	armed = rf_bound(task);
	if (!armed || rf_return_value(regs) ||
	    !rf_is_host_root((__u64)BPF_CORE_READ(fs, root.dentry)))
		return 0;
	rf_read_call(&call, regs, false);
	known = bpf_map_lookup_elem(&syscalls, &call.index);
	if (!known || known->event != RF_SYS_CHROOT)
		return 0;
	now = *known;
	now.counter = RF_COUNT_NONE;
	now.source[RF_DIM_CHROOTED] = RF_FROM_NOTHING;
	now.source[RF_DIM_NEW_ROOT] = RF_FROM_CONST;
	now.arg[RF_DIM_NEW_ROOT] = RF_ROOT_OF_HOST;
	rf_syscall_decide(task, armed, &call, &now, 0);
	return 0;
}
