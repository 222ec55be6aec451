// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Socket options, if no LSM hook decides them. While a program of this kind is attached, the kernel
 * first copies each option's value, for every process: it is attached only if a rule needs it.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/cgroup.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct bpf_sockopt {
	__u64 sk; /* pointers, for programs alone */
	__u64 optval;
	__u64 optval_end;
	__s32 level;
	__s32 optname;
	__s32 optlen;
	__s32 retval;
};

#define RF_COPIED 4096 /* every machine copies at least a page of the value */

static __always_inline void rf_option_record(struct task_struct *task, const struct rf_task *bound,
					     struct rf_query *query, __u32 route)
{
	struct rf_syscall_event *record =
		RF_RECORD(rf_syscall_event, RF_SETSOCKOPT, bound->slot, route);

	if (!record)
		return;
	rf_header(&record->header, RF_SETSOCKOPT, task, bound);
	rf_header_verdict(&record->header, query, task, bound);
	record->nr = RF_NO_CALL;
	__builtin_memcpy(record->operand, query->value, sizeof(record->operand));
	rf_submit(record, RF_SETSOCKOPT);
}

static __always_inline bool rf_may_set(__u32 level, __u32 option)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_query query;
	const struct rf_task *bound;
	struct rf_task fallback;
	__u32 route;

	bound = rf_cgroup_bound(task, &fallback);
	if (!bound)
		return true;
	container = rf_container_of(bound);
	if (!container)
		return !rf_is_orphan(bound);
	rf_query_init(&query, RF_SETSOCKOPT, bound, container);
	query.value[0] = level;
	query.value[1] = option;
	query.value[2] = (__u64)level << 32 | option;
	route = rf_cgroup_finish(&query, task, bound, container, NULL);
	if (route != RF_ROUTE_NONE)
		rf_option_record(task, bound, &query, route);
	return !rf_refuses(query.action);
}

SEC("cgroup/setsockopt")
int cgroup_setsockopt(struct bpf_sockopt *ctx)
{
	/*
	 * A value longer than the copy (the tables of iptables are) is left to the kernel: else it
	 * refuses the call with EFAULT (before 29ebbba7d461, 6.5).
	 */
	if (ctx->optlen > RF_COPIED)
		ctx->optlen = 0;
	return rf_may_set(ctx->level, ctx->optname) ? rf_allow() : rf_deny();
}
