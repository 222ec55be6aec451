/* SPDX-License-Identifier: Apache-2.0 */
/* A hammer: threads keep the deciding programs busy while another tries. */
#include "adversary.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

/* Calls that rules watch, and that none forbids. */
static void busy_once(unsigned int turn)
{
	struct sockaddr_un nowhere = { .sun_family = AF_UNIX, .sun_path = "/tmp/nowhere" };
	struct sockaddr_in closed = { .sin_family = AF_INET, .sin_port = htons(9) };
	int fd;

	switch (turn % 7) {
	case 0:
		fd = open("/proc/self/status", O_RDONLY);
		close(fd);
		break;
	case 1:
		unshare(0);
		break;
	case 2:
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		connect(fd, (void *)&nowhere, sizeof(nowhere));
		close(fd);
		break;
	case 3:
		fd = open("/proc/sys/kernel/ostype", O_RDONLY);
		if (fd >= 0 && read(fd, &nowhere, sizeof(nowhere)) < 0)
			break;
		close(fd);
		break;
	case 4:
		closed.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		fd = socket(AF_INET, SOCK_DGRAM, 0);
		connect(fd, (void *)&closed, sizeof(closed));
		close(fd);
		break;
	case 5:
		fd = open("/proc/self/ns/uts", O_RDONLY);
		setns(fd, CLONE_NEWUTS);
		close(fd);
		break;
	default:
		mount(NULL, "/", NULL, MS_PRIVATE, NULL);
	}
}

/* Keeps the calling thread on one CPU. -1: on none. */
static void stay_on(long cpu)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	CPU_ZERO(&set);
	for (long i = 0; i < cpus; i++)
		if (cpu < 0 || i == cpu % cpus)
			CPU_SET(i, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/*
 * Every other thread stays on a CPU. All have a different priority. One of four is of the real-time
 * class, if it may be: it preempts the others whenever it wakes up.
 */
__attribute__((noreturn)) static void *keep_busy(void *which)
{
	const struct sched_param first = { .sched_priority = 1 };
	unsigned int turn = (unsigned long)which;
	int pauses;

	if (turn % 2)
		stay_on(turn / 2);
	setpriority(PRIO_PROCESS, syscall(SYS_gettid), turn * 5 % 20);
	pauses = turn % 4 == 3 && !sched_setscheduler(0, SCHED_FIFO, &first);
	for (;;) {
		busy_once(turn++);
		if (pauses && turn % 16 == 0)
			usleep(200);
	}
}

static int try_open(void)
{
	int fd = open("/proc/kpagecount", O_RDONLY);

	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

static int try_userns(void)
{
	return unshare(CLONE_NEWUSER);
}

static int try_mount(void)
{
	int failed = mount("none", "/tmp", "tmpfs", 0, NULL);

	if (!failed)
		umount2("/tmp", MNT_DETACH);
	return failed;
}

static int try_enter(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/proc/1/ns/uts", O_RDONLY);
	return setns(fd, CLONE_NEWUTS);
}

/* Anything but EPERM was let through: there may be no route. */
static int try_connect(void)
{
	struct sockaddr_in where = { .sin_family = AF_INET, .sin_port = htons(80) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0), failed;

	where.sin_addr.s_addr = inet_addr("169.254.169.254");
	failed = connect(fd, (void *)&where, sizeof(where)) && errno == EPERM;
	close(fd);
	return failed ? -1 : 0;
}

static const struct {
	const char *name;
	int (*run)(void);
} tries[] = {
	{ "open", try_open },	{ "userns", try_userns },   { "mount", try_mount },
	{ "enter", try_enter }, { "connect", try_connect },
};

struct counts {
	volatile long tried, through, answered, killed;
};

/* Waits for a child that tries, and counts it if it was killed. */
static void reap(pid_t child, struct counts *counts)
{
	int status;

	if (waitpid(child, &status, 0) == child && WIFSIGNALED(status))
		counts->killed++;
}

static int report(const struct counts *counts)
{
	printf("tried %ld through %ld answered %ld killed %ld\n", counts->tried, counts->through, counts->answered,
	       counts->killed);
	return result(0);
}

#define TURN 500 /* tries on one CPU, then without a place */

/* Tries until it is killed or has done its share; each answer reaches the shared counts. */
static void try_until(int (*attempt)(void), struct counts *counts, long most, long long end)
{
	long place = -1;

	while (counts->tried < most && now_ms() < end) {
		long turn = __sync_fetch_and_add(&counts->tried, 1) / TURN;

		if (turn != place)
			stay_on(turn % 2 ? turn / 2 : -1);
		place = turn;
		if (!attempt())
			__sync_fetch_and_add(&counts->through, 1);
		__sync_fetch_and_add(&counts->answered, 1);
	}
}

/* hammer WHAT TRIES THREADS MILLISECONDS: prints "tried N through N answered N killed N". */
static int attack_hammer(char **args)
{
	struct counts *counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long most = number(args, 1, 1000), threads = number(args, 2, 4);
	long long end = now_ms() + number(args, 3, 10000);
	int (*attempt)(void) = NULL;
	pid_t busy, child;
	pthread_t thread;

	need(counts != MAP_FAILED, "memory");
	for (size_t i = 0; i < sizeof(tries) / sizeof(*tries); i++)
		if (!strcmp(tries[i].name, word(args, 0, "open")))
			attempt = tries[i].run;
	need(attempt != NULL, "a kind of try");
	busy = fork();
	need(busy >= 0, "fork");
	if (!busy) {
		for (long i = 0; i < threads; i++)
			pthread_create(&thread, NULL, keep_busy, (void *)i);
		for (;;)
			pause();
	}
	while (counts->tried < most && now_ms() < end) {
		child = fork();
		if (child < 0)
			break;
		if (!child) {
			try_until(attempt, counts, most, end);
			_exit(0);
		}
		reap(child, counts);
	}
	kill(busy, SIGKILL);
	waitpid(busy, NULL, 0);
	return report(counts);
}

/* children N MILLISECONDS: each of N children looks if rules apply to it. Prints how many they do not. */
static int attack_children(char **args)
{
	struct counts *counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long most = number(args, 0, 1000);
	long long end = now_ms() + number(args, 1, 20000);

	need(counts != MAP_FAILED, "memory");
	while (counts->tried < most && now_ms() < end) {
		pid_t child = fork();

		if (child < 0) {
			usleep(1000); /* refused for lack of memory: that is what should happen */
			counts->tried++;
			continue;
		}
		if (!child) {
			try_until(try_userns, counts, counts->tried + 1, end);
			_exit(0);
		}
		reap(child, counts);
	}
	return report(counts);
}

const struct attack hammer_attacks[] = {
	{ "hammer", attack_hammer },
	{ "children", attack_children },
	{ NULL, NULL },
};
