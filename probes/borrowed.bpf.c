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
#define RF_ENV_BYTES 32 /* at a time */
#define RF_ENV_FOUND (1ULL << 32)

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
 * Looks through some bytes of the environment. `window`: the last bytes before them. Returns the
 * last of these, with bit 32 set if a variable was found.
 */
__noinline __u64 rf_env_bytes(struct rf_scratch *buffer, __u32 at, __u32 len, __u64 window)
{
	__u64 found = window >> 32, seen = window & 0xffffffff;
	__u32 i;

	if (!buffer)
		return RF_ENV_FOUND;
	at &= RF_WALK_LEN - 1;
	for (i = 0; i < RF_ENV_BYTES; i++) {
		if (at + i >= len)
			break;
		seen = (seen << 8 | (unsigned char)buffer->walk[at + i]) & 0xffffffff;
		/* Without a branch, which the verifier would follow both ways each time. */
		found |= ((seen ^ RF_LD_BEGINS) - 1) >> 63;
		barrier_var(found);
	}
	return found << 32 | seen;
}

/* The same for what the process has at an address: RF_ENV_CHUNK bytes, or `len`. */
__noinline __u64 rf_env_chunk(struct rf_scratch *buffer, __u64 at, __u64 len, __u64 window)
{
	__u32 i;

	if (!buffer)
		return RF_ENV_FOUND;
	if (len > RF_ENV_CHUNK)
		len = RF_ENV_CHUNK;
	barrier_var(len);
	len &= 2 * RF_ENV_CHUNK - 1;
	if (bpf_probe_read_user(buffer->walk, len, (void *)at))
		return RF_ENV_FOUND;
	for (i = 0; i < RF_ENV_CHUNK; i += RF_ENV_BYTES)
		window = rf_env_bytes(buffer, i, len, window);
	return window;
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
		if (at >= end)
			return 0;
		window = rf_env_chunk(buffer, at, end - at, window);
		if (window >= RF_ENV_FOUND)
			return 1;
		at += RF_ENV_CHUNK;
	}
	return at < end; /* too large to be looked through */
}
