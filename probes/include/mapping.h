/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The arguments of mmap_file. The hook has the protection that the kernel grants. The function that
 * calls it, security_mmap_file, is where the same programs are attached without BPF-LSM (lsm.h): it
 * has no `reqprot`, and its `prot` is what the caller asked for, without the execution that
 * READ_IMPLIES_EXEC adds. A rule that ignored that would be evaded by personality(2).
 */
#ifndef RINGFENCE_MAPPING_H
#define RINGFENCE_MAPPING_H

#include "config.h"
#include "events.h"
#include "object.h"

#define RF_PROT_READ 1
#define RF_PROT_EXEC 4
#define RF_READ_IMPLIES_EXEC 0x0400000
#define RF_MNT_NOEXEC 4
#define RF_SB_I_NOEXEC 2

/* Written out: the compiler would merge loads of two arguments into one at a variable offset. */
#define RF_ARGUMENT(ctx, number)                                                                   \
	({                                                                                         \
		__u64 value_;                                                                      \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value_) : "r"(ctx), "i"((number)*8)); \
		value_;                                                                            \
	})

static __always_inline bool rf_is_at_function(void)
{
	return config.hook_mechanism == RF_MECHANISM_HOOK;
}

static __always_inline struct file *rf_mapping_file(__u64 *ctx)
{
	return (struct file *)ctx[0];
}

/* What the programs before this one returned. */
static __always_inline int rf_mapping_result(__u64 *ctx)
{
	if (rf_is_at_function())
		return RF_ARGUMENT(ctx, 3);
	return RF_ARGUMENT(ctx, 4);
}

static __always_inline bool rf_is_on_noexec(const struct file *file)
{
	return BPF_CORE_READ(file, f_path.mnt, mnt_flags) & RF_MNT_NOEXEC ||
	       BPF_CORE_READ(file, f_path.mnt, mnt_sb, s_iflags) & RF_SB_I_NOEXEC;
}

/* As mmap_prot() of security/security.c. */
static __always_inline bool rf_read_implies_exec(const struct file *file)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return task->personality & RF_READ_IMPLIES_EXEC && (!file || !rf_is_on_noexec(file));
}

/* The same for the protection that the caller asked for. */
static __always_inline bool rf_is_asked_for_code(__u64 prot, const struct file *file)
{
	if (prot & RF_PROT_EXEC)
		return true;
	return prot & RF_PROT_READ && rf_read_implies_exec(file);
}

/* Returns true if the mapping can be executed. */
static __always_inline bool rf_mapping_is_code(__u64 *ctx, const struct file *file)
{
	if (!rf_is_at_function())
		return RF_ARGUMENT(ctx, 2) & RF_PROT_EXEC;
	return rf_is_asked_for_code(RF_ARGUMENT(ctx, 1), file);
}

#endif
