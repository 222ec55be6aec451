/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs at hooks, and their backstops.
 *
 * RF_HOOK(name, arguments..., int ret) takes the place of BPF_PROG(...) after SEC("lsm/HOOK"), and
 * makes two programs of one body: `name`, and `backstop_name`, a kprobe just behind the entry of
 * the function that calls the hook. A kernel that preempts may skip `name` where it is a tracing
 * program (lsm.h), and the call passes; it does not skip a kprobe of perf, which runs with
 * preemption off. So the backstop judges what arrived in the function once more, and kills. It does
 * not know what the first program said, and needs not: what that one has refused does not arrive.
 *
 * In a backstop pointers are plain numbers: only BPF_CORE_READ reads through them, and what takes a
 * typed pointer is left out where `behind` is true.
 */
#ifndef RINGFENCE_BACKSTOP_H
#define RINGFENCE_BACKSTOP_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "condemn.h"
#include "config.h"
#include "events.h"
#include "tasks.h"

/* Returns true while a backstop judges the current task. */
int rf_is_backstop(void);

/* Kills the caller for an event that a backstop refuses. Returns flags for the header. */
__u8 rf_backstop_kill(__u32 event);

/* A field of what an argument of a hook points to. */
#define RF_FIELD(behind, pointer, field) \
	((behind) ? BPF_CORE_READ(pointer, field) : (pointer)->field)

/* Returns true if the current task is to be judged. */
static __always_inline bool rf_backstop_begin(void)
{
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());

	if (armed)
		armed->backstop = 1;
	return armed;
}

/* Ends what rf_backstop_begin() began. */
static __always_inline void rf_backstop_end(int refused)
{
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());

	if (!armed)
		return;
	if (refused)
		rf_kill(armed->backstop_event);
	armed->backstop = 0;
	armed->backstop_event = RF_EVENT_NONE;
}

/* The arguments of a function, and 0 as the result of earlier programs. */
#define RF_BACKSTOP_ARGUMENTS 6
#define RF_BACKSTOP_READ(given, regs)             \
	do {                                      \
		(given)[0] = PT_REGS_PARM1(regs); \
		(given)[1] = PT_REGS_PARM2(regs); \
		(given)[2] = PT_REGS_PARM3(regs); \
		(given)[3] = PT_REGS_PARM4(regs); \
		(given)[4] = PT_REGS_PARM5(regs); \
	} while (0)

#define RF_ARGS0(from)
#define RF_ARGS1(from, x) , (void *)(from)[0]
#define RF_ARGS2(from, x, args...) RF_ARGS1(from, args), (void *)(from)[1]
#define RF_ARGS3(from, x, args...) RF_ARGS2(from, args), (void *)(from)[2]
#define RF_ARGS4(from, x, args...) RF_ARGS3(from, args), (void *)(from)[3]
#define RF_ARGS5(from, x, args...) RF_ARGS4(from, args), (void *)(from)[4]
#define RF_ARGS6(from, x, args...) RF_ARGS5(from, args), (void *)(from)[5]
#define RF_ARGS(from, args...) ___bpf_apply(RF_ARGS, ___bpf_narg(args))(from, ##args)

/* clang-format off */
#define RF_HOOK_PAIR(no_result, name, args...)						\
	name(unsigned long long *ctx);							\
	static __always_inline int ____##name(const bool behind, ##args);		\
	int name(unsigned long long *ctx)						\
	{										\
		_Pragma("GCC diagnostic push")						\
		_Pragma("GCC diagnostic ignored \"-Wint-conversion\"")			\
		return ____##name(false RF_ARGS(ctx, ##args));				\
		_Pragma("GCC diagnostic pop")						\
	}										\
	SEC("kprobe") int backstop_##name(struct pt_regs *regs)				\
	{										\
		__u64 given[RF_BACKSTOP_ARGUMENTS] = {};				\
											\
		if (!rf_backstop_begin())						\
			return 0;							\
		RF_BACKSTOP_READ(given, regs);						\
		no_result(given, ##args);						\
		_Pragma("GCC diagnostic push")						\
		_Pragma("GCC diagnostic ignored \"-Wint-conversion\"")			\
		rf_backstop_end(____##name(true RF_ARGS(given, ##args)));		\
		_Pragma("GCC diagnostic pop")						\
		return 0;								\
	}										\
	static __always_inline int ____##name(const bool behind, ##args)
/* clang-format on */

#define RF_BACKSTOP_NO_RESULT(given, args...) ((given)[___bpf_narg(args) - 1] = 0)
#define RF_BACKSTOP_ALL(given, args...) ((void)(given))

#define RF_HOOK(name, args...) RF_HOOK_PAIR(RF_BACKSTOP_NO_RESULT, name, ##args)
/* The same for a body that does not take the result of earlier programs. */
#define RF_HOOK_NO_RESULT(name, args...) RF_HOOK_PAIR(RF_BACKSTOP_ALL, name, ##args)

#endif
