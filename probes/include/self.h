/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The calls of the self-defence.
 */
#ifndef RINGFENCE_SELF_H
#define RINGFENCE_SELF_H

#include "guard.h"

/* A call that RF_SYSCALL_GUARDED is set for, as it begins. */
int rf_guard_call(const struct rf_call *call);

#endif
