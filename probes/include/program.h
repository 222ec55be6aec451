/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The program that a task runs: its path, its hash, and the facts that rules know of it. */
#ifndef RINGFENCE_PROGRAM_H
#define RINGFENCE_PROGRAM_H

#include "object.h"

/* RF_FACTS_OF_PROGRAM of an executable. */
static __always_inline __u32 rf_program_facts(const struct rf_file *exe)
{
	__u32 facts = 0;

	if (!RF_READ(struct inode, exe->inode, i_nlink))
		facts |= RF_FACT_MEMFD_EXE;
	if (exe->magic == RF_MAGIC_OVERLAY && rf_is_overlay_upper(exe->inode))
		facts |= RF_FACT_UPPER_EXE;
	return facts;
}

/*
 * Reads the program of a task: its path as the task sees it, with the hash, into the buffer; its
 * identity into `exe`. Returns RF_FACTS_OF_PROGRAM and RF_PROGRAM_ELSEWHERE. `file` is the
 * executable, `container_root` the container's root directory.
 */
__u32 rf_program(__u64 task, struct rf_scratch *buffer, struct rf_file *exe, __u64 file,
		 __u64 container_root);

#endif
