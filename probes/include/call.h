/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The query and the record of a system call: for its entry (syscalls.bpf.c) and for the hooks that
 * it reaches (lsm.h).
 */
#ifndef RINGFENCE_CALL_H
#define RINGFENCE_CALL_H

#include "match.h"
#include "object.h"
#include "operands.h"

/*
 * Copies the call's string. The caller can change it after this, and it may not be resident. The
 * weaker tiers read it from user memory.
 */
static __always_inline __u8 rf_call_text(struct rf_scratch *buffer, const struct rf_call *call,
					 __s32 arg, __u32 event)
{
	long len;

	buffer->text.prefixlen = 32 + 8 * RF_MATCH_TEXT;
	buffer->text.event = event;
	buffer->text.dim = RF_DIM_OBJECT;
	buffer->text.text[0] = 0;
	buffer->name[0] = 0;
	buffer->len = 0;
	buffer->truncated = 0;
	if (arg < 0 || arg >= RF_SYSCALL_ARGS || !call->args[arg])
		return 0;
	len = bpf_probe_read_user_str(buffer->name, RF_PATH_LEN, (void *)call->args[arg]);
	if (len <= 0)
		return RF_FLAG_UNREADABLE;
	buffer->len = len - 1;
	bpf_probe_read_kernel(buffer->text.text, RF_MATCH_TEXT, buffer->name);
	return len == RF_PATH_LEN ? RF_FLAG_TRUNCATED : 0;
}

/*
 * Writes the record of a call of the current task, whose buffer holds the call's string. `second`:
 * the kernel's copy of the call's second string; 0: it is in the caller's memory only.
 */
int rf_call_record(struct rf_query *query, const struct rf_call *call, __u32 route, __u32 flags,
		   __u64 second);

#endif
