/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * arm64: registers, numbers and calling ABIs of system calls. Included by compat.h alone.
 */
#ifndef RINGFENCE_ARCH_ARM64_H
#define RINGFENCE_ARCH_ARM64_H

#define RF_TIF_32BIT (1UL << 22) /* arch/arm64/include/asm/thread_info.h */
#define RF_COMPAT_SOCKETCALL 102

static __always_inline bool rf_in_compat(struct task_struct *task)
{
	return task->thread_info.flags & RF_TIF_32BIT;
}

static __always_inline bool rf_is_32bit_program(struct task_struct *task)
{
	return task->thread_info.flags & RF_TIF_32BIT;
}

static __always_inline void rf_read_call(struct rf_call *call, struct pt_regs *regs, bool compat)
{
	__u32 nr = (__u32)regs->syscallno;

	call->compat = compat;
	call->nr = nr;
	call->pad = 0;
	call->args[0] = regs->orig_x0; /* regs[0] holds the result at exit */
	call->args[1] = regs->regs[1];
	call->args[2] = regs->regs[2];
	call->args[3] = regs->regs[3];
	call->args[4] = regs->regs[4];
	call->args[5] = regs->regs[5];
	call->index = nr < 512 ? nr + (compat ? 512 : 0) : ~0U;
}

/* arch/arm/tools/syscall.tbl: open, creat, openat, open_by_handle_at, openat2 */
static __always_inline bool rf_opens_file(__u32 nr)
{
	return nr == 5 || nr == 8 || nr == 322 || nr == 371 || nr == 437;
}

static __always_inline bool rf_opens_by_handle(__u32 nr, bool compat)
{
	return nr == (compat ? 371 : 265);
}

static __always_inline __u64 rf_open_flags_at(struct pt_regs *regs, __u32 nr, bool compat)
{
	return compat && nr == 5 ? regs->regs[1] : regs->regs[2];
}

static __always_inline bool rf_is_open_call(const struct rf_call *call)
{
	return call->compat ? rf_opens_file(call->nr) : call->nr == 56 || call->nr == 437;
}

static __always_inline long rf_return_value(struct pt_regs *regs)
{
	return (long)regs->regs[0];
}

static __always_inline __u64 rf_call_site(struct pt_regs *regs)
{
	return regs->pc ^ regs->sp << 16;
}

static __always_inline __u32 rf_call_number(struct pt_regs *regs)
{
	return (__u32)regs->syscallno;
}

#endif
