/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Harmless forms of the calls that an escape needs. Every sub-command makes the
 * real system call on an object of the test, or with an argument that has no
 * effect if it is allowed. None writes a new value, and none affects a process
 * or a namespace that a test did not create.
 */
#ifndef ATTACKS_H
#define ATTACKS_H

#include "../../support/attacks/words.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Calls that x86 alone has. Elsewhere the number is that of no call, which fails with ENOSYS. */
#ifndef SYS_iopl
#define SYS_iopl -1
#endif
#ifndef SYS_ioperm
#define SYS_ioperm -1
#endif

struct attack {
	const char *name;
	int (*run)(char **args); /* args are NULL terminated */
	const char *what;
};

/* Prints "call NAME at NANOSECONDS" of CLOCK_BOOTTIME, before the call. */
void try_now(const char *call);

/* Prints the result and returns the exit code. A result of -1 with errno is a failure. */
int result(long value);

/* Gets its own number by `32` or `x32`. Returns 1 if the kernel refuses such calls, else 0. */
int narrow(const char *abi);

extern const struct attack mount_attacks[], file_attacks[], kernel_attacks[], task_attacks[], net_attacks[],
	fuse_attacks[], node_attacks[];

#endif
