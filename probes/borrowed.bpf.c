// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Which processes are driven by somebody: see borrowed.h. Global functions: see task_facts.bpf.c.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/borrowed.h"
#include "include/scratch.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_ENV_CHUNK RF_WALK_LEN
#define RF_ENV_CHUNKS 64

__noinline int rf_borrow(__u32 tgid)
{
	struct rf_task *process = bpf_map_lookup_elem(&processes, &tgid);
	__u32 *facts;

	if (!process)
		return 0;
	facts = &process->facts;
	__sync_fetch_and_or(facts, RF_PROGRAM_BORROWED);
	return 1;
}

__noinline int rf_is_borrowed(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tgid = task->tgid;
	struct rf_task *process = bpf_map_lookup_elem(&processes, &tgid);

	/* Beyond its container's share nothing is known of a process. */
	if (!process || process->facts & RF_PROGRAM_BORROWED)
		return 1;
	if (!BPF_CORE_READ(task, ptrace))
		return 0;
	rf_borrow(tgid);
	return 1;
}

/* The four bytes with which a variable of the loader begins, after the end of the one before. */
#define RF_LD_BEGINS 0x004c445f

/*
 * Looks through a part of the environment. `window`: the last bytes of the part before. Returns the
 * last bytes of this one, with bit 32 set if a variable was found.
 */
__noinline __u64 rf_env_chunk(struct rf_scratch *buffer, __u32 len, __u32 window)
{
	__u64 found = 0, seen = window;
	__u32 i;

	if (!buffer)
		return 1ULL << 32;
	for (i = 0; i < RF_ENV_CHUNK; i++) {
		if (i >= len)
			break;
		seen = (seen << 8 | (unsigned char)buffer->walk[i]) & 0xffffffff;
		/* Without a branch, which the verifier would follow both ways each time. */
		found |= ((seen ^ RF_LD_BEGINS) - 1) >> 63;
		barrier_var(found);
	}
	return found << 32 | seen;
}

__noinline int rf_has_loader_variables(struct rf_scratch *buffer)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	__u64 at, end, window = 0;
	__u32 i;

	if (!mm || !buffer)
		return 1;
	at = BPF_CORE_READ(mm, env_start);
	end = BPF_CORE_READ(mm, env_end);
	for (i = 0; i < RF_ENV_CHUNKS; i++) {
		__u64 len = end - at;

		if (at >= end)
			return 0;
		if (len > RF_ENV_CHUNK)
			len = RF_ENV_CHUNK;
		barrier_var(len);
		len &= 2 * RF_ENV_CHUNK - 1;
		if (bpf_probe_read_user(buffer->walk, len, (void *)at))
			return 1;
		window = rf_env_chunk(buffer, len, window);
		if (window >> 32)
			return 1;
		at += len;
	}
	return at < end; /* too large to be looked through */
}
