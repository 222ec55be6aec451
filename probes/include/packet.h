/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The headers of an IP packet, as far as rules test them: for cgroup_packet.bpf.c. */
#ifndef RINGFENCE_PACKET_H
#define RINGFENCE_PACKET_H

#include "vmlinux.h"
#include "rules.h"

#define RF_AF_INET 2
#define RF_AF_INET6 10
#define RF_IPPROTO_TCP 6
#define RF_IPPROTO_UDP 17
#define RF_IPPROTO_UDPLITE 136

/* What a packet's headers say. Whatever is not known may be anything: see rf_packet_operands. */
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

/* Reads the headers of a packet. What cannot be read is not known. */
int rf_read_packet(struct __sk_buff *skb, struct rf_packet *packet);

#endif
