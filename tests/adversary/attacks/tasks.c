/* SPDX-License-Identifier: Apache-2.0 */
/* Processes of the host: signals, and a process of the host itself (victim). */
#include "adversary.h"
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

static int send_kill(pid_t pid, int number)
{
	return kill(pid, number);
}

static int send_group(pid_t pid, int number)
{
	return kill(-pid, number);
}

static int send_thread(pid_t pid, int number)
{
	return syscall(SYS_tgkill, pid, pid, number);
}

static int send_queue(pid_t pid, int number)
{
	union sigval value = { .sival_int = 1 };

	return sigqueue(pid, number, value);
}

static int send_pidfd(pid_t pid, int number)
{
	int fd = syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -1 : syscall(SYS_pidfd_send_signal, fd, number, NULL, 0);
}

static int send_32bit(pid_t pid, int number)
{
	return call_32bit(37, pid, number, 0);
}

/* The kernel sends the signal when the socket becomes ready. */
static int send_owner(pid_t pid, int number)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || fcntl(pair[0], F_SETOWN, pid) ||
	    fcntl(pair[0], F_SETSIG, number) || fcntl(pair[0], F_SETFL, O_ASYNC | O_NONBLOCK))
		return -1;
	return write(pair[1], "x", 1) == 1 ? 0 : -1;
}

static const struct {
	const char *name;
	int (*send)(pid_t pid, int number);
} ways[] = {
	{ "kill", send_kill },	 { "group", send_group }, { "thread", send_thread }, { "queue", send_queue },
	{ "pidfd", send_pidfd }, { "32bit", send_32bit }, { "owner", send_owner },
};

/* signal WAY PID [NUMBER]; PID 0 is a child of its own, which is benign. */
static int attack_signal(char **args)
{
	pid_t target = number(args, 1, 0);

	if (!target) {
		target = fork();
		need(target >= 0, "fork");
		if (!target)
			for (;;)
				pause();
		setpgid(target, target);
	}
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++)
		if (!strcmp(ways[i].name, word(args, 0, "kill")))
			return result(ways[i].send(target, number(args, 2, SIGUSR1)));
	return USAGE;
}

/* control WAY PID: changes what a process may use, or when it runs; PID 0 is the caller. */
static int attack_control(char **args)
{
	pid_t pid = number(args, 1, 0);
	struct rlimit few = { 3, 3 };
	struct sched_param param = { 0 };

	if (!strcmp(word(args, 0, ""), "limit"))
		return result(prlimit(pid, RLIMIT_NOFILE, &few, NULL));
	if (!strcmp(word(args, 0, ""), "schedule"))
		return result(sched_setscheduler(pid, SCHED_IDLE, &param));
	if (!strcmp(word(args, 0, ""), "nice"))
		return result(setpriority(PRIO_PROCESS, pid, 19));
	if (!strcmp(word(args, 0, ""), "nice_group"))
		return result(setpriority(PRIO_PGRP, pid ? getpgid(pid) : 0, 19));
	if (!strcmp(word(args, 0, ""), "io"))
		return result(syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, pid, 3 << 13 /* idle */));
	return USAGE;
}

/* lease PATH MILLISECONDS: others who open it wait. */
static int attack_lease(char **args)
{
	int fd = open(word(args, 0, "/tmp"), O_RDONLY);

	if (fd < 0 || signal(SIGIO, SIG_IGN) == SIG_ERR || fcntl(fd, F_SETLEASE, F_WRLCK))
		return result(-1);
	usleep(number(args, 1, 2000) * 1000);
	return result(0);
}

/*
 * victim SECRET: a process of the host that keeps the secret where a container could look for it.
 * Prints the addresses and the descriptor: "SHARED-END MEMFD-END PIPE MEMFD".
 */
__attribute__((noreturn)) static int attack_victim(char **args)
{
	const char *secret = word(args, 0, "x");
	int memory = memfd_create("code", 0), pipes[2];
	char *shared, *code;

	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	need(!ftruncate(memory, 4096) && shared != MAP_FAILED && !pipe(pipes), "memory");
	code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, memory, 0);
	need(code != MAP_FAILED, "executable memory");
	need(write(pipes[1], secret, strlen(secret)) > 0 && pwrite(memory, secret, strlen(secret), 0) > 0, "write");
	strcpy(shared, secret);
	setpgid(0, 0);
	printf("%lx-%lx %lx-%lx %d %d\n", (long)shared, (long)shared + 4096, (long)code, (long)code + 4096, pipes[0],
	       memory);
	fflush(stdout);
	for (;;)
		pause();
}

const struct attack task_attacks[] = {
	{ "signal", attack_signal },
	{ "control", attack_control },
	{ "lease", attack_lease },
	{ "victim", attack_victim },
	{ NULL, NULL },
};
