/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The headers of an IP packet, as far as rules test them: for cgroup_packet.bpf.c. */
#ifndef RINGFENCE_PACKET_H
#define RINGFENCE_PACKET_H

#include "vmlinux.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "compat.h"
#include "rules.h"

#define RF_AF_INET 2
#define RF_AF_INET6 10
#define RF_ETH_P_IP 0x0800
#define RF_ETH_P_IPV6 0x86dd

#define RF_IPPROTO_HOPOPTS 0
#define RF_IPPROTO_TCP 6
#define RF_IPPROTO_UDP 17
#define RF_IPPROTO_DCCP 33
#define RF_IPPROTO_ROUTING 43
#define RF_IPPROTO_FRAGMENT 44
#define RF_IPPROTO_AH 51
#define RF_IPPROTO_DSTOPTS 60
#define RF_IPPROTO_SCTP 132
#define RF_IPPROTO_MOBILITY 135
#define RF_IPPROTO_UDPLITE 136
#define RF_IPPROTO_HIP 139
#define RF_IPPROTO_SHIM6 140

#define RF_IPV6_EXTENSIONS 8 /* headers that are followed; no sender of good will has more */
#define RF_IPV4_OPTIONS 40
#define RF_IPOPT_END 0
#define RF_IPOPT_NOOP 1
#define RF_IPOPT_LSRR 131
#define RF_IPOPT_SSRR 137

/* What a packet's headers say. Whatever is not known may be anything: see rf_packet_evaluate. */
struct rf_packet {
	struct rf_address_key to __attribute__((aligned(8)));
	__u32 at;   /* offset of the next header */
	__u16 port; /* host byte order; 0: the protocol has none */
	__u8 protocol;
	__u8 type; /* SOCK_* of the socket */
	/* source routing: the destination is another one than the header's */
	__u8 address_unknown;
	__u8 protocol_unknown; /* and then the port, too */
	__u8 port_unknown;
	__u8 pad;
};

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

/* Options that route by way of other hosts: the last of them is the real destination. */
static __always_inline bool rf_is_source_routed(struct __sk_buff *skb, __u32 length)
{
	__u32 i, at = sizeof(struct rf_ipv4_header);
	__u8 option[2];

	for (i = 0; i < RF_IPV4_OPTIONS; i++) {
		if (at >= length)
			return false;
		option[1] = 0;
		if (bpf_skb_load_bytes(skb, at, option, sizeof(option)) &&
		    bpf_skb_load_bytes(skb, at, option, 1))
			return true;
		if (option[0] == RF_IPOPT_END)
			return false;
		if (option[0] == RF_IPOPT_LSRR || option[0] == RF_IPOPT_SSRR)
			return true;
		if (option[0] == RF_IPOPT_NOOP)
			at += 1;
		else if (option[1] < 2)
			return true; /* malformed: nobody knows how the next host reads it */
		else
			at += option[1];
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

/* Goes over one extension header. Returns false if it is none, or the end. */
static __always_inline bool rf_skip_extension(struct rf_packet *packet, struct __sk_buff *skb)
{
	__u8 head[4]; /* next header, length, type of routing, segments left; or fragment offset */
	__u32 kind = packet->protocol;

	if (kind != RF_IPPROTO_HOPOPTS && kind != RF_IPPROTO_ROUTING &&
	    kind != RF_IPPROTO_FRAGMENT && kind != RF_IPPROTO_AH && kind != RF_IPPROTO_DSTOPTS &&
	    kind != RF_IPPROTO_MOBILITY && kind != RF_IPPROTO_HIP && kind != RF_IPPROTO_SHIM6)
		return false;
	if (bpf_skb_load_bytes(skb, packet->at, head, sizeof(head))) {
		packet->protocol_unknown = 1;
		return false;
	}
	packet->protocol = head[0];
	if (kind == RF_IPPROTO_ROUTING && head[3])
		packet->address_unknown = 1;
	if (kind == RF_IPPROTO_FRAGMENT) {
		packet->at += 8;
		if (head[2] || head[3] & 0xf8) {
			/* a later one: what follows is data */
			packet->port_unknown = 1;
			return false;
		}
	} else if (kind == RF_IPPROTO_AH) {
		packet->at += (head[1] + 2) * 4;
	} else {
		packet->at += (head[1] + 1) * 8;
	}
	return true;
}

static __always_inline bool rf_read_ipv6(struct rf_packet *packet, struct __sk_buff *skb)
{
	struct rf_ipv6_header header;
	__u32 i;

	if (bpf_skb_load_bytes(skb, 0, &header, sizeof(header)))
		return false;
	packet->to.family = 6;
	packet->to.prefixlen = 32 + 128;
	__builtin_memcpy(packet->to.address, header.destination, sizeof(header.destination));
	packet->protocol = header.next;
	packet->at = sizeof(header);
	for (i = 0; i < RF_IPV6_EXTENSIONS; i++)
		if (!rf_skip_extension(packet, skb))
			break;
	if (i == RF_IPV6_EXTENSIONS)
		packet->protocol_unknown = 1;
	rf_packet_port(packet, skb);
	return true;
}

/* With a stack frame of its own. Without a whole header, nothing is known. */
rf_subprogram void rf_read_packet(struct rf_packet *packet, struct __sk_buff *skb)
{
	bool read;

	if (skb->protocol == bpf_htons(RF_ETH_P_IP))
		read = rf_read_ipv4(packet, skb);
	else
		read = rf_read_ipv6(packet, skb);
	if (read)
		return;
	packet->address_unknown = 1;
	packet->protocol_unknown = 1;
}

#endif
