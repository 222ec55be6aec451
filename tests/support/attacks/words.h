/* SPDX-License-Identifier: Apache-2.0 */
/* What both attack programs share: exit codes, arguments, and calls by the 32-bit table. */
#ifndef WORDS_H
#define WORDS_H

#define _GNU_SOURCE

/* Exit codes. A call refused by policy gives EPERM; anything else is the kernel's own answer. */
#define WORKED 0
#define ERROR 1
#define USAGE 2
#define SETUP 3 /* the attack's requirements could not be created: no call was made */
#define REFUSED 77

/* Returns args[i], or a default if there are fewer. `args` is NULL terminated. */
const char *word(char **args, int i, const char *otherwise);
long number(char **args, int i, long otherwise);

/* Exits with SETUP and the reason if the condition is false. Each program has its own. */
void need(int condition, const char *what);

/* Exits with SETUP where no program can call by the 32-bit table. */
void need_32bit(void);

/* A system call by the 32-bit table; -1 with errno on failure. Pointers must be below 4 GiB. */
long call_32bit(long number, long first, long second, long third);

#endif
