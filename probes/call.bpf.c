// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The record of a system call. A global function, verified once: else its branches would be
 * followed for each verdict of every program.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/call.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Fills in what every call has. On a stack of its own, which the strings do not need. */
rf_subprogram void rf_call_fill(struct rf_syscall_event *record, const struct rf_call *call,
				struct rf_query *query, struct rf_armed *armed, __u32 flags)
{
	struct task_struct *task = bpf_get_current_task_btf();

	rf_header(&record->header, query->event, task, &armed->task);
	rf_header_verdict(&record->header, query, task, &armed->task);
	record->header.flags = flags;
	record->nr = call->nr;
	__builtin_memcpy(record->args, call->args, sizeof(record->args));
	__builtin_memcpy(record->operand, query->value, sizeof(record->operand));
	record->text_len = armed->scratch.len;
	if (armed->scratch.len)
		bpf_probe_read_kernel_str(record->text, sizeof(record->text), armed->scratch.name);
}

/* The string that an argument of the call points to; 0: none. */
static __always_inline __u64 rf_string_of(const struct rf_call *call, __s32 arg)
{
	return arg >= 0 && arg < RF_SYSCALL_ARGS ? call->args[arg] : 0;
}

/* Returns the length of a copied string without its NUL, and adds to the header's flags. */
static __always_inline __u32 rf_string_length(long copied, __u8 *flags)
{
	if (copied <= 0) {
		*flags |= RF_FLAG_UNREADABLE;
		return 0;
	}
	if (copied == RF_PATH_LEN)
		*flags |= RF_FLAG_TRUNCATED;
	return copied - 1;
}

static __always_inline void rf_call_strings(struct rf_strings_event *record,
					    const struct rf_call *call,
					    const struct rf_syscall *known, __u64 second)
{
	__u8 *flags = &record->call.header.flags;
	__u64 from = rf_string_of(call, known->more_arg[0]);

	if (second)
		record->second_len = rf_string_length(
			bpf_probe_read_kernel_str(record->second, RF_PATH_LEN, (void *)second),
			flags);
	else if (from)
		record->second_len = rf_string_length(
			bpf_probe_read_user_str(record->second, RF_PATH_LEN, (void *)from), flags);
	from = rf_string_of(call, known->more_arg[1]);
	if (from)
		record->third_len = rf_string_length(
			bpf_probe_read_user_str(record->third, RF_PATH_LEN, (void *)from), flags);
}

/* The call, if it is of that event and has more strings than one; else NULL. */
static __always_inline struct rf_syscall *rf_call_with_strings(const struct rf_call *call,
							       __u32 event)
{
	__u32 index = call->index; /* memory of a caller is no key before 6.3 */
	struct rf_syscall *known = bpf_map_lookup_elem(&syscalls, &index);

	if (!known || (known->event & RF_SYSCALL_EVENT_MASK) != event)
		return NULL;
	return known->more_arg[0] >= 0 || known->more_arg[1] >= 0 ? known : NULL;
}

__noinline int rf_call_record(struct rf_query *query, const struct rf_call *call, __u32 route,
			      __u32 flags, __u64 second)
{
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());
	struct rf_strings_event *longer;
	struct rf_syscall_event *record;
	struct rf_syscall *known;

	if (!query || !call || !armed)
		return 0;
	known = rf_call_with_strings(call, query->event);
	if (known && query->action != RF_ACTION_NONE) { /* for an alert */
		longer = RF_RECORD(rf_strings_event, query->event, armed->task.slot, route);
		if (!longer)
			return 0;
		rf_call_fill(&longer->call, call, query, armed, flags);
		rf_call_strings(longer, call, known, second);
		rf_submit(longer, query->event);
		return 0;
	}
	record = RF_RECORD(rf_syscall_event, query->event, armed->task.slot, route);
	if (!record)
		return 0;
	rf_call_fill(record, call, query, armed, flags);
	rf_submit(record, query->event);
	return 0;
}
