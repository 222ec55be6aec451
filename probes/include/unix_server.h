/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The server of a unix socket. */
#ifndef RINGFENCE_UNIX_SERVER_H
#define RINGFENCE_UNIX_SERVER_H

#include "unix.h"

/*
 * Enum rf_relation of the server of a unix socket to the current task. `pid`: the struct pid of the
 * process that called listen(2), 0 for datagrams; `socket`: a socket with the server's address, of
 * which the cgroup counts if `made_by_server`.
 */
__u32 rf_server_relation(__u64 pid, __u64 socket, __u32 made_by_server);

/* Judges the connection that the current call has made, if it is one to a unix socket. */
int rf_unix_call_done(void);

/* Judges a connection that a socket has. `reported`: the rule that was reported as it began. */
int rf_unix_connected(__u64 sock, __u32 reported);

/* The name that a socket is bound to becomes the key. */
static __always_inline void rf_unix_bound_name(struct rf_scratch *buffer, __u64 socket)
{
	__u64 address = (__u64)RF_READ(struct unix_sock, socket, addr);
	__u32 len = address ? RF_READ(struct unix_address, address, len) : 0;

	rf_unix_text(buffer, address + bpf_core_field_offset(struct unix_address, name), len);
}

#endif
