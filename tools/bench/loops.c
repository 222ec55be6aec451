/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loops getppid|open|exec|tmpfs|... ROUNDS PER_ROUND [PATH]: make one system call in a loop and print
 * nanoseconds a call, one number a round. Pinned to the last CPU. `marks` prints
 * the time before each of ROUNDS calls instead, PER_ROUND milliseconds apart;
 * they are setfsuid(100000), setfsuid(100001) ... and so on, 250 different ones.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MARK 100000
#define MARKS 250

static long long now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void once(const char *what, const char *path)
{
	int fd;

	if (*what == 'g') {
		syscall(SYS_getppid);
	} else if (*what == 'o') {
		fd = open(path, O_RDONLY);
		if (fd < 0)
			exit(3);
		close(fd);
	} else if (*what == 's') { /* setfsuid, setfsgid: to what they are, the container's root */
		syscall(what[5] == 'u' ? SYS_setfsuid : SYS_setfsgid, 0);
	} else if (*what == 't') { /* tmpfs: mounted and unmounted */
		if (mount("none", path, "tmpfs", 0, NULL) || umount2(path, MNT_DETACH))
			exit(3);
	} else if (*what == 'p') {
		syscall(SYS_personality, 0xffffffff); /* asks only */
	} else {				      /* fork, exec: of PATH */
		pid_t child = vfork();

		if (!child && *what == 'e')
			execl(path, path, NULL);
		if (!child)
			_exit(0);
		waitpid(child, NULL, 0);
	}
}

static int marks(long count, long pause_ms)
{
	struct timespec pause = { pause_ms / 1000, pause_ms % 1000 * 1000000 };

	for (long i = 0; i < count; i++) {
		nanosleep(&pause, NULL);
		printf("%lld\n", now(CLOCK_BOOTTIME));
		fflush(stdout);
		syscall(SYS_setfsuid, MARK + i % MARKS);
	}
	return 0;
}

int main(int argc, char **argv)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN), rounds, per_round;
	cpu_set_t last;

	if (argc < 4)
		return 2;
	rounds = atol(argv[2]);
	per_round = atol(argv[3]);
	if (*argv[1] == 'm')
		return marks(rounds, per_round);
	CPU_ZERO(&last);
	CPU_SET(cpus - 1, &last);
	sched_setaffinity(0, sizeof(last), &last);
	for (long round = 0; round < rounds; round++) {
		long long start = now(CLOCK_MONOTONIC);

		for (long i = 0; i < per_round; i++)
			once(argv[1], argv[4]);
		printf("%.2f\n", (double)(now(CLOCK_MONOTONIC) - start) / per_round);
	}
	return 0;
}
