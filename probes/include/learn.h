/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What learn.bpf.c counts: system calls and capabilities of a container's programs, by name. */
#ifndef RINGFENCE_LEARN_H
#define RINGFENCE_LEARN_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

/* rf_learned_key.kind */
enum rf_learned {
	RF_LEARNED_CALL = 1,
	RF_LEARNED_CALL_REFUSED = 2, /* ended with EPERM, EACCES or ENOSYS */
	RF_LEARNED_CAP = 3,
	RF_LEARNED_CAP_REFUSED = 4,
};

struct rf_learned_key {
	__u32 slot;
	__u16 number;
	__u8 kind; /* RF_LEARNED_* */
	__u8 compat;
	char comm[16];
};

struct map_learned {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* (agent) */
	__type(key, struct rf_learned_key);
	__type(value, __u64);
};
extern struct map_learned learned SEC(".maps");

#endif
