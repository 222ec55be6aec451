/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Names of unix sockets as rules test them, and the record of a connection. */
#ifndef RINGFENCE_UNIX_H
#define RINGFENCE_UNIX_H

#include "match.h"
#include "scratch.h"

#define RF_SUN_PATH 2 /* offset of sun_path */
#define RF_SUN_PATH_LEN 108

/*
 * Copies the name from a struct sockaddr_un in kernel memory, `len` bytes as a whole. Abstract
 * names begin with NUL.
 */
static __always_inline void rf_unix_text(struct rf_scratch *buffer, __u64 address, __u32 len)
{
	__builtin_memset(&buffer->text, 0, sizeof(buffer->text));
	buffer->text.prefixlen = 32 + 8 * RF_MATCH_TEXT;
	buffer->text.event = RF_UNIX_CONNECT;
	buffer->text.dim = RF_DIM_OBJECT;
	buffer->len = 0;
	if (len <= RF_SUN_PATH)
		return; /* unnamed */
	len -= RF_SUN_PATH;
	if (len > RF_SUN_PATH_LEN)
		len = RF_SUN_PATH_LEN;
	barrier_var(len);
	len &= RF_MATCH_TEXT - 1;
	bpf_probe_read_kernel(buffer->text.text, len, (void *)(address + RF_SUN_PATH));
	buffer->len = len;
}

static __always_inline void rf_unix_record(struct task_struct *task, const struct rf_task *bound,
					   struct rf_query *query, struct rf_scratch *buffer,
					   __u32 route, __u8 flags)
{
	struct rf_unix_event *record =
		RF_RECORD(rf_unix_event, RF_UNIX_CONNECT, bound->slot, route);

	if (!record)
		return;
	rf_header(&record->header, RF_UNIX_CONNECT, task, bound);
	rf_header_verdict(&record->header, query, task, bound);
	record->header.flags = flags;
	record->path_len = buffer->len;
	bpf_probe_read_kernel(record->path, sizeof(record->path), buffer->text.text);
	rf_submit(record, RF_UNIX_CONNECT);
}

#endif
