/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every difference between kernels and architectures, each with the change that
 * made it. A difference is asked of the kernel's BTF (field, type, enum value), never of its version. The
 * floor is 5.15: BPF_MAP_TYPE_RINGBUF (5.8), task storage in tracing programs (5.13), bpf_task_pt_regs and
 * links to perf events (5.15). The Python twin of the system call part is ringfence/bpf/syscalls.py.
 */
#ifndef RINGFENCE_COMPAT_H
#define RINGFENCE_COMPAT_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* A function with a stack frame of its own: what it needs does not add up with what its caller calls next. */
#define rf_subprogram static __noinline __attribute__((unused))

/*
 * Reads through kernel pointers that are held as numbers. The address is a variable of its own: inside
 * BPF_CORE_READ, an access to a struct of ours would be relocated, too.
 */
#define RF_READ(type, address, ...)               \
	({                                        \
		type *__at = (type *)(address);   \
		BPF_CORE_READ(__at, __VA_ARGS__); \
	})

/* ---- system calls: registers, numbers, calling ABI --------------------- */

struct rf_call {
	__u64 args[6];
	__u32 nr;    /* as the calling ABI numbers it */
	__u32 index; /* into `syscalls` */
	__u32 compat;
	__u32 pad;
};

/* One number on every architecture, and for 32-bit callers, too. */
#define RF_NR_IO_URING_ENTER 426
#define RF_NR_CLONE3 435

#if defined(__TARGET_ARCH_x86)

#define RF_TS_COMPAT 2		  /* arch/x86/include/asm/thread_info.h */
#define RF_TIF_ADDR32 (1UL << 29) /* the program is a 32-bit one */
#define RF_X32_BIT 0x40000000
#define RF_COMPAT_SOCKETCALL 102

/*
 * int 0x80 and 32-bit programs. Per-syscall tracepoints never fire for these
 * (ARCH_TRACE_IGNORE_COMPAT_SYSCALLS), nor for x32 calls, owner number is out of their table: hence
 * every_call.
 */
static __always_inline bool rf_in_compat(struct task_struct *task)
{
	return task->thread_info.status & RF_TS_COMPAT;
}

static __always_inline bool rf_is_32bit_program(struct task_struct *task)
{
	return task->thread_info.flags & RF_TIF_ADDR32;
}

/* x32 calls have native numbers, but for those that take pointers in structs: 512 and up. */
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

/* 32-bit numbers of the calls that return a new descriptor of a file: arch/x86/entry/syscalls/syscall_32.tbl */
static __always_inline bool rf_opens_file(__u32 nr)
{
	return nr == 5 || nr == 8 || nr == 295 || nr == 342 || nr == 437;
}

/* Whether it is open_by_handle_at: the one call by which a file outside of a mount's root can be reached. */
static __always_inline bool rf_opens_by_handle(__u32 nr, bool compat)
{
	return nr == (compat ? 342 : 304);
}

/* Where an open has its flags: the argument itself, or of openat2 its address. */
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

#elif defined(__TARGET_ARCH_arm64)

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

/* ---- credentials ------------------------------------------------------- */

#define RF_CAP_SYS_ADMIN 21
#define RF_CAP_ALL ((1ULL << 41) - 1) /* CAP_LAST_CAP is CAP_CHECKPOINT_RESTORE since 5.9 */

/*
 * kernel_cap_t is u32[2] up to 6.2 and a u64 from 6.3 (f122a08b197d): on the little-endian machines that
 * we know, the eight bytes are the same.
 */
#define rf_capability(cred, field)                                            \
	({                                                                    \
		__u64 __set = 0;                                              \
		bpf_probe_read_kernel(&__set, sizeof(__set), &(cred)->field); \
		__set;                                                        \
	})

#define RF_PFA_NO_NEW_PRIVS 1UL /* bit 0 of task->atomic_flags */

/* task_struct.flags: include/linux/sched.h */
#define RF_PF_IO_WORKER 0x00000010
#define RF_PF_KTHREAD 0x00200000

/* ---- namespaces -------------------------------------------------------- */

#define RF_CLONE_NEWTIME 0x80
#define RF_CLONE_THREAD 0x10000
#define RF_CLONE_NEWNS 0x20000
#define RF_CLONE_NEWCGROUP 0x2000000
#define RF_CLONE_NEWUTS 0x4000000
#define RF_CLONE_NEWIPC 0x8000000
#define RF_CLONE_NEWUSER 0x10000000
#define RF_CLONE_NEWPID 0x20000000
#define RF_CLONE_NEWNET 0x40000000

/* The type of a namespace is a field of its operations up to 6.17, its own from 6.18 (ns_common.ns_type). */
struct proc_ns_operations___old {
	int type;
} __attribute__((preserve_access_index));
struct ns_common___old {
	const struct proc_ns_operations___old *ops;
	unsigned int inum;
} __attribute__((preserve_access_index));
struct ns_common___new {
	u32 ns_type;
	unsigned int inum;
} __attribute__((preserve_access_index));

static __always_inline __u32 rf_ns_type(__u64 ns)
{
	const struct ns_common___new *new = (void *)ns;
	const struct ns_common___old *old = (void *)ns;

	if (bpf_core_field_exists(new->ns_type))
		return BPF_CORE_READ(new, ns_type);
	return BPF_CORE_READ(old, ops, type);
}

/*
 * Numbers of mount namespaces that are never used again: their own up to 6.17, that of every namespace from 6.18 on.
 * What fsmount and open_tree make lies in one that no task can be in: its number is 0, or it says so (7.x).
 */
struct mnt_namespace___numbered {
	u64 seq;
} __attribute__((preserve_access_index));
struct mnt_namespace___anonymous {
	bool is_anon;
} __attribute__((preserve_access_index));
struct ns_common___numbered {
	u64 ns_id;
} __attribute__((preserve_access_index));

static __always_inline __u64 rf_mnt_ns_number(__u64 ns)
{
	const struct mnt_namespace___numbered *own = (void *)ns;
	const struct ns_common___numbered *common = (void *)(ns + bpf_core_field_offset(struct mnt_namespace, ns));

	if (bpf_core_field_exists(own->seq))
		return BPF_CORE_READ(own, seq);
	return BPF_CORE_READ(common, ns_id);
}

static __always_inline bool rf_mnt_ns_is_anonymous(__u64 ns, __u64 number)
{
	const struct mnt_namespace___anonymous *flagged = (void *)ns;

	if (bpf_core_field_exists(flagged->is_anon))
		return BPF_CORE_READ(flagged, is_anon);
	return !number;
}

/* A failed or internal mount namespace is an error pointer (MNT_NS_INTERNAL is -EINVAL). */
static __always_inline bool rf_is_error(__u64 pointer)
{
	return pointer >= (__u64)-4095;
}

/* ---- cgroups ----------------------------------------------------------- */

/*
 * Controllers are numbered by the kernel's configuration. The name of a cgroup lies in kernfs_node.name
 * on all kernels (RCU protected from 6.15, 741c10b096bc); the parent is taken from the css, as
 * kernfs_node.parent is_bound __parent then (633488947ef6).
 */
#define rf_subsys(id) bpf_core_enum_value(enum cgroup_subsys_id, id)

/*
 * The id of the cgroup at a level above a cgroup, or of that itself. Each cgroup has the list of those that it lies
 * in: of ids up to 6.0, of cgroups from 6.1 on (7f203bc89eb6).
 */
static __always_inline __u64 rf_ancestor_id(__u64 cgroup, __u32 level)
{
	const struct cgroup___array *now = (void *)cgroup;
	__u64 found = 0;

	if (!bpf_core_field_exists(now->ancestors)) {
		bpf_probe_read_kernel(&found, sizeof(found),
				      (void *)(cgroup + bpf_core_field_offset(struct cgroup___ids, ancestor_ids) +
					       level * sizeof(__u64)));
		return found;
	}
	bpf_probe_read_kernel(
		&found, sizeof(found),
		(void *)(cgroup + bpf_core_field_offset(struct cgroup___array, ancestors) + level * sizeof(void *)));
	return RF_READ(struct cgroup, found, kn, id);
}

/*
 * sched_process_exit has a second argument from 6.16 on, and comes before exit_mm (the mm is
 * there still). The argument is not read: a thread group has ended when signal->live is 0, which is counted
 * down before the tracepoint on every kernel.
 */

#include "compat_file.h"

#endif
