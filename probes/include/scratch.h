/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Memory for what does not fit a stack of 512 bytes. A program may be preempted by another one on
 * its CPU (cgroup programs always could be; tracing programs can be in newer kernels), so one
 * buffer per CPU is not safe, and a container must not be able to use up the buffers of others.
 *
 * So a bound task has a buffer of its own (rf_armed.scratch), which only programs that run for that
 * task use. No allocation can fail, and no other task can take it. A program that interrupts
 * another one of the same task finds it taken: then it has no buffer.
 *
 * Tasks that are not bound use pools: a task of the host (kernel.helper, host.map), the first exec
 * of a container, and cgroup programs before 6.2, which have no task storage. Each CPU has a few
 * buffers, taken and returned by an atomic bit; if all are taken, one that all CPUs share is used.
 * Cgroup programs use the shared ones only.
 *
 * Without a buffer texts cannot be read. Then the worst is assumed: the call is refused, or its
 * task is killed, if a refusing rule could match (rf_fail_no_scratch in match.h).
 */
#ifndef RINGFENCE_SCRATCH_H
#define RINGFENCE_SCRATCH_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "rules.h"

#define RF_SCRATCH_SLOTS 4
#define RF_SCRATCH_SHARED 64
/* the number of a task's own buffer, after those of the pools */
#define RF_SCRATCH_OWN (RF_SCRATCH_SLOTS + RF_SCRATCH_SHARED)
#define RF_WALK_LEN 512
#define RF_NAME_MAX 256 /* NAME_MAX + 1 */

struct rf_scratch {
	struct rf_text_key text;
	char name[RF_NAME_MAX];
	union {
		/*
		 * A path is built here from its end, and its head is kept (path.bpf.c). A name may
		 * be written at any offset below RF_WALK_LEN.
		 */
		char walk[RF_WALK_LEN + RF_NAME_MAX];
		struct { /* hashes of the end of a path: see self.bpf.c */
			__u64 ends[8];
			__u64 above[8]; /* of the directory of the path */
		};
	};
	__u32 start;   /* where the path begins in walk */
	__u32 len;     /* without the NUL */
	__u32 dropped; /* characters at the end of the path that are not in walk any more */
	__u32 truncated;
	__u32 bit;
	__u32 taken;	  /* a task's own buffer is in use */
	__u32 link_flags; /* of a link, and dots: see lsm_path.bpf.c */
	__u32 dots;
	__u64 hash;  /* of the program's path */
	__u64 at[2]; /* dentry and mount that a walk has reached */
};

struct map_scratch {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RF_SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct rf_scratch);
};
extern struct map_scratch scratch SEC(".maps");

struct map_scratch_busy {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct map_scratch_busy scratch_busy SEC(".maps");

/* Numbered after those of a CPU: bit RF_SCRATCH_SLOTS is the first. */
struct map_scratch_shared {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_SCRATCH_SHARED);
	__type(key, __u32);
	__type(value, struct rf_scratch);
};
extern struct map_scratch_shared scratch_shared SEC(".maps");

struct map_scratch_shared_busy {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct map_scratch_shared_busy scratch_shared_busy SEC(".maps");

/* Takes one of the shared buffers. Returns 1 + its number; 0: none is free. */
int rf_scratch_take(void);

/* A buffer of the pools, by its number. */
static __always_inline struct rf_scratch *rf_scratch_numbered(__u32 bit)
{
	__u32 shared = bit - RF_SCRATCH_SLOTS;

	if (bit < RF_SCRATCH_SLOTS)
		return bpf_map_lookup_elem(&scratch, &bit);
	return bpf_map_lookup_elem(&scratch_shared, &shared);
}

/* Takes one of the shared buffers. NULL: none is free. */
static __always_inline struct rf_scratch *rf_scratch_get_shared(void)
{
	__u32 taken = rf_scratch_take(), bit;
	struct rf_scratch *buffer;

	if (!taken)
		return NULL;
	bit = taken + RF_SCRATCH_SLOTS - 1;
	buffer = rf_scratch_numbered(bit);
	if (buffer)
		buffer->bit = bit;
	return buffer;
}

/*
 * Takes a buffer of the pools, of this CPU if one is free. NULL: more programs are preempted than
 * there are buffers.
 */
static __always_inline struct rf_scratch *rf_scratch_get(void)
{
	struct rf_scratch *buffer;
	__u64 *busy;
	__u32 zero = 0, i;

	busy = bpf_map_lookup_elem(&scratch_busy, &zero);
	if (!busy)
		return NULL;
	for (i = 0; i < RF_SCRATCH_SLOTS; i++) {
		__u32 index = i;

		if (__sync_fetch_and_or(busy, 1ULL << i) & (1ULL << i))
			continue;
		buffer = bpf_map_lookup_elem(&scratch, &index);
		if (buffer)
			buffer->bit = i;
		return buffer;
	}
	return rf_scratch_get_shared();
}

/*
 * Takes the current task's own buffer, which only that task's programs use: no atomic operation is
 * needed, as a program that interrupts another one of the task ends before it. NULL: it is taken.
 */
static __always_inline struct rf_scratch *rf_scratch_claim(struct rf_scratch *own)
{
	if (own->taken)
		return NULL;
	own->taken = 1;
	own->bit = RF_SCRATCH_OWN;
	return own;
}

/* Returns the current task's own buffer. */
static __always_inline void rf_scratch_release(struct rf_scratch *own)
{
	own->taken = 0;
}

/* Returns a buffer, the task's own or one of the pools. */
static __always_inline void rf_scratch_put(struct rf_scratch *buffer)
{
	__u32 zero = 0, bit = buffer->bit;
	__u64 *busy;

	if (bit == RF_SCRATCH_OWN) {
		rf_scratch_release(buffer);
		return;
	}
	if (bit < RF_SCRATCH_SLOTS) {
		busy = bpf_map_lookup_elem(&scratch_busy, &zero);
	} else {
		bit -= RF_SCRATCH_SLOTS;
		busy = bpf_map_lookup_elem(&scratch_shared_busy, &zero);
	}
	if (busy)
		__sync_fetch_and_and(busy, ~(1ULL << (bit & 63)));
}

#endif
