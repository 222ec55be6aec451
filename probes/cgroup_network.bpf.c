// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Sockets that are about to connect, bind or send: the address as the kernel copied it, so that
 * another thread cannot change it any more. io_uring passes here, too.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "include/cgroup.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_AF_INET 2
#define RF_AF_INET6 10

struct rf_endpoint {
	__u32 event;
	__u32 counter;
	__u16 family;
	__u16 port;
	__u8 protocol;
	__u8 type;
	__u16 pad;
	/*
	 * 16 bytes in network byte order, as two aligned words. clang 14 loses every store before
	 * one of 64 bits that is only aligned to 32, which it generates for four words copied at
	 * once.
	 */
	__u64 address[2];
};

static __always_inline void rf_net_record(struct task_struct *task, const struct rf_task *bound,
					  const struct rf_endpoint *to, struct rf_query *query,
					  __u32 route)
{
	struct rf_net_event *record = RF_RECORD(rf_net_event, to->event, bound->slot, route);

	if (!record)
		return;
	rf_header(&record->header, to->event, task, bound);
	rf_header_verdict(&record->header, query, task, bound);
	record->family = to->family;
	record->port = to->port;
	record->protocol = to->protocol;
	record->type = to->type;
	__builtin_memcpy(record->address, to->address, sizeof(record->address));
	rf_submit(record, to->event);
}

/* Returns true if the call may go on. */
static __always_inline bool rf_may_reach(const struct rf_endpoint *to)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_address_key key __attribute__((aligned(8))) = {};
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
	rf_count(bound->slot, to->counter);
	rf_query_init(&query, to->event, bound, container);
	query.value[0] = to->port;
	query.value[1] = to->family;
	query.value[2] = to->protocol;
	query.value[3] = to->type;
	key.event = to->event;
	key.dim = RF_DIM_OBJECT;
	key.family = to->family == RF_AF_INET ? 4 : 6;
	key.prefixlen = 32 + (to->family == RF_AF_INET ? 32 : 128);
	__builtin_memcpy(key.address, to->address, sizeof(key.address));
	route = rf_cgroup_finish(&query, task, bound, container, &key);
	if (route != RF_ROUTE_NONE)
		rf_net_record(task, bound, to, &query, route);
	return !rf_refuses(query.action);
}

static __always_inline void rf_endpoint4(struct rf_endpoint *to, struct bpf_sock_addr *ctx)
{
	to->family = RF_AF_INET;
	to->port = bpf_ntohs((__u16)ctx->user_port);
	to->protocol = ctx->protocol;
	to->type = ctx->type;
	to->address[0] = ctx->user_ip4;
	to->address[1] = 0;
}

/* An IPv4-mapped IPv6 address (::ffff:1.2.3.4) is looked up as IPv4. */
static __always_inline void rf_endpoint6(struct rf_endpoint *to, struct bpf_sock_addr *ctx)
{
	to->family = RF_AF_INET6;
	to->port = bpf_ntohs((__u16)ctx->user_port);
	to->protocol = ctx->protocol;
	to->type = ctx->type;
	to->address[0] = ctx->user_ip6[0];
	to->address[0] |= (__u64)ctx->user_ip6[1] << 32;
	to->address[1] = ctx->user_ip6[2];
	to->address[1] |= (__u64)ctx->user_ip6[3] << 32;
	if (to->address[0] || (__u32)to->address[1] != bpf_htonl(0xffff))
		return;
	to->family = RF_AF_INET;
	to->address[0] = to->address[1] >> 32;
	to->address[1] = 0;
}

#define RF_ENDPOINT_PROGRAM(name, section, kind, count, fill)                \
	SEC(section)                                                         \
	int name(struct bpf_sock_addr *ctx)                                  \
	{                                                                    \
		struct rf_endpoint to = { .event = kind, .counter = count }; \
                                                                             \
		fill(&to, ctx);                                              \
		return rf_may_reach(&to) ? rf_allow() : rf_deny();           \
	}

RF_ENDPOINT_PROGRAM(cgroup_connect4, "cgroup/connect4", RF_NET_CONNECT, RF_COUNT_CONNECT,
		    rf_endpoint4)
RF_ENDPOINT_PROGRAM(cgroup_connect6, "cgroup/connect6", RF_NET_CONNECT, RF_COUNT_CONNECT,
		    rf_endpoint6)
RF_ENDPOINT_PROGRAM(cgroup_sendmsg4, "cgroup/sendmsg4", RF_NET_SENDMSG, RF_COUNT_SENDMSG,
		    rf_endpoint4)
RF_ENDPOINT_PROGRAM(cgroup_sendmsg6, "cgroup/sendmsg6", RF_NET_SENDMSG, RF_COUNT_SENDMSG,
		    rf_endpoint6)
RF_ENDPOINT_PROGRAM(cgroup_bind4, "cgroup/bind4", RF_NET_BIND, RF_COUNT_BIND, rf_endpoint4)
RF_ENDPOINT_PROGRAM(cgroup_bind6, "cgroup/bind6", RF_NET_BIND, RF_COUNT_BIND, rf_endpoint6)
