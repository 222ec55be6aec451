/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Block I/O that takes long, from the call that submits it to its completion. The submitter is known where a task
 * waits for its own I/O: reads, direct and synchronous writes. What the kernel writes back later is nobody's.
 */
#include "ringfence.h"

struct slow_io {
	struct rf_task task;
	u64 latency_us;
	u32 bytes;
	u32 major;
	u32 minor;
	char operation[12];
};

struct place {
	u64 sector;
	u64 dev;
};

struct submitted {
	struct rf_task task;
	u64 at;
};

BPF_TABLE("lru_hash", struct place, struct submitted, waiting, 16384);

/* In the submitter's context, after a partition has become a place on its disk. */
TRACEPOINT_PROBE(block, block_bio_queue)
{
	struct submitted begin = { .at = bpf_ktime_get_ns() };
	struct place place = { .sector = args->sector, .dev = args->dev };

	if (rf_identify_current(&begin.task))
		waiting.update(&place, &begin);
	return 0;
}

/* In an interrupt: the task that it stops has nothing to do with it. */
TRACEPOINT_PROBE(block, block_rq_complete)
{
	struct place place = { .sector = args->sector, .dev = args->dev };
	struct submitted *begin = waiting.lookup(&place);
	struct slow_io e = {};

	if (!begin)
		return 0;
	e.latency_us = (bpf_ktime_get_ns() - begin->at) / 1000;
	e.task = begin->task;
	waiting.delete(&place);
	if (e.latency_us < MIN_US)
		return 0;
	e.bytes = args->nr_sector << 9;
	e.major = MAJOR(place.dev);
	e.minor = MINOR(place.dev);
	bpf_probe_read_kernel(&e.operation, sizeof(args->rwbs), (void *)args->rwbs);
	rf_send(&e);
	return 0;
}
