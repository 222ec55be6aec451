// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Packets that leave a socket. The programs at connect(2) and sendmsg(2) judge what a call asks
 * for; a raw socket carries any header, MPTCP and SCTP connect elsewhere in the kernel, and a
 * container with CAP_NET_ADMIN translates addresses in its own network namespace. Here the packet
 * is as it leaves: after netfilter's output hooks, with the socket that sent it.
 *
 * A packet to where the call said was judged by the call's program, with the caller's program and
 * facts. So only others are judged here, by the same rules, and only to refuse: alerts are of
 * calls. Of TCP, only the first packet is judged: an answer to a client is no connection to it.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "include/cgroup.h"
#include "include/packet.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_SOCK_STREAM 1
#define RF_SOCK_DGRAM 2
#define RF_SOCK_RAW 3
#define RF_TCP_ESTABLISHED 1 /* of a datagram socket: it is connected */
#define RF_TCP_SYN_SENT 2

static __always_inline __u32 rf_packet_family(const struct rf_packet *packet)
{
	return packet->to.family == 4 ? RF_AF_INET : RF_AF_INET6;
}

/*
 * The container of the task that made a socket, where the socket's own cgroup does not show it: on
 * hosts that know containers by a v1 hierarchy, and for tasks that left their cgroup.
 */
struct rf_socket_owner {
	__u64 container;
	__u32 slot;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct rf_socket_owner);
} socket_owners SEC(".maps");

/* The container that a socket's cgroup belongs to; its slot, or RF_NO_SLOT. */
static __always_inline __u32 rf_slot_of_socket(__u64 sock)
{
	if (config.hierarchy != RF_HIERARCHY_V2)
		return RF_NO_SLOT;
	return rf_slot_of((__u64)RF_READ(struct sock, sock, sk_cgrp_data.cgroup));
}

/*
 * Without a note of its owner a socket would be under no rule: then there is no socket. A socket of
 * the kernel itself does not come here.
 */
SEC("cgroup/sock_create")
int cgroup_sock_create(struct bpf_sock *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_socket_owner *owner;
	const struct rf_task *bound;
	struct rf_task fallback;

	bound = rf_cgroup_bound(task, &fallback);
	if (!bound)
		return rf_allow();
	if (config.hierarchy == RF_HIERARCHY_V2 && rf_slot_of(rf_cgroup_of(task)) == bound->slot)
		return rf_allow();
	owner = bpf_sk_storage_get(&socket_owners, ctx, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!owner)
		return rf_deny();
	owner->container = bound->container;
	owner->slot = bound->slot;
	return rf_allow();
}

/* Operands that are not known may have any value, and then no exception holds. */
static __always_inline void rf_packet_operands(struct rf_query *query,
					       const struct rf_packet *packet)
{
	query->value[0] = packet->port;
	query->value[1] = rf_packet_family(packet);
	query->value[2] = packet->protocol;
	query->value[3] = packet->type;
	query->known |= RF_KNOWN_OPERANDS | RF_KNOWN_OBJECT;
	if (packet->protocol_unknown)
		query->known &= ~(RF_KNOWN(0) | RF_KNOWN(2));
	if (packet->port_unknown)
		query->known &= ~RF_KNOWN(0);
	if (packet->address_unknown)
		query->known &= ~RF_KNOWN_OBJECT;
	query->worst_case =
		packet->protocol_unknown | packet->port_unknown | packet->address_unknown;
}

/* A timer or a kernel thread sends for a socket: the task that it interrupts is not named. */
static __always_inline void rf_header_nobody(struct rf_header *header)
{
	header->start_ns = 0;
	header->pid = header->tid = header->ppid = header->vpid = 0;
	header->uid = header->gid = 0;
	__builtin_memset(header->comm, 0, sizeof(header->comm));
}

static __always_inline void rf_packet_record(struct task_struct *task, const struct rf_task *bound,
					     const struct rf_packet *packet, struct rf_query *query,
					     bool known, __u32 route)
{
	struct rf_net_event *record = RF_RECORD(rf_net_event, query->event, query->slot, route);

	if (!record)
		return;
	rf_header(&record->header, query->event, task, bound);
	if (!known)
		rf_header_nobody(&record->header);
	rf_header_verdict(&record->header, query, task, bound);
	record->family = rf_packet_family(packet);
	record->port = packet->port;
	record->protocol = packet->protocol;
	record->type = packet->type;
	__builtin_memcpy(record->address, packet->to.address, sizeof(record->address));
	rf_submit(record, query->event);
}

/*
 * The facts of a packet that no known task sends: those of the container's first task, and whether
 * the socket is in the host's network.
 */
static __always_inline __u32 rf_facts_of_socket(__u64 sock, const struct rf_container *container)
{
	__u32 net = RF_READ(struct sock, sock, __sk_common.skc_net.net, ns.inum);

	if (net == config.host_net_ns)
		return container->facts | RF_FACT_HOST_NETWORK;
	return container->facts & ~RF_FACT_HOST_NETWORK;
}

/*
 * Judges one packet by the rules of packet->to.event. Returns true if it may leave. `sender`: the
 * binding of the task that sends it; without a program, if that is not known.
 */
__noinline int rf_packet_may_leave(const struct rf_packet *packet, __u64 sock,
				   const struct rf_task *sender, __u32 known)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_query query;
	__u32 route, slot;

	if (!packet || !sender)
		return 0;
	slot = sender->slot;
	container = bpf_map_lookup_elem(&slots, &slot);
	if (!container)
		return 1;
	rf_query_init(&query, packet->to.event, sender, container);
	if (!known) {
		query.value[RF_DIM_FACTS] = rf_facts_of_socket(sock, container);
		query.known |= RF_KNOWN_FACTS;
	}
	rf_query_facts(&query, task, sender);
	rf_packet_operands(&query, packet);
	rf_match_at_cgroup(&query, &packet->to);
	if (!rf_refuses(query.action))
		return 1;
	/* Nothing is killed for a packet, as its sender is not certain. */
	query.action = RF_ACTION_DENY;
	query.mechanism = RF_MECHANISM_CGROUP;
	rf_count_verdict(&query);
	route = rf_route_verdict(&query, container);
	if (route != RF_ROUTE_NONE)
		rf_packet_record(task, sender, packet, &query, known, route);
	return 0;
}

/* MPTCP connects its subflows inside the kernel, where no program judges the address. */
static __always_inline bool rf_is_mptcp(__u64 sock)
{
	if (!bpf_core_field_exists(struct tcp_sock, is_mptcp))
		return false;
	return RF_READ(struct tcp_sock, sock, is_mptcp);
}

/* A socket of the kernel's own, like the one that answers for a closed port (tcp_v4_send_reset). */
static __always_inline bool rf_is_kernel_socket(__u64 sock)
{
	const struct sock *sk = (const struct sock *)sock;

	return BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock);
}

/* Returns true if a packet goes where connect(2) was judged for. */
static __always_inline bool rf_goes_where_connected(const struct rf_packet *packet,
						    const struct bpf_sock *sk)
{
	const __u64 *to = (const __u64 *)packet->to.address;
	__u64 first, second = 0;

	if (packet->address_unknown || packet->port_unknown || packet->protocol_unknown ||
	    packet->port != bpf_ntohs(sk->dst_port) || packet->protocol != sk->protocol)
		return false;
	if (packet->to.family == 4) {
		first = sk->dst_ip4;
	} else {
		first = sk->dst_ip6[0];
		first |= (__u64)sk->dst_ip6[1] << 32;
		second = sk->dst_ip6[2];
		second |= (__u64)sk->dst_ip6[3] << 32;
	}
	return to[0] == first && to[1] == second;
}

/*
 * Whose socket it is: its maker's, or its cgroup's; for sockets that send in the caller's context,
 * the caller's (it was passed from outside, or made before the agent started). Packets are also
 * sent by timers and kernel threads, in the name of whichever task they interrupt. So the current
 * task is taken for the sender only if it is of the same container. Returns the slot; `sender` is
 * filled in with it, and `known` set if it is the current task.
 */
static __always_inline __u32 rf_packet_sender(struct bpf_sock *sk, __u64 sock, bool by_caller,
					      struct rf_task *sender, __u32 *known)
{
	struct rf_socket_owner *owner = bpf_sk_storage_get(&socket_owners, sk, NULL, 0);
	struct rf_container *container = NULL;
	const struct rf_task *caller;
	__u32 slot = RF_NO_SLOT;

	if (owner) {
		slot = owner->slot;
		container = bpf_map_lookup_elem(&slots, &slot);
		if (container && container->cgroup != owner->container)
			container = NULL;
	}
	if (!container) {
		slot = rf_slot_of_socket(sock);
		container = bpf_map_lookup_elem(&slots, &slot);
	}
	caller = rf_cgroup_bound(bpf_get_current_task_btf(), sender);
	if (!container) {
		if (!by_caller || !caller)
			return RF_NO_SLOT;
		slot = caller->slot;
		container = rf_container_of(caller);
		if (!container)
			return RF_NO_SLOT;
	}
	*known = caller && caller->slot == slot && caller->container == container->cgroup;
	if (*known) {
		*sender = *caller;
		return slot;
	}
	__builtin_memset(sender, 0, sizeof(*sender));
	sender->container = container->cgroup;
	sender->slot = slot;
	return slot;
}

SEC("cgroup/egress")
int cgroup_egress(struct __sk_buff *skb)
{
	bool by_call, in_call, connected, connects, sends;
	struct rf_packet packet = {};
	struct bpf_sock *sk = skb->sk;
	struct rf_task sender;
	__u32 type, known = 0;
	__u64 sock;

	if (!sk)
		return rf_allow();
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return rf_allow();
	type = packet.type = sk->type;
	packet.to.dim = RF_DIM_OBJECT;
	connected = sk->state == RF_TCP_ESTABLISHED;
	if (type == RF_SOCK_STREAM && sk->protocol == RF_IPPROTO_TCP) {
		if (sk->state != RF_TCP_SYN_SENT)
			return rf_allow();
		connected = true;
	}
	rf_read_packet(skb, &packet);
	sock = rf_address(sk);
	by_call = type != RF_SOCK_RAW &&
		  (sk->protocol == RF_IPPROTO_TCP || sk->protocol == RF_IPPROTO_UDP ||
		   sk->protocol == RF_IPPROTO_UDPLITE);
	if (by_call && connected && rf_goes_where_connected(&packet, sk) &&
	    !(type == RF_SOCK_STREAM && rf_is_mptcp(sock)))
		return rf_allow();
	connects = (!by_call || connected) && rf_event_has_rules(RF_NET_CONNECT);
	sends = (!by_call || type == RF_SOCK_DGRAM) && rf_event_has_rules(RF_NET_SENDMSG);
	if (!connects && !sends)
		return rf_allow();
	in_call = type != RF_SOCK_STREAM && !rf_is_kernel_socket(sock);
	if (!rf_is_slot(rf_packet_sender(sk, sock, in_call, &sender, &known)))
		return rf_allow();
	packet.to.event = RF_NET_CONNECT;
	if (connects && !rf_packet_may_leave(&packet, sock, &sender, known))
		return rf_deny();
	packet.to.event = RF_NET_SENDMSG;
	if (sends && !rf_packet_may_leave(&packet, sock, &sender, known))
		return rf_deny();
	return rf_allow();
}
