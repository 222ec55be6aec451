// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The scratch buffers that all CPUs share. */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/bits.h"
#include "include/scratch.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_TRIES 16 /* other CPUs may take the bit that was seen free */

__noinline int rf_scratch_take(void)
{
	__u64 *busy, free;
	__u32 zero = 0, i;

	busy = bpf_map_lookup_elem(&scratch_shared_busy, &zero);
	if (!busy)
		return 0;
	for (i = 0; i < RF_TRIES; i++) {
		__u32 bit;

		free = ~*(volatile __u64 *)busy;
		if (!free)
			return 0;
		bit = rf_lowest(free);
		if (!(__sync_fetch_and_or(busy, 1ULL << bit) & (1ULL << bit)))
			return bit + 1;
	}
	return 0;
}
