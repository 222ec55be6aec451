// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * System calls, at entry. One program serves all of them: it is attached to as many per-syscall
 * tracepoints as are asked for, and reads number and arguments from the task's saved registers, so it
 * fits calls of any number of arguments. Measured (tests/bench/hooks): a raw sys_enter program costs
 * every call of every process far more than a per-syscall tracepoint costs the calls that it is not
 * for.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/call.h"
#include "include/drift.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_SOCKETCALL_SOCKET 1
#define RF_SOCKETCALL_SOCKETPAIR 8

/* Namespaces: what setns(fd, nstype) would enter. */
static __always_inline __u64 rf_ns_of_fd(struct task_struct *task, __u32 fd)
{
	__u64 file = rf_file_of_fd(task, fd);
	__u64 inode, super;

	if (!file)
		return 0;
	inode = (__u64)RF_READ(struct file, file, f_inode);
	super = (__u64)RF_READ(struct inode, inode, i_sb);
	if (RF_READ(struct super_block, super, s_magic) != RF_MAGIC_NSFS)
		return 0;
	return (__u64)RF_READ(struct inode, inode, i_private);
}

/* The struct pid behind a pidfd; 0: it is none. */
static __always_inline __u64 rf_pid_of_fd(struct task_struct *task, __u32 fd)
{
	__u64 file = rf_file_of_fd(task, fd);
	__u64 inode, super, magic, dentry, name = 0;

	if (!file)
		return 0;
	inode = (__u64)RF_READ(struct file, file, f_inode);
	super = (__u64)RF_READ(struct inode, inode, i_sb);
	magic = RF_READ(struct super_block, super, s_magic);
	if (magic == RF_MAGIC_PIDFS)
		return (__u64)RF_READ(struct inode, inode, i_private);
	if (magic != RF_MAGIC_ANON_INODE)
		return 0;
	dentry = (__u64)RF_READ(struct file, file, f_path.dentry);
	bpf_probe_read_kernel(&name, sizeof(name), RF_READ(struct dentry, dentry, d_name.name));
	return name == RF_PIDFD_NAME ? (__u64)RF_READ(struct file, file, private_data) : 0;
}

/* Whose a process is, by its number on the host. */
static __always_inline __u32 rf_relation_of_tgid(struct task_struct *task, const struct rf_task *bound, __u32 tgid)
{
	struct rf_task *other;

	if (tgid == (__u32)task->tgid)
		return RF_RELATION_SELF;
	other = bpf_map_lookup_elem(&processes, &tgid);
	if (!other)
		return RF_RELATION_HOST;
	return other->container == bound->container ? RF_RELATION_CONTAINER : RF_RELATION_OTHER;
}

__noinline __u32 rf_relation_of_process(__u32 tgid)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_task *bound = rf_bound(task);

	return bound ? rf_relation_of_tgid(task, bound, tgid) : RF_RELATION_UNKNOWN;
}

static __always_inline __u32 rf_relation_of_pidfd(struct task_struct *task, const struct rf_task *bound, __u32 fd)
{
	__u64 pid = rf_pid_of_fd(task, fd);
	__s32 nr = 0;

	if (!pid)
		return RF_RELATION_UNKNOWN;
	/* numbers[0]: as the host counts. */
	bpf_probe_read_kernel(&nr, sizeof(nr), (void *)(pid + bpf_core_field_offset(struct pid, numbers)));
	return rf_relation_of_tgid(task, bound, nr);
}

/*
 * A pid argument is a number of the caller's pid namespace. In the host's, it can be looked up. In
 * one of its own everything that it can name is inside.
 */
static __always_inline __u32 rf_relation_of_pid(struct task_struct *task, const struct rf_task *bound, __s32 pid)
{
	struct rf_pid_numbers numbers;

	if (pid == 0)
		return RF_RELATION_SELF;
	if (pid < 0)
		return RF_RELATION_HOST; /* all processes (perf_event_open) */
	rf_pid_numbers(task, &numbers);
	if (pid == numbers.nr)
		return RF_RELATION_SELF;
	if (numbers.ns && RF_READ(struct pid_namespace, numbers.ns, ns.inum) == config.host_pid_ns)
		return rf_relation_of_tgid(task, bound, pid);
	return RF_RELATION_CONTAINER;
}

#define RF_OWN_NS(task, kind) BPF_CORE_READ(task, nsproxy, kind, ns.inum)

static __always_inline __u32 rf_relation_of_ns(struct task_struct *task, __u64 ns)
{
	__u32 inum = RF_READ(struct ns_common, ns, inum);

	if (inum == config.host_mnt_ns || inum == config.host_pid_ns || inum == config.host_net_ns ||
	    inum == config.host_ipc_ns || inum == config.host_uts_ns || inum == config.host_cgroup_ns ||
	    inum == config.host_user_ns || inum == config.host_time_ns)
		return RF_RELATION_HOST;
	if (inum == rf_mnt_ns(task) || inum == rf_pid_ns(task) || inum == RF_OWN_NS(task, net_ns) ||
	    inum == RF_OWN_NS(task, ipc_ns) || inum == RF_OWN_NS(task, uts_ns) || inum == RF_OWN_NS(task, cgroup_ns) ||
	    inum == RF_OWN_NS(task, time_ns) || inum == BPF_CORE_READ(task, cred, user_ns, ns.inum))
		return RF_RELATION_SELF;
	return RF_RELATION_OTHER;
}

/* The operand that a rule tests. A global function: it is asked for each of them. */
__noinline __u64 rf_operand(const struct rf_call *call, __u32 source, __u32 arg)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_task *bound;
	__u64 value, next, ns;
	__u32 word = 0;

	if (!call || source == RF_FROM_NOTHING)
		return 0;
	if (source == RF_FROM_CONST)
		return arg;
	if (arg >= RF_SYSCALL_ARGS)
		return 0;
	value = call->args[arg];
	next = arg + 1 < RF_SYSCALL_ARGS ? call->args[arg + 1] : 0;
	switch (source) {
	case RF_FROM_ARG:
		return value;
	case RF_FROM_ARG32:
		return (__u32)value;
	case RF_FROM_DEV_TYPE:
		return value & RF_S_IFMT;
	case RF_FROM_USER_U64:
		next = 0;
		bpf_probe_read_user(&next, sizeof(next), (void *)value);
		return next;
	case RF_FROM_SETNS_TYPE:
		ns = rf_ns_of_fd(task, value);
		return ns ? rf_ns_type(ns) : (__u32)next;
	}
	bound = rf_bound(task);
	if (!bound)
		return RF_RELATION_UNKNOWN;
	switch (source) {
	case RF_FROM_SETNS_TARGET:
		ns = rf_ns_of_fd(task, value);
		word = ns ? rf_relation_of_ns(task, ns) : rf_relation_of_pidfd(task, bound, value);
		break;
	case RF_FROM_PID_TARGET:
		word = rf_relation_of_pid(task, bound, value);
		break;
	case RF_FROM_PIDFD_TARGET:
		word = rf_relation_of_pidfd(task, bound, value);
		break;
	}
	return word;
}

/* socketcall(call, args) of 32-bit callers: unpack the arguments of socket and socketpair. The rest is not ours. */
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

/* On a stack frame of its own: drift, which was looked for before, needs that of the caller. */
rf_subprogram int rf_call_event(struct task_struct *task, const struct rf_task *bound, struct rf_call *call,
				const struct rf_syscall *known, __u8 flags)
{
	struct rf_question question;
	struct rf_scratch *buffer;
	__u32 event = known->event, route;
	struct rf_container *container = rf_container_of(bound);
	__u32 i;

	if (!container)
		return 0;
	rf_count(bound->slot, known->counter);
	rf_ask(&question, event, bound, container);
	for (i = 0; i < RF_OPERANDS; i++)
		question.value[i] = rf_operand(call, known->source[i], known->arg[i]);
	if (call->compat) {
		flags |= RF_FLAG_COMPAT;
		question.value[RF_DIM_FACTS] = rf_compat_facts(task);
	}
	buffer = rf_scratch_get();
	if (!buffer) {
		rf_drop(event, RF_DROP_TABLE_FULL, bound->slot);
		return 0;
	}
	flags |= rf_call_text(buffer, call, known->text_arg, event);
	question.text = buffer->bit + 1;
	rf_judge(&question, task, bound, NULL);
	flags |= rf_carry_out(&question);
	rf_count_verdict(&question);
	route = rf_route(event, bound->slot, container, question.action);
	if (route != RF_TO_NOWHERE)
		rf_call_record(task, bound, call, &question, buffer, route, flags);
	rf_scratch_put(buffer);
	return 0;
}

static __always_inline int rf_entered(struct task_struct *task, bool compat)
{
	struct rf_syscall *known;
	struct rf_task *bound;
	struct rf_call call;
	__u8 flags = 0;

	bound = rf_bound(task);
	if (!bound)
		return 0;
	rf_read_call(&call, (struct pt_regs *)bpf_task_pt_regs(task), compat);
	known = bpf_map_lookup_elem(&syscalls, &call.index);
	if (!known || !known->event || known->event & RF_SYSCALL_HOOKED)
		return 0;
	if (known->event == RF_TASK_DRIFT) { /* an exec: before it makes the task another one */
		rf_examine(RF_PROCESS_EXEC | RF_AT_ENTRY);
		return 0;
	}
	rf_checkpoint(task, bound, known->event | RF_AT_ENTRY);
	if (compat && call.nr == RF_COMPAT_SOCKETCALL && !rf_unpack_socketcall(&call, &flags))
		return 0;
	return rf_call_event(task, bound, &call, known, flags);
}

SEC("tracepoint/syscalls/sys_enter")
int syscall_enter(void *ctx)
{
	return rf_entered(bpf_get_current_task_btf(), false);
}

/*
 * Instead of syscall_enter: 32-bit programs, int 0x80 and x32 calls as well, which no per-syscall
 * tracepoint ever sees. It runs at each call of every process, so what it does for those that are not
 * ours is all that it costs the node: one look into the table of calls.
 */
SEC("tp_btf/sys_enter")
int BPF_PROG(every_call, struct pt_regs *regs, long id)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 index = id; /* an x32 number lies beyond the native ones, too */
	bool compat = rf_in_compat(task) || index >= RF_COMPAT_BASE;
	struct rf_syscall *known;

	if (!compat) {
		known = bpf_map_lookup_elem(&syscalls, &index);
		if (!known || !known->event)
			return 0;
	}
	return rf_entered(task, compat);
}
