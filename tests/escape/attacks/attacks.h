/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Harmless ways to ask the kernel for what an escape needs. Every sub-command
 * makes the real system call, aimed at something of the test's own, or with an
 * argument that has no effect when it is let through. None writes a new value
 * anywhere, and none touches a process or a namespace that a test did not make.
 */
#ifndef ATTACKS_H
#define ATTACKS_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Exit codes. A call refused by policy gives EPERM; anything else is the kernel's own answer. */
#define WORKED 0
#define ERROR 1
#define USAGE 2
#define SETUP 3 /* what the attack needs could not be made: nothing was tried */
#define REFUSED 77

struct attack {
	const char *name;
	int (*run)(char **args); /* NULL ended */
	const char *what;
};

/* Say what is tried, and when: "call NAME at NANOSECONDS" of CLOCK_BOOTTIME, before the call. */
void try_now(const char *call);

/* Say how it ended and give the exit code. A result of -1 with errno is a failure. */
int result(long value);

/* Leave with SETUP and the reason. */
void need(int condition, const char *what);

/* args[i], or a default where there are fewer. */
const char *word(char **args, int i, const char *otherwise);
long number(char **args, int i, long otherwise);

extern const struct attack mount_attacks[], file_attacks[], kernel_attacks[], task_attacks[], net_attacks[],
	fuse_attacks[];

#endif
