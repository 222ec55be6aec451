/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How an LSM program is written. It is SEC("lsm/HOOK") int BPF_PROG(lsm_HOOK, ..., int ret) in a
 * file lsm_*.bpf.c, and agent/ringfence/bpf/lsm.py lists the events that it decides. It evaluates
 * the same rules as the weaker tiers, writes the same records and counts in the same places, but
 * refuses before the effect:
 *
 * 	struct rf_lsm lsm;
 *
 * 	if (ret)
 * 		return ret;
 * 	if (!rf_lsm_armed(&lsm))
 * 		return 0;
 * 	rf_lsm_query(&lsm, RF_SYS_CHMOD);
 * 	rf_lsm_operand(&lsm, 0, mode);
 * 	return rf_lsm_decide(&lsm, 0);
 *
 * If the record of an event is not rf_syscall_event: rf_query_init, rf_evaluate, rf_conclude, the
 * record, and rf_lsm_result.
 *
 * Where `bpf` is not in the LSM list, the agent loads the same programs for the functions that call
 * the hooks (fmod_ret/security_HOOK; fentry where the function returns nothing). They have the same
 * arguments, except mmap_file (mapping.h), and come before every security module. Then
 * config.hook_mechanism is RF_MECHANISM_HOOK.
 *
 * What the kernel itself refuses, for a missing capability or by another module, mostly never
 * arrives here: hooks run after the kernel's own checks and after the modules before bpf in the
 * list.
 */
#ifndef RINGFENCE_LSM_H
#define RINGFENCE_LSM_H

#include "backstop.h"
#include "call.h"

#define RF_EPERM 1

struct rf_lsm {
	struct task_struct *task;
	struct rf_armed *armed;
	struct rf_container *container;
	struct rf_query query;
	struct rf_call call; /* nr == RF_NO_CALL: a kernel worker, which is in no call */
};

/* Counts a call, once. */
static __always_inline void rf_count_call(__u32 slot, __u32 counter)
{
	if (!config.backstop || !rf_is_backstop())
		rf_count(slot, counter);
}

/* Returns true if the current task is a subject. Called first: most tasks are not. */
static __always_inline bool rf_lsm_armed(struct rf_lsm *lsm)
{
	lsm->task = bpf_get_current_task_btf();
	lsm->armed = rf_bound(lsm->task);
	if (!lsm->armed)
		return false;
	lsm->container = rf_container_of_current(&lsm->armed->task);
	if (lsm->container && rf_is_condemned(lsm->container))
		bpf_send_signal(9); /* also where no rule is evaluated */
	return lsm->container;
}

/*
 * The system call that the task is in, from its saved registers, which do not change meanwhile.
 * Kernel threads are in none. Workers of an io_uring are in none, either: they are armed like the
 * ring's creator and execute its requests, and their registers are a copy from one of the creator's
 * calls.
 */
static __always_inline bool rf_call_in_progress(struct task_struct *task, struct rf_call *call)
{
	if (task->flags & (RF_PF_KTHREAD | RF_PF_IO_WORKER)) {
		__builtin_memset(call, 0, sizeof(*call));
		call->nr = call->index = RF_NO_CALL;
		return false;
	}
	rf_read_call(call, (struct pt_regs *)bpf_task_pt_regs(task), rf_in_compat(task));
	if (call->nr >= RF_COMPAT_BASE) /* x32 */
		call->compat = 1;
	return true;
}

/*
 * The table entry of the call in progress, if it is of that event (RF_EVENT_NONE: of any); else
 * NULL.
 */
static __always_inline struct rf_syscall *rf_call_of_event(const struct rf_call *call, __u32 event)
{
	__u32 index = call->index;
	struct rf_syscall *known = bpf_map_lookup_elem(&syscalls, &index);
	__u32 is = known ? known->event & ~RF_SYSCALL_HOOKED : RF_EVENT_NONE;

	return is && (!event || is == event) ? known : NULL;
}

/*
 * Begins a query on a system call's event. If the task is in a call of that event, the operands are
 * those of the call's entry; the hook replaces what it knows better (rf_lsm_operand). Returns true
 * if the task is in such a call.
 */
static __always_inline bool rf_lsm_query(struct rf_lsm *lsm, __u32 event)
{
	struct rf_syscall *known;
	__u32 i;

	rf_query_init(&lsm->query, event, &lsm->armed->task, lsm->container);
	if (!rf_call_in_progress(lsm->task, &lsm->call))
		return false;
	if (lsm->call.compat)
		lsm->query.value[RF_DIM_FACTS] = rf_compat_facts(lsm->task);
	known = rf_call_of_event(&lsm->call, event);
	if (!known)
		return false;
	rf_count_call(lsm->armed->task.slot, known->counter);
	RF_ROLLED
	for (i = 0; i < RF_OPERANDS; i++)
		lsm->query.value[i] = rf_operand(&lsm->call, known->source[i], known->arg[i]);
	return true;
}

static __always_inline void rf_lsm_operand(struct rf_lsm *lsm, __u32 dim, __u64 value)
{
	lsm->query.value[dim] = value;
}

/*
 * The hook's return value. The result is a constant of its own branch, which the compiler cannot
 * fold into an expression: from 6.12 on, the verifier requires a value between -4095 and 0
 * (5d99e198be27).
 */
static __always_inline int rf_lsm_refused(void)
{
	int refused = -RF_EPERM;

	barrier_var(refused);
	return refused;
}

static __always_inline int rf_lsm_result(const struct rf_query *query)
{
	if (rf_refuses(query->action))
		return rf_lsm_refused();
	return 0;
}

/* For the verdict of a global function. */
static __always_inline int rf_lsm_verdict(__u32 action)
{
	if (rf_refuses(action))
		return rf_lsm_refused();
	return 0;
}

/* Copies the event's string. `text` is a kernel address; 0: none. */
static __always_inline __u8 rf_lsm_text(struct rf_scratch *buffer, __u32 event, __u64 text)
{
	long len;

	buffer->text.prefixlen = 32 + 8 * RF_MATCH_TEXT;
	buffer->text.event = event;
	buffer->text.dim = RF_DIM_OBJECT;
	buffer->text.text[0] = 0;
	buffer->name[0] = 0;
	buffer->len = 0;
	buffer->truncated = 0;
	if (!text)
		return 0;
	len = bpf_probe_read_kernel_str(buffer->name, RF_PATH_LEN, (void *)text);
	if (len <= 0) {
		buffer->truncated = 1;
		return RF_FLAG_UNREADABLE;
	}
	buffer->len = len - 1;
	bpf_probe_read_kernel(buffer->text.text, RF_MATCH_TEXT, buffer->name);
	return len == RF_PATH_LEN ? RF_FLAG_TRUNCATED : 0;
}

/*
 * Calls from the same place with the same arguments within this time count as the same call. Equal
 * verdicts are not reported or counted again, but each one is evaluated again: the memory behind
 * arguments and the files behind descriptors may have changed.
 */
#define RF_SAME_CALL_NS 100000000ULL

/* Identifies a verdict: equal verdicts of one call are reported once. */
static __always_inline __u64 rf_verdict_hash(const struct rf_query *query)
{
	__u64 hash = (__u64)query->event << 48 ^ (__u64)query->action << 40 ^
		     (__u64)query->rule << 16 ^ query->generation;
	__u32 i;

	for (i = 0; i < RF_OPERANDS; i++)
		hash = (hash ^ query->value[i]) * RF_HASH_FACTOR;
	return hash;
}

/* Returns true if the call in progress was seen before, and notes it. */
static __always_inline bool rf_is_same_call(struct task_struct *task, struct rf_armed *armed,
					    const struct rf_call *call)
{
	struct rf_last_call *last_call = &armed->last_call;
	__u64 hash = rf_call_hash(call, (struct pt_regs *)bpf_task_pt_regs(task)),
	      now = bpf_ktime_get_boot_ns();

	if (last_call->call == hash && now - last_call->time_ns < RF_SAME_CALL_NS)
		return true;
	last_call->call = hash;
	last_call->time_ns = now;
	last_call->reported = 0;
	return false;
}

/* Returns true if the same verdict of this call was reported before, and notes it. */
static __always_inline bool rf_is_duplicate(struct rf_armed *armed, const struct rf_query *query)
{
	__u64 hash = rf_verdict_hash(query);

	if (armed->last_call.reported == hash)
		return true;
	armed->last_call.reported = hash;
	return false;
}

/* The text is in the buffer. If it is not known whole, it may be any. */
static __always_inline void rf_evaluate_text(struct rf_query *query, struct rf_scratch *buffer)
{
	query->text = buffer->bit + 1;
	query->worst_case = buffer->truncated;
	if (!query->worst_case)
		query->known |= RF_KNOWN_OBJECT;
	rf_match(query, NULL);
}

/*
 * The epilogue of a query on a system call's event, with the string in the buffer: evaluates what
 * the string decides, enforces, counts, reports. Returns what the hook has to return. `second`: the
 * kernel's copy of the call's second string; 0: none.
 */
static __always_inline int rf_lsm_finish(struct rf_lsm *lsm, struct rf_scratch *buffer, int answer,
					 __u8 flags, const bool once, __u64 second)
{
	struct rf_query *query = &lsm->query;
	__u32 route;

	if (lsm->call.compat)
		flags |= RF_FLAG_COMPAT;
	if (answer == RF_MATCH_NEED_MORE)
		rf_evaluate_text(query, buffer);
	flags |= rf_lsm_enforce(query);
	if (once && rf_is_duplicate(lsm->armed, query)) {
		rf_scratch_release(buffer);
		return rf_lsm_result(query);
	}
	rf_count_verdict(query);
	route = rf_route_verdict(query, lsm->container);
	if (route != RF_ROUTE_NONE)
		rf_call_record(query, &lsm->call, route, flags, second);
	rf_scratch_release(buffer);
	return rf_lsm_result(query);
}

static __always_inline int rf_lsm_no_scratch(struct rf_lsm *lsm, int answer)
{
	rf_end_no_scratch(&lsm->query, answer, RF_MECHANISM_LSM);
	return rf_lsm_result(&lsm->query);
}

/*
 * Evaluates what needs no string. Returns true if the string, or a record, is needed; else the call
 * may go on.
 */
static __always_inline bool rf_lsm_needs_more(struct rf_lsm *lsm, int *answer)
{
	*answer = rf_evaluate_no_text(&lsm->query, lsm->task, &lsm->armed->task);
	return *answer != RF_MATCH_NOTHING || rf_is_observed(lsm->query.event);
}

/*
 * Decides a query. `text`: the event's string, as a kernel address; 0: none. `second`: the same of
 * the call's second string, which is only reported.
 */
static __always_inline int rf_lsm_decide_two(struct rf_lsm *lsm, __u64 text, __u64 second)
{
	struct rf_scratch *buffer;
	int answer;

	if (!rf_lsm_needs_more(lsm, &answer))
		return 0;
	buffer = rf_scratch_claim(&lsm->armed->scratch);
	if (!buffer)
		return rf_lsm_no_scratch(lsm, answer);
	return rf_lsm_finish(lsm, buffer, answer, rf_lsm_text(buffer, lsm->query.event, text),
			     false, second);
}

static __always_inline int rf_lsm_decide(struct rf_lsm *lsm, __u64 text)
{
	return rf_lsm_decide_two(lsm, text, 0);
}

/* Decides a query without a string that one call may cause more than once. */
static __always_inline int rf_lsm_decide_once(struct rf_lsm *lsm)
{
	struct rf_scratch *buffer;
	int answer;
	__u8 flags;

	if (!rf_lsm_needs_more(lsm, &answer))
		return 0;
	buffer = rf_scratch_claim(&lsm->armed->scratch);
	if (!buffer)
		return rf_lsm_no_scratch(lsm, answer);
	flags = rf_lsm_text(buffer, lsm->query.event, 0);
	if (lsm->call.nr == RF_NO_CALL)
		return rf_lsm_finish(lsm, buffer, answer, flags, false, 0);
	rf_is_same_call(lsm->task, lsm->armed, &lsm->call);
	return rf_lsm_finish(lsm, buffer, answer, flags, true, 0);
}

/* Decides a query. The string is the path of an object as the task sees it. */
static __always_inline int rf_lsm_decide_path(struct rf_lsm *lsm, __u64 mnt, __u64 dentry)
{
	struct task_struct *task = lsm->task;
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	__u64 mount = bpf_core_field_offset(struct mount, mnt);
	struct rf_scratch *buffer;
	__u8 flags = 0;
	int answer;

	if (!rf_lsm_needs_more(lsm, &answer))
		return 0;
	buffer = rf_scratch_claim(&lsm->armed->scratch);
	if (!buffer)
		return rf_lsm_no_scratch(lsm, answer);
	rf_path_as_mounted(buffer, dentry, mnt - mount, (__u64)BPF_CORE_READ(fs, root.dentry),
			   (__u64)BPF_CORE_READ(fs, root.mnt) - mount);
	rf_text_key_path(buffer, lsm->query.event);
	if (rf_path_copy(buffer->name, RF_PATH_LEN, buffer))
		flags = RF_FLAG_TRUNCATED;
	buffer->len = buffer->len < RF_PATH_LEN ? buffer->len : RF_PATH_LEN - 1;
	return rf_lsm_finish(lsm, buffer, answer, flags, false, 0);
}

#endif
