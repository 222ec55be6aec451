/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's init until it executes the workload: the native interpreter of a launch.
 *
 * It knows nothing of containers. It inherits a channel as descriptor 3 and receives a program
 * over it: a list of system calls with their arguments, the checks between them, and the
 * descriptors that they need. It executes the list in order. Python decides what the list is
 * (launch/operations/ and launch/program.py). The native init only saves the fork of a Python
 * interpreter, which copies the memory of the parent page by page. If anything happens that the
 * list does not cover, the init sends FALLBACK before any part of the workload has run. The
 * runtime then ends this process and starts the Python init (launch/child.py), which handles the
 * case or reports the error.
 *
 * The message has the layout of program.py; tests/runtime/test_program.py compares the two.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interpreter.h"

#define NR_clone3 435 /* an older C library does not name it */

/*
 * Python ignores SIGPIPE and SIGXFSZ, the caller of the runtime may ignore others, and execve
 * keeps ignored signals ignored. sigaction() cannot be used: the C library refuses the signals
 * that it reserves.
 */
static void reset_signals(void)
{
	static const unsigned long standard[4]; /* the kernel's struct sigaction: SIG_DFL, no flags, empty mask */
	sigset_t none;

	for (int number = 1; number < 65; number++)
		syscall(SYS_rt_sigaction, number, standard, NULL, 8);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Receives the message: header, instructions, offsets of pointers within the data, the data. */
static struct instruction *receive(struct header *header)
{
	static union {
		char bytes[MOST_BYTES];
		uint64_t alignment;
	} message;
	static union {
		struct cmsghdr header;
		char space[CMSG_SPACE(MOST_FDS * sizeof(int))];
	} control;
	struct iovec part = { .iov_base = message.bytes, .iov_len = sizeof(message) };
	struct msghdr whole = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	ssize_t size = recvmsg(CHANNEL, &whole, MSG_CMSG_CLOEXEC);
	struct cmsghdr *rights = CMSG_FIRSTHDR(&whole);
	uint32_t *pointers;

	if (size <= 0)
		_exit(1); /* the runtime has ended */
	must((size_t)size >= sizeof(*header) && !(whole.msg_flags & (MSG_TRUNC | MSG_CTRUNC)));
	memcpy(header, message.bytes, sizeof(*header));
	must(header->magic == MAGIC && header->fds <= MOST_FDS && header->data < MOST_BYTES &&
	     header->instructions < MOST_BYTES / sizeof(struct instruction) &&
	     header->pointers < MOST_BYTES / sizeof(uint32_t));
	must((size_t)size == sizeof(*header) + header->instructions * sizeof(struct instruction) +
				     header->pointers * sizeof(uint32_t) + header->data);
	must(!header->fds || (rights && rights->cmsg_len == CMSG_LEN(header->fds * sizeof(int))));
	if (header->fds)
		memcpy(slots, CMSG_DATA(rights), header->fds * sizeof(int));
	pointers = (uint32_t *)(message.bytes + sizeof(*header) + header->instructions * sizeof(struct instruction));
	data = (char *)(pointers + header->pointers);
	for (uint32_t i = 0; i < header->pointers; i++) {
		uint64_t value;

		must(pointers[i] + sizeof(value) <= header->data);
		memcpy(&value, data + pointers[i], sizeof(value));
		value += (uint64_t)(uintptr_t)data;
		memcpy(data + pointers[i], &value, sizeof(value));
	}
	return (struct instruction *)(message.bytes + sizeof(*header));
}

static void be_init(void)
{
	struct header header;
	struct instruction *list;

	setsid();
	list = receive(&header);
	for (uint32_t at = 0; at < header.instructions; at++)
		at += perform(&list[at]);
	fall_back(); /* the last instruction executes the workload */
}

/* struct clone_args of linux/sched.h, with the members of Linux 5.7. */
struct clone_arguments {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size,
		cgroup;
};

/* Creates an init as a child of the launcher. Returns its process id, or a negative error. */
static int32_t clone_init(uint64_t flags, const int *fds, int count)
{
	struct clone_arguments arguments = { .flags = flags | CLONE_PARENT };
	long pid;

	if (count > 1) {
		arguments.flags |= 0x200000000ULL; /* CLONE_INTO_CGROUP */
		arguments.cgroup = (uint64_t)fds[1];
	}
	pid = syscall(NR_clone3, &arguments, sizeof(arguments));
	if (pid == 0) {
		dup2(fds[0], CHANNEL);
		for (int i = 0; i < count; i++)
			close(fds[i]);
		be_init();
	}
	return pid < 0 ? -errno : (int32_t)pid;
}

/*
 * For the warm launcher: creates inits on request. A fork of this small process is cheap; a fork
 * of the launcher's interpreter copies a few thousand pages. Each request contains the flags of
 * clone3, with the channel of the new init and, on a host with cgroup version 2, its cgroup as
 * descriptors.
 */
static void be_spawner(void)
{
	for (;;) {
		uint64_t flags;
		int fds[2];
		union {
			struct cmsghdr header;
			char space[CMSG_SPACE(sizeof(fds))];
		} control;
		struct iovec part = { .iov_base = &flags, .iov_len = sizeof(flags) };
		struct msghdr whole = {
			.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
		};
		struct cmsghdr *rights;
		int count;
		int32_t answer = -EBADMSG;

		if (recvmsg(CHANNEL, &whole, MSG_CMSG_CLOEXEC) <= 0)
			_exit(0); /* the launcher has ended */
		rights = CMSG_FIRSTHDR(&whole);
		count = rights ? (int)((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
		if (count > 0) {
			memcpy(fds, CMSG_DATA(rights), (size_t)count * sizeof(int));
			answer = clone_init(flags, fds, count);
		}
		for (int i = 0; i < count; i++)
			close(fds[i]);
		if (send(CHANNEL, &answer, sizeof(answer), MSG_NOSIGNAL) != sizeof(answer))
			_exit(1);
	}
}

int main(int count, char **words)
{
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	reset_signals();
	if (count > 1 && strcmp(words[1], "spawner") == 0)
		be_spawner();
	be_init();
}
