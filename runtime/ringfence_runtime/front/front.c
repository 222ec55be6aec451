/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The executable that `ringfence-runtime install` makes where a C compiler is at hand.
 *
 * It starts the interpreter once, from a private read-only mount of it (see seal.py: CVE-2019-5736), isolated and
 * without site, on one file that holds all our modules. Without it Python would start twice: once to find out that
 * it is not sealed. PYTHON and BUNDLE are given by the installer.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same numbers on every architecture; an older C library does not name them. */
#define NR_open_tree 428
#define NR_mount_setattr 442
#define CLONE_TREE 1
#define ATTR_RDONLY 1
#define EMPTY_PATH 0x1000

struct attributes {
	uint64_t set, clear, propagation, userns;
};

/* Returns only where the kernel or the caller's rights do not allow it; seal.py then tries and says why. */
static void execute_sealed(char **arguments)
{
	struct attributes wanted = { .set = ATTR_RDONLY, .propagation = MS_PRIVATE };
	int tree = (int)syscall(NR_open_tree, AT_FDCWD, PYTHON, CLONE_TREE | O_CLOEXEC);

	if (tree < 0)
		return;
	if (syscall(NR_mount_setattr, tree, "", EMPTY_PATH, &wanted, sizeof(wanted)) == 0)
		syscall(SYS_execveat, tree, "", arguments, environ, EMPTY_PATH);
	close(tree);
}

int main(int count, char **words)
{
	char **arguments = calloc((size_t)count + 3, sizeof(char *));

	if (!arguments)
		return 1;
	arguments[0] = PYTHON;
	arguments[1] = "-IS";
	arguments[2] = BUNDLE;
	if (count > 1)
		memcpy(&arguments[3], &words[1], (size_t)(count - 1) * sizeof(char *));
	if (geteuid() == 0)
		execute_sealed(arguments);
	execv(PYTHON, arguments);
	perror(PYTHON);
	return 127;
}
