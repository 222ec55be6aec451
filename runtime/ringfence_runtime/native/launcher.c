/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The executable that `ringfence-runtime install` compiles if the host has a C compiler.
 *
 * It starts the interpreter once: isolated, without site, from a private read-only mount (see
 * seal.py: CVE-2019-5736), with one file that contains all modules. Without it Python would start
 * twice, the first time only to find that it is not sealed. The installer defines PYTHON and
 * BUNDLE.
 *
 * If a warm launcher listens (launcher/), this program sends foreground `run` and `exec` commands
 * to it: arguments, environment, directory and standard descriptors in one message. It executes
 * all other commands here, and those that the launcher does not take: an engine must be the
 * ancestor of the containers that it detaches.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef LAUNCHER
#define LAUNCHER "/run/ringfence/launcher.sock"
#endif

/* These numbers are the same on every architecture. An older C library has no names for them. */
#define NR_open_tree 428
#define NR_mount_setattr 442
#define CLONE_TREE 1
#define ATTR_RDONLY 1
#define EMPTY_PATH 0x1000
#define MOST_BYTES 131072

struct attributes {
	uint64_t set, clear, propagation, userns;
};

static volatile pid_t worker;

/*
 * Returns only if the kernel or the caller's rights do not allow it. seal.py then tries again and
 * reports the reason.
 */
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

static int starts(const char *word, const char *with)
{
	return strncmp(word, with, strlen(with)) == 0;
}

/* Returns true if the word may name a descriptor of this process, as `<(...)` of a shell does. */
static int names_descriptor(const char *word)
{
	return strstr(word, "/dev/fd") || strstr(word, "/dev/std") || strstr(word, "/proc/self") ||
	       strstr(word, "/proc/thread-self");
}

/*
 * Returns true if the launcher may execute it: a foreground command that passes no descriptor
 * except the three.
 */
static int suits_launcher(int count, char **words)
{
	static const char *const valued[] = { "--root", "--log", "--log-format", "--log-level", "--cgroup-manager" };
	int at = 1;

	for (; at < count && words[at][0] == '-'; at++)
		for (size_t i = 0; i < sizeof(valued) / sizeof(*valued); i++)
			if (strcmp(words[at], valued[i]) == 0) {
				at++;
				break;
			}
	if (at >= count || (strcmp(words[at], "run") != 0 && strcmp(words[at], "exec") != 0))
		return 0;
	for (at++; at < count; at++)
		if (starts(words[at], "--detach") || starts(words[at], "-d") || starts(words[at], "--preserve-fds") ||
		    starts(words[at], "--console-socket") || names_descriptor(words[at]))
			return 0;
	return !getenv("LISTEN_FDS");
}

/*
 * Writes the request as NUL-terminated words: directory, umask, number of arguments, arguments,
 * environment.
 */
static size_t compose(char *data, int count, char **words)
{
	mode_t mask = umask(022);
	size_t used = 0;

	umask(mask);
	if (!getcwd(data, 4096))
		return 0;
	used = strlen(data) + 1;
	used += (size_t)snprintf(data + used, 64, "%o", (unsigned)mask) + 1;
	used += (size_t)snprintf(data + used, 64, "%d", count - 1) + 1;
	for (char **list = words + 1; list; list = list == environ ? NULL : environ)
		for (char **word = list; *word; word++) {
			size_t size = strlen(*word) + 1;

			if (used + size > MOST_BYTES)
				return 0;
			memcpy(data + used, *word, size);
			used += size;
			if (list != environ && word + 1 == words + count)
				break;
		}
	return used;
}

static void pass_on(int number)
{
	if (worker > 0)
		kill(worker, number);
}

static const int passed[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM };

static void hold_signals(int how)
{
	sigset_t held;

	sigemptyset(&held);
	for (size_t i = 0; i < sizeof(passed) / sizeof(*passed); i++)
		sigaddset(&held, passed[i]);
	sigprocmask(how, &held, NULL);
}

static void pass_signals_on(void)
{
	struct sigaction action = { .sa_handler = pass_on, .sa_flags = SA_RESTART };

	for (size_t i = 0; i < sizeof(passed) / sizeof(*passed); i++)
		sigaction(passed[i], &action, NULL);
	hold_signals(SIG_UNBLOCK);
}

static int hand_over(int sock, char *data, size_t size)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(3 * sizeof(int))];
	} control = { 0 };
	struct iovec part = { .iov_base = data, .iov_len = size };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	int three[3] = { 0, 1, 2 };

	control.header.cmsg_len = CMSG_LEN(sizeof(three));
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(&control.header), three, sizeof(three));
	return sendmsg(sock, &message, MSG_NOSIGNAL) == (ssize_t)size;
}

/* The answers of the launcher: see launcher/protocol.py. */
enum { NOT_TAKEN, RUNNING, ENDED };

/*
 * Returns the exit code, or -1 if the launcher did nothing and this process must execute the
 * command.
 */
static int listen_to(int sock)
{
	int32_t answer[2];
	int begun = 0;

	while (recv(sock, answer, sizeof(answer), 0) == sizeof(answer)) {
		if (answer[0] == ENDED)
			return answer[1];
		if (answer[0] != RUNNING)
			return begun ? 1 : -1;
		worker = answer[1];
		if (!begun)
			pass_signals_on();
		begun = 1;
	}
	/*
	 * A command that began and has no exit code has failed. It must not be executed a second
	 * time.
	 */
	return begun ? 1 : -1;
}

static int ask_launcher(int count, char **words)
{
	static char data[MOST_BYTES + 256];
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = LAUNCHER };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int code = -1;
	size_t size;

	if (sock < 0)
		return -1;
	if (connect(sock, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	    (size = compose(data, count, words)) != 0) {
		/* Signals stay blocked until the process that receives them is known. */
		hold_signals(SIG_BLOCK);
		if (hand_over(sock, data, size))
			code = listen_to(sock);
		hold_signals(SIG_UNBLOCK);
	}
	close(sock);
	return code;
}

/*
 * A closed standard descriptor would be reused by the next open, and the workload would get that
 * file as its stream.
 */
static void fill_standard(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			(void)!open("/dev/null", O_RDWR);
}

int main(int count, char **words)
{
	char **arguments = calloc((size_t)count + 3, sizeof(char *));

	if (!arguments)
		return 1;
	fill_standard();
	if (suits_launcher(count, words)) {
		int code = ask_launcher(count, words);

		if (code >= 0)
			return code;
	}
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
