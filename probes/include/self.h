/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The self-defence at system calls, where no LSM hook refuses. */
#ifndef RINGFENCE_SELF_H
#define RINGFENCE_SELF_H

#include "guard.h"

/* Inspects a call that has RF_SYSCALL_GUARDED set, at its entry. Returns the verdict. */
int rf_guard_call(const struct rf_call *call);

#endif
