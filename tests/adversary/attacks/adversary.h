/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attacks that have an effect outside of their container. The tests look for the effect
 * themselves: a text in a file of the host, a secret of the host in the output, a namespace of a
 * process. Every sub-command makes one attempt, and prints how it ended.
 */
#ifndef ADVERSARY_H
#define ADVERSARY_H

#include "../../support/attacks/words.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct attack {
	const char *name;
	int (*run)(char **args); /* args are NULL terminated */
};

extern const struct attack file_attacks[], name_attacks[], task_attacks[], namespace_attacks[];
extern const struct attack socket_attacks[], kernel_attacks[], race_attacks[], tamper_attacks[];
extern const struct attack hammer_attacks[];

/* Runs words: the name of an attack, and its arguments. */
int run(char **words);

/* Prints "worked" or "failed ERRNO" (-1 with errno), and returns the exit code. */
int result(long value);

/* Prints what was read, so that the test finds its secret there. */
void show(const char *data, long length);

/* Leaves a process behind that has what this one has: the test looks at it. */
void linger(void);

/* CLOCK_MONOTONIC in milliseconds. */
long long now_ms(void);

/* A copy of the text below 4 GiB. */
char *low_text(const char *text);

#endif
