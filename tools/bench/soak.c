/* SPDX-License-Identifier: Apache-2.0 */
/*
 * soak DIRECTORY PREFIX COUNT AT_ONCE: that many short containers, as the kernel sees them: a cgroup
 * DIRECTORY/PREFIX<n>, a process in it in a mount namespace of its own that execs, calls itself <n>, does
 * one thing that a policy refuses, lives 50 ms and ends; then the cgroup is removed. Prints how many were refused.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFE_US 50000
#define MOST 64

static int workload(const char *number)
{
	struct sockaddr_in where = { .sin_family = AF_INET,
				     .sin_port = htons(2375),
				     .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int refused;

	prctl(PR_SET_NAME, number);
	refused = connect(fd, (void *)&where, sizeof(where)) == -1 && errno == EPERM;
	usleep(LIFE_US);
	return refused ? 0 : 1;
}

static pid_t start(const char *program, const char *directory, long number)
{
	char procs[PATH_MAX], text[32];
	pid_t child;
	int fd;

	if (mkdir(directory, 0755))
		return -1;
	child = fork();
	if (child)
		return child;
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", directory);
	snprintf(text, sizeof(text), "%ld", number);
	fd = open(procs, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1 || unshare(CLONE_NEWNS))
		_exit(3);
	execl(program, program, "--inside", text, NULL);
	_exit(3);
}

int main(int argc, char **argv)
{
	long count, at_once, begun = 0, refused = 0, running = 0;
	char paths[MOST][PATH_MAX];
	pid_t pids[MOST] = {};
	int status;

	if (argc == 3)
		return workload(argv[2]);
	if (argc != 5)
		return 2;
	count = atol(argv[3]);
	at_once = atol(argv[4]);
	if (at_once > MOST)
		return 2;
	while (begun < count || running) {
		for (long i = 0; i < at_once && begun < count; i++) {
			if (pids[i])
				continue;
			snprintf(paths[i], PATH_MAX, "%s/%s%ld", argv[1], argv[2], begun);
			pids[i] = start(argv[0], paths[i], begun);
			if (pids[i] < 0) {
				perror(paths[i]);
				return 3;
			}
			begun++;
			running++;
		}
		pid_t ended = wait(&status);
		for (long i = 0; i < at_once; i++) {
			if (pids[i] != ended)
				continue;
			refused += WIFEXITED(status) && !WEXITSTATUS(status);
			/* The last task of a cgroup may be a moment in leaving it. */
			for (int tries = 0; rmdir(paths[i]) && errno == EBUSY && tries < 1000; tries++)
				usleep(1000);
			pids[i] = 0;
			running--;
		}
	}
	printf("%ld\n", refused);
	return 0;
}
