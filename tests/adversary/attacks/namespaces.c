/* SPDX-License-Identifier: Apache-2.0 */
/* Entering namespaces that are not the container's. */
#include "adversary.h"

static int open_namespace(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	need(fd >= 0, "the namespace's file");
	return fd;
}

/* enter PATH [TYPE]: a process stays there. */
static int attack_enter(char **args)
{
	if (setns(open_namespace(word(args, 0, "/proc/self/ns/uts")), number(args, 1, 0)))
		return result(-1);
	linger();
	return result(0);
}

/* enter_pidfd PID TYPE */
static int attack_enter_pidfd(char **args)
{
	int fd = syscall(SYS_pidfd_open, number(args, 0, getpid()), 0);

	need(fd >= 0, "pidfd_open");
	if (setns(fd, number(args, 1, CLONE_NEWUTS)))
		return result(-1);
	linger();
	return result(0);
}

/* enter_32bit PATH [TYPE] */
static int attack_enter_32bit(char **args)
{
	need_32bit();
	if (call_32bit(346, open_namespace(word(args, 0, "/proc/self/ns/uts")), number(args, 1, 0), 0))
		return result(-1);
	linger();
	return result(0);
}

/* enter_run PATH WORD...: enters, and makes another attempt from there. */
static int attack_enter_run(char **args)
{
	if (setns(open_namespace(word(args, 0, "/proc/self/ns/uts")), 0))
		return result(-1);
	return run(args + 1);
}

/* userns: a new user namespace, in which a process stays: is any rule in force? */
static int attack_userns(char **args)
{
	(void)args;
	if (unshare(CLONE_NEWUSER))
		return result(-1);
	linger();
	return result(0);
}

const struct attack namespace_attacks[] = {
	{ "enter", attack_enter },	   { "enter_pidfd", attack_enter_pidfd }, { "enter_32bit", attack_enter_32bit },
	{ "enter_run", attack_enter_run }, { "userns", attack_userns },		  { NULL, NULL },
};
