/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A system call and the rules of its event, whoever asks: its entry (syscalls.bpf.c) or a hook that it
 * reaches (lsm.h).
 */
#ifndef RINGFENCE_CALL_H
#define RINGFENCE_CALL_H

#include "match.h"
#include "object.h"

/* syscalls.bpf.c: the operand that a rule tests; a global function, as it is asked for each of them. */
__u64 rf_operand(const struct rf_call *call, __u32 source, __u32 arg);

static __always_inline void rf_call_record(struct task_struct *task, const struct rf_task *bound,
					   const struct rf_call *call, struct rf_question *question,
					   struct rf_scratch *buffer, __u32 route, __u8 flags)
{
	struct rf_syscall_event *record = RF_RECORD(rf_syscall_event, question->event, bound->slot, route);

	if (!record)
		return;
	rf_header(&record->header, question->event, task, bound);
	rf_header_verdict(&record->header, question, task, bound);
	record->header.flags = flags;
	record->nr = call->nr;
	__builtin_memcpy(record->args, call->args, sizeof(record->args));
	__builtin_memcpy(record->operand, question->value, sizeof(record->operand));
	record->text_len = buffer->len;
	if (buffer->len)
		bpf_probe_read_kernel_str(record->text, sizeof(record->text), buffer->name);
	rf_submit(record, question->event);
}

#endif
