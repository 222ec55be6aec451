/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * x86-64: registers, numbers and calling ABIs of system calls. Included by compat.h alone.
 */
#ifndef RINGFENCE_ARCH_X86_H
#define RINGFENCE_ARCH_X86_H

#define RF_TS_COMPAT 2		  /* arch/x86/include/asm/thread_info.h */
#define RF_TIF_ADDR32 (1UL << 29) /* the program is a 32-bit one */
#define RF_X32_BIT 0x40000000
#define RF_COMPAT_SOCKETCALL 102

/*
 * For int 0x80 and 32-bit programs. Per-syscall tracepoints never fire for these
 * (ARCH_TRACE_IGNORE_COMPAT_SYSCALLS), nor for x32 calls, as x32 numbers are not in their table:
 * hence every_call.
 */
static __always_inline bool rf_in_compat(struct task_struct *task)
{
	return task->thread_info.status & RF_TS_COMPAT;
}

static __always_inline bool rf_is_32bit_program(struct task_struct *task)
{
	return task->thread_info.flags & RF_TIF_ADDR32;
}

/* x32 calls have native numbers, except those with pointers in structs: 512 and up. */
static __always_inline __u32 rf_x32_native(__u32 nr)
{
	switch (nr) {
	case 514:
		return 16; /* ioctl */
	case 520:
		return 59; /* execve */
	case 521:
		return 101; /* ptrace */
	case 528:
		return 246; /* kexec_load */
	case 532:
		return 278; /* vmsplice */
	case 539:
		return 310; /* process_vm_readv */
	case 540:
		return 311; /* process_vm_writev */
	case 545:
		return 322; /* execveat */
	default:
		return nr;
	}
}

static __always_inline void rf_read_call(struct rf_call *call, struct pt_regs *regs, bool compat)
{
	__u32 nr = (__u32)regs->orig_ax;

	call->compat = compat;
	call->nr = nr;
	call->pad = 0;
	if (compat && !(nr & RF_X32_BIT)) {
		call->args[0] = (__u32)regs->bx;
		call->args[1] = (__u32)regs->cx;
		call->args[2] = (__u32)regs->dx;
		call->args[3] = (__u32)regs->si;
		call->args[4] = (__u32)regs->di;
		call->args[5] = (__u32)regs->bp;
		call->index = nr < 512 ? nr + 512 : ~0U;
		return;
	}
	call->args[0] = regs->di;
	call->args[1] = regs->si;
	call->args[2] = regs->dx;
	call->args[3] = regs->r10;
	call->args[4] = regs->r8;
	call->args[5] = regs->r9;
	nr &= ~RF_X32_BIT;
	call->index = rf_x32_native(nr);
	if (call->index >= 512)
		call->index = ~0U;
}

static __always_inline long rf_return_value(struct pt_regs *regs)
{
	return (long)regs->ax;
}

/* Where in the program the call is made. */
static __always_inline __u64 rf_call_site(struct pt_regs *regs)
{
	return regs->ip ^ regs->sp << 16;
}

static __always_inline __u32 rf_call_number(struct pt_regs *regs)
{
	return (__u32)regs->orig_ax & ~RF_X32_BIT;
}

/*
 * 32-bit numbers of the calls that return a new file descriptor:
 * arch/x86/entry/syscalls/syscall_32.tbl
 */
static __always_inline bool rf_opens_file(__u32 nr)
{
	return nr == 5 || nr == 8 || nr == 295 || nr == 342 || nr == 437;
}

/*
 * Returns true for open_by_handle_at, the only call that reaches a file outside of a mount's root.
 */
static __always_inline bool rf_opens_by_handle(__u32 nr, bool compat)
{
	return nr == (compat ? 342 : 304);
}

/* The flags of an open: the argument itself, or, of openat2, its address. */
static __always_inline __u64 rf_open_flags_at(struct pt_regs *regs, __u32 nr, bool compat)
{
	if (compat)
		return (__u32)(nr == 5 ? regs->cx : regs->dx);
	return nr == 2 ? regs->si : regs->dx;
}

/* open, openat, creat, openat2 */
static __always_inline bool rf_is_open_call(const struct rf_call *call)
{
	__u32 nr = call->nr & ~RF_X32_BIT;

	if (call->compat && !(call->nr & RF_X32_BIT))
		return rf_opens_file(nr);
	return nr == 2 || nr == 257 || nr == 85 || nr == 437;
}

#endif
