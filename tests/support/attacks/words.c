/* SPDX-License-Identifier: Apache-2.0 */
#include "words.h"
#include <errno.h>
#include <stdlib.h>

const char *word(char **args, int i, const char *otherwise)
{
	for (int n = 0; n < i; n++)
		if (!args[n])
			return otherwise;
	return args[i] ? args[i] : otherwise;
}

long number(char **args, int i, long otherwise)
{
	const char *text = word(args, i, NULL);

	return text ? strtol(text, NULL, 0) : otherwise;
}

#ifdef __x86_64__
void need_32bit(void)
{
}

long call_32bit(long number, long first, long second, long third)
{
	long value;

	asm volatile("int $0x80"
		     : "=a"(value)
		     : "a"(number), "b"(first), "c"(second), "d"(third)
		     : "memory", "r8", "r9", "r10", "r11");
	errno = value < 0 ? (int)-value : 0;
	return value < 0 ? -1 : value;
}
#else
void need_32bit(void)
{
	errno = ENOSYS;
	need(0, "a 32-bit call");
}

long call_32bit(long number, long first, long second, long third)
{
	(void)number;
	(void)first;
	(void)second;
	(void)third;
	errno = ENOSYS;
	return -1;
}
#endif
