// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Sockets. socket_create fires before the family is looked up, so families that are not built in
 * are seen, too, and by any call: socket, socketpair, socketcall, a ring. Unix sockets are
 * identified by the socket that a connection reaches, whatever link, mount or relative path led to
 * it: by the name that its server bound, and by the container of that server.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm.h"
#include "include/unix_server.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("lsm/socket_create")
int RF_HOOK(lsm_socket_create, int family, int type, int protocol, int kern, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (kern || !rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_SOCKET);
	rf_lsm_operand(&lsm, 0, rf_socket_family(family, type, protocol));
	rf_lsm_operand(&lsm, 1, (__u32)type);
	rf_lsm_operand(&lsm, 2, (__u32)protocol);
	return rf_lsm_decide_once(&lsm); /* socketpair fires twice */
}

/* By call, 32-bit socketcall or ring. */
SEC("lsm/socket_setsockopt")
int RF_HOOK(lsm_socket_setsockopt, struct socket *sock, int level, int option, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SETSOCKOPT);
	rf_lsm_operand(&lsm, 0, (__u32)level);
	rf_lsm_operand(&lsm, 1, (__u32)option);
	rf_lsm_operand(&lsm, 2, (__u64)(__u32)level << 32 | (__u32)option);
	return rf_lsm_decide(&lsm, 0);
}

__noinline int rf_unix_decide(__u64 other)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_query query;
	struct rf_scratch *buffer;
	struct rf_armed *armed;
	__u32 route;
	__u8 flags = 0;

	armed = rf_bound(task);
	if (!armed)
		return RF_ACTION_NONE;
	container = rf_container_of_current(&armed->task);
	if (!container)
		return RF_ACTION_NONE;
	rf_count_call(armed->task.slot, RF_COUNT_CONNECT);
	rf_query_init(&query, RF_UNIX_CONNECT, &armed->task, container);
	query.value[0] =
		rf_server_relation((__u64)RF_READ(struct sock, other, sk_peer_pid), other, true);
	buffer = rf_scratch_claim(&armed->scratch);
	if (!buffer) {
		rf_fail_no_text(&query, task, &armed->task, RF_MECHANISM_LSM);
		return query.action;
	}
	rf_unix_bound_name(buffer, other);
	query.text = buffer->bit + 1;
	rf_evaluate(&query, task, &armed->task, NULL);
	route = rf_conclude(&query, container, RF_MECHANISM_LSM, &flags);
	if (route != RF_ROUTE_NONE)
		rf_unix_record(task, &armed->task, &query, buffer, route, flags);
	rf_scratch_release(buffer);
	return query.action;
}

SEC("lsm/unix_stream_connect")
int RF_HOOK(lsm_unix_stream_connect, struct sock *sock, struct sock *other, struct sock *newsk,
	    int ret)
{
	if (ret)
		return ret;
	return rf_lsm_verdict(rf_unix_decide(rf_address(other)));
}

/* Datagrams: fires at connect, and for each one that is sent to a name. */
SEC("lsm/unix_may_send")
int RF_HOOK(lsm_unix_may_send, struct socket *sock, struct socket *other, int ret)
{
	__u64 to = rf_address(other);

	if (ret)
		return ret;
	return rf_lsm_verdict(rf_unix_decide((__u64)RF_READ(struct socket, to, sk)));
}
