// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The headers of an IP packet. Global functions for what is in a loop: else the verifier follows
 * each of its branches in each round, 700,000 instructions instead of some thousand.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "include/packet.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_ETH_P_IP 0x0800
#define RF_IPPROTO_HOPOPTS 0
#define RF_IPPROTO_DCCP 33
#define RF_IPPROTO_ROUTING 43
#define RF_IPPROTO_FRAGMENT 44
#define RF_IPPROTO_AH 51
#define RF_IPPROTO_DSTOPTS 60
#define RF_IPPROTO_SCTP 132
#define RF_IPPROTO_MOBILITY 135
#define RF_IPPROTO_HIP 139
#define RF_IPPROTO_SHIM6 140

#define RF_IPV6_EXTENSIONS 8 /* headers that are followed; no sender of good will has more */
#define RF_IPV4_OPTIONS 40
#define RF_IPOPT_END 0
#define RF_IPOPT_NOOP 1
#define RF_IPOPT_LSRR 131
#define RF_IPOPT_SSRR 137

struct rf_ipv4_header {
	__u8 version_and_length;
	__u8 tos;
	__u16 length;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 source;
	__u32 destination;
};

struct rf_ipv6_header {
	__u32 version;
	__u16 length;
	__u8 next;
	__u8 hops;
	__u32 source[4];
	__u32 destination[4];
};

static __always_inline bool rf_has_ports(__u32 protocol)
{
	return protocol == RF_IPPROTO_TCP || protocol == RF_IPPROTO_UDP ||
	       protocol == RF_IPPROTO_UDPLITE || protocol == RF_IPPROTO_SCTP ||
	       protocol == RF_IPPROTO_DCCP;
}

/* Source and destination port are the first four bytes of every protocol that has them. */
static __always_inline void rf_packet_port(struct rf_packet *packet, struct __sk_buff *skb)
{
	__u16 ports[2];

	if (packet->protocol_unknown || packet->port_unknown || !rf_has_ports(packet->protocol))
		return;
	if (bpf_skb_load_bytes(skb, packet->at, ports, sizeof(ports)))
		packet->port_unknown = 1;
	else
		packet->port = bpf_ntohs(ports[1]);
}

#define RF_OPTIONS_END 0
#define RF_OPTIONS_ROUTE 0xffff

/*
 * Length of an option; RF_OPTIONS_ROUTE: one that routes by way of other hosts, the last of which
 * is the real destination, or one that hosts may read in different ways.
 */
__noinline __u32 rf_option_length(struct __sk_buff *skb, __u32 at)
{
	__u8 option[2] = {};

	if (bpf_skb_load_bytes(skb, at, option, sizeof(option)) &&
	    bpf_skb_load_bytes(skb, at, option, 1))
		return RF_OPTIONS_ROUTE;
	if (option[0] == RF_IPOPT_END)
		return RF_OPTIONS_END;
	if (option[0] == RF_IPOPT_NOOP)
		return 1;
	if (option[0] == RF_IPOPT_LSRR || option[0] == RF_IPOPT_SSRR || option[1] < 2)
		return RF_OPTIONS_ROUTE;
	return option[1];
}

static __always_inline bool rf_is_source_routed(struct __sk_buff *skb, __u32 length)
{
	__u32 i, at = sizeof(struct rf_ipv4_header), option;

	for (i = 0; i < RF_IPV4_OPTIONS; i++) {
		if (at >= length)
			return false;
		option = rf_option_length(skb, at);
		if (option == RF_OPTIONS_END)
			return false;
		if (option == RF_OPTIONS_ROUTE)
			return true;
		at += option;
	}
	return false;
}

/* Returns false if there is no such header. */
static __always_inline bool rf_read_ipv4(struct rf_packet *packet, struct __sk_buff *skb)
{
	struct rf_ipv4_header header;
	__u16 fragment;

	if (bpf_skb_load_bytes(skb, 0, &header, sizeof(header)))
		return false;
	packet->to.family = 4;
	packet->to.prefixlen = 32 + 32;
	__builtin_memcpy(packet->to.address, &header.destination, sizeof(header.destination));
	packet->protocol = header.protocol;
	packet->at = (header.version_and_length & 15) * 4;
	fragment = bpf_ntohs(header.fragment) & 0x1fff;
	/* Of a later fragment the protocol is known, and the port is in the first. */
	packet->port_unknown = fragment != 0;
	if (packet->at > sizeof(header))
		packet->address_unknown = rf_is_source_routed(skb, packet->at);
	rf_packet_port(packet, skb);
	return true;
}

/* Goes over one extension header. Returns 0 if it is none, or the end. */
__noinline int rf_skip_extension(struct __sk_buff *skb, struct rf_packet *packet)
{
	__u8 head[4]; /* next header, length, type of routing, segments left; or fragment offset */
	__u32 kind;

	if (!packet)
		return 0;
	kind = packet->protocol;
	if (kind != RF_IPPROTO_HOPOPTS && kind != RF_IPPROTO_ROUTING &&
	    kind != RF_IPPROTO_FRAGMENT && kind != RF_IPPROTO_AH && kind != RF_IPPROTO_DSTOPTS &&
	    kind != RF_IPPROTO_MOBILITY && kind != RF_IPPROTO_HIP && kind != RF_IPPROTO_SHIM6)
		return 0;
	if (bpf_skb_load_bytes(skb, packet->at, head, sizeof(head))) {
		packet->protocol_unknown = 1;
		return 0;
	}
	packet->protocol = head[0];
	if (kind == RF_IPPROTO_ROUTING && head[3])
		packet->address_unknown = 1;
	if (kind == RF_IPPROTO_FRAGMENT) {
		packet->at += 8;
		if (head[2] || head[3] & 0xf8) {
			/* a later one: what follows is data */
			packet->port_unknown = 1;
			return 0;
		}
	} else if (kind == RF_IPPROTO_AH) {
		packet->at += (head[1] + 2) * 4;
	} else {
		packet->at += (head[1] + 1) * 8;
	}
	return 1;
}

/* Rules on an IPv4 address also hold for it as ::ffff:a.b.c.d, which hosts may translate. */
static __always_inline void rf_packet_to_ipv6(struct rf_packet *packet, const __u32 word[4])
{
	if (word[0] || word[1] || word[2] != bpf_htonl(0xffff)) {
		packet->to.family = 6;
		packet->to.prefixlen = 32 + 128;
		__builtin_memcpy(packet->to.address, word, 16);
		return;
	}
	packet->to.family = 4;
	packet->to.prefixlen = 32 + 32;
	__builtin_memcpy(packet->to.address, &word[3], sizeof(word[3]));
}

static __always_inline bool rf_read_ipv6(struct rf_packet *packet, struct __sk_buff *skb)
{
	struct rf_ipv6_header header;
	__u32 i;

	if (bpf_skb_load_bytes(skb, 0, &header, sizeof(header)))
		return false;
	rf_packet_to_ipv6(packet, header.destination);
	packet->protocol = header.next;
	packet->at = sizeof(header);
	for (i = 0; i < RF_IPV6_EXTENSIONS; i++)
		if (!rf_skip_extension(skb, packet))
			break;
	if (i == RF_IPV6_EXTENSIONS)
		packet->protocol_unknown = 1;
	rf_packet_port(packet, skb);
	return true;
}

__noinline int rf_read_packet(struct __sk_buff *skb, struct rf_packet *packet)
{
	bool read;

	if (!packet)
		return 0;
	if (skb->protocol == bpf_htons(RF_ETH_P_IP))
		read = rf_read_ipv4(packet, skb);
	else
		read = rf_read_ipv6(packet, skb);
	if (!read) {
		packet->address_unknown = 1;
		packet->protocol_unknown = 1;
	}
	return 0;
}
