/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A program that is to run, and the rules of process.exec: for sched_process_exec (process.bpf.c)
 * and for the hook before the point of no return (lsm_program.bpf.c).
 */
#ifndef RINGFENCE_EXEC_H
#define RINGFENCE_EXEC_H

#include "match.h"
#include "object.h"

/* The operands that need no path. */
static __always_inline void rf_exec_operands(struct rf_query *query, struct task_struct *task,
					     const struct rf_task *bound, const struct rf_file *exe)
{
	query->value[0] = exe->magic;
	query->value[2] = (exe->mode & RF_S_IFMT) | rf_mount_owner_or_outside(task, bound, exe)
							    << 16;
}

/* Begins the query. The path of the program is in the buffer, its hash and facts are in `bound`. */
static __always_inline void rf_exec_query(struct rf_query *query, struct task_struct *task,
					  const struct rf_task *bound,
					  const struct rf_container *container,
					  const struct rf_file *exe, struct rf_scratch *buffer)
{
	rf_query_init(query, RF_PROCESS_EXEC, bound, container);
	rf_exec_operands(query, task, bound, exe);
	query->value[3] = rf_hash_name(buffer, exe->dentry);
	rf_text_key_path(buffer, RF_PROCESS_EXEC);
	query->text = buffer->bit + 1;
	query->worst_case = buffer->truncated;
}

/*
 * The program that is to run, without a buffer: its path and its name are unknown. `next` is the
 * task after the exec.
 */
static __always_inline void rf_exec_fail_no_scratch(struct rf_query *query,
						    struct task_struct *task,
						    const struct rf_task *next,
						    const struct rf_container *container,
						    const struct rf_file *exe, const __u32 by)
{
	rf_query_init(query, RF_PROCESS_EXEC, next, container);
	rf_exec_operands(query, task, next, exe);
	query->known = RF_KNOWN(0) | RF_KNOWN(1) | RF_KNOWN(2);
	rf_query_facts(query, task, next);
	rf_fail_no_scratch(query, by);
}

static __always_inline __u8 rf_exec_args(struct rf_exec_event *record, struct task_struct *task)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	__u64 start, len, take;

	if (!mm)
		return RF_FLAG_UNREADABLE;
	start = BPF_CORE_READ(mm, arg_start);
	len = BPF_CORE_READ(mm, arg_end) - start;
	take = len < RF_ARGS_LEN ? len : RF_ARGS_LEN - 1;
	barrier_var(
		take); /* clang knows that the mask changes nothing; the verifier has to see it */
	take &= RF_ARGS_LEN - 1;
	if (bpf_probe_read_user(record->args, take, (void *)start))
		return RF_FLAG_UNREADABLE;
	record->args_len = take;
	return len >= RF_ARGS_LEN ? RF_FLAG_TRUNCATED : 0;
}

static __always_inline void rf_exec_record(struct task_struct *task, const struct rf_task *bound,
					   const struct rf_file *exe, struct rf_scratch *buffer,
					   struct rf_query *query, __u32 route, __u8 flags,
					   const bool args)
{
	struct rf_exec_event *record =
		RF_RECORD(rf_exec_event, RF_PROCESS_EXEC, bound->slot, route);

	if (!record)
		return;
	rf_header(&record->header, RF_PROCESS_EXEC, task, bound);
	rf_header_verdict(&record->header, query, task, bound);
	rf_object_read(&record->object, exe);
	record->exe_hash = bound->exe_hash;
	if (rf_path_copy(record->path, sizeof(record->path), buffer))
		flags |= RF_FLAG_TRUNCATED;
	record->path_len = buffer->len < RF_PATH_LEN ? buffer->len : RF_PATH_LEN - 1;
	if (args)
		flags |= rf_exec_args(record, task);
	record->header.flags = flags;
	rf_submit(record, RF_PROCESS_EXEC);
}

#endif
