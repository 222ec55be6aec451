/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A system call and the rules of its event, whoever asks: its entry (syscalls.bpf.c) or a hook that it
 * reaches (lsm.h).
 */
#ifndef RINGFENCE_CALL_H
#define RINGFENCE_CALL_H

#include "match.h"
#include "object.h"

/* operands.bpf.c: the operand that a rule tests; a global function, as it is asked for each of them. */
__u64 rf_operand(const struct rf_call *call, __u32 source, __u32 arg);

/* Operands of chroot, and where it link_flags. */
#define RF_DIM_CHROOTED 0
#define RF_DIM_NEW_ROOT 1
#define RF_ROOT_UNKNOWN 0
#define RF_ROOT_OTHER 1
#define RF_ROOT_OF_HOST 2

/* operands.bpf.c: whether the current task's root is another than that of its mount namespace. */
int rf_is_chrooted(void);

/* operands.bpf.c: the address of the task that has that number in a pid namespace; 0: none. */
__u64 rf_task_numbered(__u64 ns, __u32 nr);

/* operands.bpf.c: enum rf_relation of a process, by its number on the host, to the current task. */
__u32 rf_relation_of_process(__u32 tgid);

#define RF_AF_INET 2
#define RF_AF_INET6 10
#define RF_AF_PACKET 17
#define RF_AF_SMC 43
#define RF_SOCK_TYPE_MASK 0xf
#define RF_SOCK_PACKET 10
#define RF_IPPROTO_SMC 256

/*
 * The family that a socket gets: __sock_create() still knows how packet sockets were asked for up to 2.0, and from 6.11 on
 * SMC is a protocol of TCP's families as well (d25a92ccae6b).
 */
static __always_inline __u32 rf_socket_family(__u32 family, __u32 type, __u32 protocol)
{
	if (family == RF_AF_INET && (type & RF_SOCK_TYPE_MASK) == RF_SOCK_PACKET)
		return RF_AF_PACKET;
	if ((family == RF_AF_INET || family == RF_AF_INET6) && protocol == RF_IPPROTO_SMC)
		return RF_AF_SMC;
	return family;
}

/* The call's string. It can change after this, and be not resident: an address for rules of the weaker tiers. */
static __always_inline __u8 rf_call_text(struct rf_scratch *buffer, const struct rf_call *call, __s32 arg, __u32 event)
{
	long len;

	buffer->text.prefixlen = 32 + 8 * RF_MATCH_TEXT;
	buffer->text.event = event;
	buffer->text.dim = RF_DIM_OBJECT;
	buffer->text.text[0] = 0;
	buffer->name[0] = 0;
	buffer->len = 0;
	if (arg < 0 || arg >= RF_SYSCALL_ARGS)
		return 0;
	len = bpf_probe_read_user_str(buffer->name, RF_PATH_LEN, (void *)call->args[arg]);
	if (len <= 0)
		return RF_FLAG_UNREADABLE;
	buffer->len = len - 1;
	bpf_probe_read_kernel(buffer->text.text, RF_MATCH_TEXT, buffer->name);
	return len == RF_PATH_LEN ? RF_FLAG_TRUNCATED : 0;
}

static __always_inline void rf_call_record(struct task_struct *task, const struct rf_task *bound,
					   const struct rf_call *call, struct rf_query *query,
					   struct rf_scratch *buffer, __u32 route, __u8 flags)
{
	struct rf_syscall_event *record = RF_RECORD(rf_syscall_event, query->event, bound->slot, route);

	if (!record)
		return;
	rf_header(&record->header, query->event, task, bound);
	rf_header_verdict(&record->header, query, task, bound);
	record->header.flags = flags;
	record->nr = call->nr;
	__builtin_memcpy(record->args, call->args, sizeof(record->args));
	__builtin_memcpy(record->operand, query->value, sizeof(record->operand));
	record->text_len = buffer->len;
	if (buffer->len)
		bpf_probe_read_kernel_str(record->text, sizeof(record->text), buffer->name);
	rf_submit(record, query->event);
}

#endif
