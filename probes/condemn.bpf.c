// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Kills, and which of them condemn the container. Global functions: see task_facts.bpf.c. */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/condemn.h"
#include "include/emit.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Threads that are looked at. A larger process must share everything with all of its threads. */
#define RF_THREADS 128
#define RF_THREADS_AT_ONCE 8

/* What the threads of a process share with the current one. */
struct rf_sharing {
	__u64 next; /* the next thread's thread_node; the list's head after the last one */
	__u64 head;
	__u64 files;
	__u64 fs;
	__s32 of_files;
	__s32 of_fs;
};

/* Counts some threads, in a function that is verified once. Returns false after the last one. */
__noinline int rf_count_threads(struct rf_sharing *sharing)
{
	__u64 thread;
	__u32 i;

	if (!sharing)
		return false;
	for (i = 0; i < RF_THREADS_AT_ONCE; i++) {
		if (!sharing->next || sharing->next == sharing->head)
			return false;
		thread = sharing->next - bpf_core_field_offset(struct task_struct, thread_node);
		sharing->of_files +=
			(__u64)RF_READ(struct task_struct, thread, files) == sharing->files;
		sharing->of_fs += (__u64)RF_READ(struct task_struct, thread, fs) == sharing->fs;
		sharing->next = (__u64)RF_READ(struct list_head, sharing->next, next);
	}
	return true;
}

/*
 * An io_uring holds files that it has opened, and another process may hold the ring. Its requests
 * are made by workers, or by the task itself on its way out of any call.
 */
static __always_inline bool rf_uses_ring(struct task_struct *task)
{
	if (task->flags & RF_PF_IO_WORKER)
		return true;
	return bpf_core_field_exists(task->io_uring) && BPF_CORE_READ(task, io_uring);
}

/*
 * The kernel counts the users of each, and a thread may have a table of its own. Memory
 * that is looked at in /proc has one user more for a moment. So its count is of interest only if a
 * process of the container has shared memory (`may_share`), or is the child of a vfork.
 */
__noinline int rf_shares_with_others(__u32 may_share)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_sharing sharing = {};
	__s32 live = BPF_CORE_READ(task, signal, live.counter), files, fs;
	__u32 i;

	if (BPF_CORE_READ(task, vfork_done) || rf_uses_ring(task))
		return true;
	if (may_share && BPF_CORE_READ(task, mm, mm_users.counter) > live)
		return true;
	files = BPF_CORE_READ(task, files, count.counter);
	fs = BPF_CORE_READ(task, fs, users);
	if (files <= 1 && fs <= 1)
		return false;
	sharing.files = (__u64)BPF_CORE_READ(task, files);
	sharing.fs = (__u64)BPF_CORE_READ(task, fs);
	sharing.head = (__u64)BPF_CORE_READ(task, signal) +
		       bpf_core_field_offset(struct signal_struct, thread_head);
	sharing.next = (__u64)BPF_CORE_READ(task, signal, thread_head.next);
	RF_ROLLED
	for (i = 0; i < RF_THREADS; i += RF_THREADS_AT_ONCE) {
		if (!rf_count_threads(&sharing))
			return files > sharing.of_files || fs > sharing.of_fs;
	}
	return sharing.of_files < RF_THREADS || sharing.of_fs < RF_THREADS || files > live ||
	       fs > live;
}

static __always_inline void rf_condemned_record(struct task_struct *task,
						const struct rf_task *bound, __u32 event)
{
	struct rf_tamper_event *record =
		RF_RECORD(rf_tamper_event, RF_AGENT_TAMPER, bound->slot, RF_ROUTE_ALERTS);

	if (!record)
		return;
	rf_header(&record->header, RF_AGENT_TAMPER, task, bound);
	record->header.action = RF_ACTION_KILL;
	record->header.mechanism = RF_MECHANISM_KILL;
	record->what = RF_TAMPER_CONDEMNED;
	record->nr = RF_NO_CALL;
	record->detail = event;
	record->agent_pid = config.agent_pid;
	record->agent_start_ns = config.agent_start_ns;
	rf_submit(record, RF_AGENT_TAMPER);
}

__noinline int rf_report_condemned(__u32 event)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);

	if (!armed)
		return 0;
	rf_count_action(armed->task.slot, RF_ACTION_KILL);
	rf_condemned_record(task, &armed->task, event);
	return 0;
}

__noinline __u8 rf_kill(__u32 event)
{
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());
	struct rf_container *container = armed ? rf_container_of(&armed->task) : NULL;
	bool condemns = false;
	__u8 failed;

	if (container && rf_shares_with_others(container->state & RF_STATE_SHARES))
		condemns = rf_mark_condemned(container);
	failed = bpf_send_signal(9) ? RF_FLAG_SIGNAL_FAILED : 0;
	if (armed) /* what the call does yet is of a task that is dead, and was reported */
		armed->identity.kill_pending = 1;
	if (condemns)
		rf_report_condemned(event);
	return failed;
}
