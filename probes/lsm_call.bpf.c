// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The hook capable, paired with the call in progress. unshare, open_tree, mount_setattr and many
 * others reach no other hook. It is called all over the kernel, so it leaves early: one or two
 * look-ups for a task that is not armed, is in no call that a rule is about, or is a kernel worker.
 *
 * The kernel's own check comes first, and what it refuses does not arrive here: an attempt without
 * the capability fails by itself and is not seen.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm_call.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Events that only `capable` sees before their effect, or that it sees first. */
#define RF_BY_CAPABLE                                                                              \
	(RF_EVENT_BIT(RF_SYS_UNSHARE) | RF_EVENT_BIT(RF_SYS_SETNS) | RF_EVENT_BIT(RF_SYS_FSOPEN) | \
	 RF_EVENT_BIT(RF_SYS_FSMOUNT) | RF_EVENT_BIT(RF_SYS_FSPICK) |                              \
	 RF_EVENT_BIT(RF_SYS_OPEN_TREE) | RF_EVENT_BIT(RF_SYS_MOUNT_SETATTR) |                     \
	 RF_EVENT_BIT(RF_SYS_MODULE_LOAD) | RF_EVENT_BIT(RF_SYS_MODULE_UNLOAD) |                   \
	 RF_EVENT_BIT(RF_SYS_KEXEC) | RF_EVENT_BIT(RF_SYS_OPEN_BY_HANDLE_AT) |                     \
	 RF_EVENT_BIT(RF_SYS_IOPL) | RF_EVENT_BIT(RF_SYS_REBOOT) | RF_EVENT_BIT(RF_SYS_SWAP) |     \
	 RF_EVENT_BIT(RF_SYS_SETTIME) | RF_EVENT_BIT(RF_SYS_ACCT) |                                \
	 RF_EVENT_BIT(RF_SYS_QUOTACTL) | RF_EVENT_BIT(RF_SYS_SETDOMAIN) |                          \
	 RF_EVENT_BIT(RF_SYS_FANOTIFY_INIT))

/*
 * The namespace that setns is about to enter, by the object that the kernel has (setns.bpf.c), not
 * by the descriptor, which another thread can replace. If the object is not known for
 * certain, the descriptor is right as long as no other task shares the descriptors; else it is the
 * host's.
 */
static __always_inline void rf_apply_entered_ns(struct rf_query *query, struct rf_armed *armed)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 ns = armed->entering_ns;

	if (!config.setns_by_object)
		return;
	if (ns && config.setns_by_object == RF_ENTRIES_CERTAIN) {
		query->value[0] |= rf_ns_type(ns);
		query->value[1] = rf_relation_of_ns(ns);
	} else if (BPF_CORE_READ(task, files, count.counter) != 1) {
		query->value[1] = RF_RELATION_HOST;
	}
}

/*
 * Returns true if the task, or the one that made it, was refused a namespace of the host before: it
 * does not ask by mistake.
 */
static __always_inline bool rf_repeats_entry(struct rf_armed *armed, const struct rf_query *query)
{
	if (query->event != RF_SYS_SETNS || query->value[1] != RF_RELATION_HOST ||
	    !rf_refuses(query->action))
		return false;
	return armed->refused_entries++ != 0;
}

/* The operands that hooks know as kernel objects, and not as arguments of the call. */
static __always_inline void rf_apply_hook_arguments(struct rf_query *query, struct rf_armed *armed,
						    const struct rf_syscall *known, __u64 target,
						    __u64 flags)
{
	bool whole = flags & RF_FLAGS_ARE_WHOLE;
	__u32 relation = target ? rf_relation_of_process(RF_READ(struct task_struct, target, tgid))
				: RF_RELATION_UNKNOWN;

	if (query->event == RF_SYS_SETNS && !target && !(flags & RF_FLAGS_OF_LOOK))
		rf_apply_entered_ns(query, armed);
	flags &= ~(RF_FLAGS_ARE_WHOLE | RF_FLAGS_OF_LOOK);
	switch (query->event) {
	case RF_SYS_CLONE:
		if (whole)
			query->value[0] = flags;
		else if (known->source[0] ==
			 RF_FROM_ARG) /* clone(2): the kernel's copy has no signal */
			query->value[0] = (query->value[0] & ~RF_CSIGNAL) | flags;
		else
			query->value[0] |= flags;
		break;
	case RF_SYS_UNSHARE:
		query->value[0] |= flags;
		break;
	case RF_SYS_SETTIME: /* only a change needs the capability, whatever the memory says now */
		query->value[1] = 1;
		break;
	case RF_SYS_PTRACE:
	case RF_SYS_PROCESS_VM:
	case RF_SYS_SETNS:
		if (target)
			query->value[1] = relation;
		break;
	case RF_SYS_PIDFD_GETFD:
	case RF_SYS_PERF_EVENT_OPEN:
		if (target)
			query->value[0] = relation;
		break;
	}
}

/* The call's event, if a hook of `events` decides it; else 0. */
static __always_inline __u32 rf_hooked_event(const struct rf_syscall *known, __u64 events)
{
	__u32 event = known->event & ~RF_SYSCALL_HOOKED, bit = event - RF_SYS_CLONE;

	return known->event & RF_SYSCALL_HOOKED && bit < 64 && events >> bit & 1 ? event
										 : RF_EVENT_NONE;
}

static __always_inline __u32 rf_call_finish(struct rf_armed *armed, const struct rf_call *call,
					    struct rf_query *query, __u8 flags)
{
	struct rf_container *container = rf_container_of(&armed->task);
	__u32 route;

	if (!container)
		return RF_ACTION_NONE;
	if (rf_repeats_entry(armed, query))
		query->action = RF_ACTION_KILL;
	flags |= rf_lsm_enforce(query);
	if (rf_is_duplicate(armed, query))
		return query->action;
	rf_count_verdict(query);
	route = rf_route_verdict(query, container);
	if (route != RF_ROUTE_NONE)
		rf_call_record(query, call, route, flags, 0);
	return query->action;
}

static __always_inline void rf_call_query(struct task_struct *task, const struct rf_task *bound,
					  const struct rf_container *container,
					  const struct rf_call *call,
					  const struct rf_syscall *known, struct rf_query *query)
{
	__u32 i;

	rf_query_init(query, known->event & ~RF_SYSCALL_HOOKED, bound, container);
	if (call->compat)
		query->value[RF_DIM_FACTS] = rf_compat_facts(task);
	if (query->event == RF_SYS_SETNS)
		query->value[RF_DIM_FACTS] |= rf_setns_facts(container);
	RF_ROLLED
	for (i = 0; i < RF_OPERANDS; i++)
		query->value[i] = rf_operand(call, known->source[i], known->arg[i]);
}

__noinline int rf_decide_call(__u64 events, __u64 target, __u64 flags)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_query *query;
	struct rf_scratch *buffer;
	struct rf_syscall *known;
	struct rf_armed *armed;
	struct rf_call call;
	__u32 verdict;
	__u8 notes;
	int answer;

	armed = rf_bound(task);
	if (!armed || !rf_call_in_progress(task, &call))
		return RF_ACTION_NONE;
	known = rf_call_of_event(&call, RF_EVENT_NONE);
	if (!known || !rf_hooked_event(known, events))
		return RF_ACTION_NONE;
	container = rf_container_of_current(&armed->task);
	if (!container)
		return RF_ACTION_NONE;
	if (!rf_is_same_call(task, armed, &call))
		rf_count_call(armed->task.slot, known->counter);
	query = (struct rf_query *)armed->query_storage;
	rf_call_query(task, &armed->task, container, &call, known, query);
	rf_apply_hook_arguments(query, armed, known, target, flags);
	answer = rf_evaluate_no_text(query, task, &armed->task);
	if (answer == RF_MATCH_NOTHING && !rf_is_observed(query->event))
		return RF_ACTION_NONE;
	buffer = rf_scratch_claim(&armed->scratch);
	if (!buffer) {
		rf_end_no_scratch(query, answer, RF_MECHANISM_LSM);
		return query->action;
	}
	notes = rf_call_text(buffer, &call, known->text_arg, query->event);
	if (call.compat)
		notes |= RF_FLAG_COMPAT;
	if (answer == RF_MATCH_NEED_MORE)
		rf_evaluate_text(query, buffer);
	verdict = rf_call_finish(armed, &call, query, notes);
	rf_scratch_release(buffer);
	return verdict;
}

SEC("lsm/capable")
int RF_HOOK(lsm_capable, const struct cred *cred, struct user_namespace *ns, int cap,
	    unsigned int opts, int ret)
{
	if (ret)
		return ret;
	/* setns by pidfd first asks whether the process may be looked at. */
	return rf_lsm_verdict(
		rf_decide_call(RF_BY_CAPABLE, 0, cap == RF_CAP_SYS_PTRACE ? RF_FLAGS_OF_LOOK : 0));
}
