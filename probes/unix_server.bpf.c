// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The server of a unix socket, whatever name, link, mount or /proc/PID/root leads to it. A client
 * can change none of what is looked at: the process that called listen(2), the cgroup that the
 * socket was made in, the mount that it was bound on. A server that none of them gives to a
 * container is the host's.
 *
 * And the tier without BPF-LSM: the programs at connect(2) know the name alone, and the server is
 * known when the call is done. The socket is remembered between the two, because a descriptor may
 * be replaced by another thread meanwhile.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/membership.h"
#include "include/namespaces.h"
#include "include/object.h"
#include "include/operands.h"
#include "include/unix_server.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* By the mount namespace that the socket was bound in; of an abstract one, by the network's. */
static __always_inline __u32 rf_relation_of_bound(const struct rf_task *bound, __u64 socket)
{
	__u64 mnt = (__u64)RF_READ(struct unix_sock, socket, path.mnt), ns;

	if (!mnt) {
		ns = (__u64)RF_READ(struct sock, socket, __sk_common.skc_net.net);
		return rf_ns_relation(bound->slot, bound->container, RF_NS_COMMON(net, ns));
	}
	ns = (__u64)RF_READ(struct mount, mnt - bpf_core_field_offset(struct mount, mnt), mnt_ns);
	if (!ns || rf_is_error(ns))
		return RF_RELATION_HOST;
	return rf_ns_relation(bound->slot, bound->container, RF_NS_COMMON(mnt_namespace, ns));
}

__noinline __u32 rf_server_relation(__u64 pid, __u64 socket, __u32 made_by_server)
{
	struct task_struct *task = bpf_get_current_task_btf(), *server;
	struct rf_armed *armed = rf_bound(task);
	__u32 relation;

	/* A socket without a name is reached by a connection that another process made. */
	if (!armed || !socket || !RF_READ(struct unix_sock, socket, addr))
		return RF_RELATION_UNKNOWN;
	server = pid ? (struct task_struct *)rf_task_of_pid(pid) : NULL;
	if (server) {
		relation = rf_relation_of_process(BPF_CORE_READ(server, tgid));
		if (relation != RF_RELATION_HOST)
			return relation;
		return rf_relation_of_slot(&armed->task, rf_slot_of(rf_cgroup_of(server)));
	}
	/* It ended and left the socket to its children. */
	if (made_by_server && config.hierarchy == RF_HIERARCHY_V2)
		return rf_relation_of_slot(
			&armed->task,
			rf_slot_of((__u64)RF_READ(struct sock, socket, sk_cgrp_data.cgroup)));
	return rf_relation_of_bound(&armed->task, socket);
}

__noinline int rf_unix_connected(__u64 sock, __u32 reported)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);
	__u64 peer = (__u64)RF_READ(struct unix_sock, sock, peer), pid;
	struct rf_container *container;
	struct rf_scratch *buffer;
	struct rf_query query;
	__u32 route;
	__u8 flags = 0;

	container = armed ? rf_container_of(&armed->task) : NULL;
	if (!container || !peer)
		return 0;
	/* The client's socket has the credentials of the process that listens. */
	pid = (__u64)RF_READ(struct sock, sock, sk_peer_pid);
	rf_query_init(&query, RF_UNIX_CONNECT, &armed->task, container);
	query.value[0] = rf_server_relation(pid, peer, !pid);
	buffer = rf_scratch_claim(&armed->scratch);
	if (!buffer) {
		rf_fail_no_text(&query, task, &armed->task, RF_MECHANISM_KILL);
		return 0;
	}
	rf_unix_bound_name(buffer, peer);
	query.text = buffer->bit + 1;
	rf_evaluate(&query, task, &armed->task, NULL);
	if (query.action == RF_ACTION_NONE || query.rule == reported) {
		rf_scratch_release(buffer);
		return 0;
	}
	route = rf_conclude(&query, container, RF_MECHANISM_KILL, &flags);
	if (route != RF_ROUTE_NONE)
		rf_unix_record(task, &armed->task, &query, buffer, route, flags);
	rf_scratch_release(buffer);
	return 0;
}

__noinline int rf_unix_call_done(void)
{
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());
	__u64 sock;

	if (!armed || !armed->connecting.sock)
		return 0;
	sock = armed->connecting.sock;
	armed->connecting.sock = 0;
	return rf_unix_connected(sock, armed->connecting.reported);
}

#define RF_MAGIC_SOCKFS 0x534f434b
#define RF_AF_UNIX 1

/* The unix socket behind the descriptor of the call; 0: it is none. */
static __always_inline __u64 rf_unix_socket_of_call(struct task_struct *task)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct rf_call call;
	__u64 file, inode, super, socket, sock;

	rf_read_call(&call, regs, false);
	file = rf_file_of_fd(call.args[0]);
	if (!file)
		return 0;
	inode = (__u64)RF_READ(struct file, file, f_inode);
	super = (__u64)RF_READ(struct inode, inode, i_sb);
	if (RF_READ(struct super_block, super, s_magic) != RF_MAGIC_SOCKFS)
		return 0;
	socket = (__u64)RF_READ(struct file, file, private_data);
	sock = (__u64)RF_READ(struct socket, socket, sk);
	return sock && RF_READ(struct sock, sock, __sk_common.skc_family) == RF_AF_UNIX ? sock : 0;
}

/*
 * Where the cgroup program has no task storage, it notes the socket by the thread's number. Without
 * a place for that it is the socket of the descriptor: another thread may have put another one
 * there meanwhile.
 */
SEC("tracepoint/syscalls/sys_exit_connect")
int connect_exit(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_connecting *noted, copy = { .reported = RF_NO_RULE };
	__u32 tid = task->pid;

	if (config.cgroup_storage)
		return rf_unix_call_done();
	noted = bpf_map_lookup_elem(&connecting, &tid);
	if (noted) {
		copy = *noted;
		bpf_map_delete_elem(&connecting, &tid);
	} else {
		copy.sock = rf_unix_socket_of_call(task);
	}
	return copy.sock ? rf_unix_connected(copy.sock, copy.reported) : 0;
}
