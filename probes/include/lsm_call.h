/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks that say that something is asked for, where the system call in progress says what: the
 * event is the call's. Which events a hook decides is what it hands over here, and in
 * agent/ringfence/bpf/lsm.py.
 */
#ifndef RINGFENCE_LSM_CALL_H
#define RINGFENCE_LSM_CALL_H

#include "lsm.h"

/* Sets of events, those of system calls. */
#define RF_EVENT_BIT(event) (1ULL << ((event)-RF_SYS_CLONE))

/* The signal at a child's end, in the flags of clone(2): include/uapi/linux/sched.h */
#define RF_CSIGNAL 0xff

/* Or'ed to `flags`: the kernel's copy of all of them, and not some that are known to be among them.
 */
#define RF_FLAGS_ARE_WHOLE (1ULL << 63)

/*
 * lsm_call.bpf.c: decides the call in progress, if its event is one of `events`. Returns the
 * verdict. What the hook knows better than the call's arguments do: `target`, the task_struct of
 * the process that it is about; `flags` of a new task or namespace, as the kernel copied them; 0:
 * it does not.
 */
int rf_decide_call(__u64 events, __u64 target, __u64 flags);

#endif
