/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a user's virtiofsd. A guest's overlay opens files with
 * O_NOATIME, which only the owner of a file may: it is left out.
 *
 * gcc -O2 -shared -fPIC -o noatime.so noatime.c
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARGUMENT(last, type)                     \
	({                                       \
		va_list list;                    \
		va_start(list, last);            \
		type value = va_arg(list, type); \
		va_end(list);                    \
		value;                           \
	})

int openat(int directory, const char *path, int flags, ...)
{
	unsigned int mode = flags & (O_CREAT | O_TMPFILE) ? ARGUMENT(flags, unsigned int) : 0;

	return syscall(SYS_openat, directory, path, flags & ~O_NOATIME, mode);
}

int openat64(int directory, const char *path, int flags, ...) __attribute__((alias("openat")));

/* what a program built with _FORTIFY_SOURCE calls */
int __openat64_2(int directory, const char *path, int flags)
{
	return openat(directory, path, flags);
}
