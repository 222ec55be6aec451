/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Bit scans without branches.
 */
#ifndef RINGFENCE_BITS_H
#define RINGFENCE_BITS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

/*
 * The number of the lowest set bit of a word that is not 0. BPF has no such instruction, and each
 * branch here would double what the verifier follows in the loops of match.bpf.c. A de Bruijn
 * sequence needs no branch.
 */
static const __u8 rf_bit_numbers[64] = {
	0,  1,	48, 2,	57, 49, 28, 3,	61, 58, 50, 42, 38, 29, 17, 4,	62, 55, 59, 36, 53, 51,
	43, 22, 45, 39, 33, 30, 24, 18, 12, 5,	63, 47, 56, 27, 60, 41, 37, 16, 54, 35, 52, 21,
	44, 32, 23, 11, 46, 26, 40, 15, 34, 20, 31, 10, 25, 14, 19, 9,	13, 8,	7,  6,
};

static __always_inline __u32 rf_lowest(__u64 word)
{
	__u32 bit = rf_bit_numbers[((word & -word) * 0x03f79d71b4cb0a89ULL) >> 58];

	barrier_var(
		bit); /* newer clangs know the table and drop the mask that the verifier needs */
	return bit & 63;
}

#endif
