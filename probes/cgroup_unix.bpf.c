// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Unix sockets that are about to be connected or sent to, by the name given (6.7: 859051dd165e).
 * The name is the caller's, and a symbolic link may lead elsewhere; the LSM tier decides on the
 * socket itself, and here unix_server.bpf.c judges the connection when it is made. libbpf knows
 * these sections from 1.3 on: the loader sets program type 18 and attach types 49 and 50 by hand,
 * and leaves the programs out if the kernel has no such types.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "include/cgroup.h"
#include "include/tasks.h"
#include "include/unix.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A kernel function of 6.2. Weak: the rest of the object loads without it. */
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;

/* For the exit of the call (unix_server.bpf.c). */
static __always_inline void rf_note_connecting(struct task_struct *task, __u64 sock, __u32 reported)
{
	struct rf_connecting note = { .sock = sock, .reported = reported };
	struct rf_armed *armed;
	__u32 tid = task->pid;

	if (!config.cgroup_storage) {
		bpf_map_update_elem(&connecting, &tid, &note, BPF_ANY);
		return;
	}
	armed = rf_bound(task);
	if (armed)
		armed->connecting = note;
}

/*
 * The name becomes the key. It is zeroed first, as abstract names end by their length and not by a
 * NUL.
 */
static __always_inline bool rf_may_connect_unix(struct bpf_sock_addr *ctx, const bool connects)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 kern, sock;
	struct rf_container *container;
	struct rf_query query;
	struct rf_scratch *buffer;
	const struct rf_task *bound;
	struct rf_task fallback;
	__u32 route;

	bound = rf_cgroup_bound(task, &fallback);
	if (!bound)
		return true;
	container = rf_container_of(bound);
	if (!container)
		return !rf_is_orphan(bound);
	rf_count(bound->slot, RF_COUNT_CONNECT);
	rf_query_init(&query, RF_UNIX_CONNECT, bound, container);
	kern = (__u64)bpf_cast_to_kern_ctx(ctx);
	sock = (__u64)RF_READ(struct bpf_sock_addr_kern, kern, sk);
	if (connects)
		rf_note_connecting(task, sock, RF_NO_RULE);
	buffer = rf_cgroup_buffer(task);
	if (!buffer)
		return !rf_fail_no_text(&query, task, bound, RF_MECHANISM_CGROUP);
	rf_unix_text(buffer, (__u64)RF_READ(struct bpf_sock_addr_kern, kern, uaddr),
		     RF_READ(struct bpf_sock_addr_kern, kern, uaddrlen));
	query.text = buffer->bit + 1;
	route = rf_cgroup_finish(&query, task, bound, container, NULL);
	if (route != RF_ROUTE_NONE)
		rf_unix_record(task, bound, &query, buffer, route, 0);
	rf_scratch_put(buffer);
	if (connects && query.rule != RF_NO_RULE)
		rf_note_connecting(task, sock, query.rule);
	return !rf_refuses(query.action);
}

SEC("cgroup/connect_unix")
int cgroup_connect_unix(struct bpf_sock_addr *ctx)
{
	return rf_may_connect_unix(ctx, true) ? rf_allow() : rf_deny();
}

SEC("cgroup/sendmsg_unix")
int cgroup_sendmsg_unix(struct bpf_sock_addr *ctx)
{
	return rf_may_connect_unix(ctx, false) ? rf_allow() : rf_deny();
}
