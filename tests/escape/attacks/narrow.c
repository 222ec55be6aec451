/* SPDX-License-Identifier: Apache-2.0 */
/* Calls by ABIs of other widths: ringfence/bpf/compat_probe.py asks whether this kernel serves them. */
#include "attacks.h"
#include <signal.h>
#include <sys/prctl.h>

#ifdef __x86_64__
#define NR_GETPID_32 20
#define NR_GETPID_X32 (0x40000000 + SYS_getpid)

static void refused(int number)
{
	_exit(1);
}

/* Without a gate for int 0x80 the kernel sends SIGSEGV. Caught, so that it logs nothing. */
static long getpid_32(void)
{
	long done;

	signal(SIGSEGV, refused);
	__asm__ volatile("int $0x80" : "=a"(done) : "a"(NR_GETPID_32) : "memory", "r8", "r9", "r10", "r11");
	return (int)done;
}

int narrow(const char *abi)
{
	prctl(PR_SET_DUMPABLE, 0); /* a filter may end it: that is an answer, and no crash to collect */
	return (strcmp(abi, "x32") ? getpid_32() : syscall(NR_GETPID_X32)) <= 0;
}
#else
int narrow(const char *abi)
{
	return 1;
}
#endif
