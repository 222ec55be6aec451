/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks that only say that something is requested, while the system call in progress says what: the
 * event is that of the call. The events that a hook decides are its argument here, and are listed
 * in agent/ringfence/bpf/lsm.py.
 */
#ifndef RINGFENCE_LSM_CALL_H
#define RINGFENCE_LSM_CALL_H

#include "lsm.h"

/* Sets of system call events. */
#define RF_EVENT_BIT(event) (1ULL << ((event)-RF_SYS_CLONE))

/* The signal at the end of a child, in the flags of clone(2): include/uapi/linux/sched.h */
#define RF_CSIGNAL 0xff

/* Or'ed to `flags`: these are all flags, as the kernel copied them, not only some of them. */
#define RF_FLAGS_ARE_WHOLE (1ULL << 63)
/* Or'ed to `flags`: no namespace is entered yet. */
#define RF_FLAGS_OF_LOOK (1ULL << 62)

/*
 * Decides the call in progress, if its event is one of `events`. Returns the verdict. The hook may
 * know more than the call's arguments: `target`, the task_struct of the process concerned; `flags`
 * of a new task or namespace, as the kernel copied them; 0: unknown.
 */
int rf_decide_call(__u64 events, __u64 target, __u64 flags);

#endif
