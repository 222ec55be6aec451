/* SPDX-License-Identifier: Apache-2.0 */
/* Namespaces, credentials, other processes, programs that are not in the image. */
#include "attacks.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

static int attack_unshare(char **args)
{
	try_now("unshare");
	return result(unshare(number(args, 0, CLONE_NEWUSER)));
}

/* unshare32 FLAGS: by the number that 32-bit programs use. */
static int attack_unshare32(char **args)
{
	try_now("unshare");
	return result(call_32bit(310, number(args, 0, CLONE_FS), 0, 0));
}

static int finish(pid_t child)
{
	if (child > 0)
		waitpid(child, NULL, 0);
	return result(child);
}

static int attack_clone(char **args)
{
	long flags = number(args, 0, CLONE_NEWUSER);
	pid_t child;

	try_now("clone");
	child = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
	if (!child)
		_exit(0);
	return finish(child);
}

static int attack_clone3(char **args)
{
	struct {
		unsigned long long flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
	} how = { .flags = number(args, 0, CLONE_NEWUSER), .exit_signal = SIGCHLD };
	pid_t child;

	try_now("clone3");
	child = syscall(SYS_clone3, &how, sizeof(how));
	if (!child)
		_exit(0);
	return finish(child);
}

/* setns PATH [NSTYPE]: enter the namespace of this file. */
static int attack_setns(char **args)
{
	int fd = open(word(args, 0, "/proc/self/ns/uts"), O_RDONLY | O_CLOEXEC);

	need(fd >= 0, "the namespace's file");
	try_now("setns");
	return result(setns(fd, number(args, 1, 0)));
}

/* setns_pidfd PID NSTYPE: the same by a pidfd; 0 is the own process. */
static int attack_setns_pidfd(char **args)
{
	int target = number(args, 0, 0), fd = syscall(SYS_pidfd_open, target ? target : getpid(), 0);

	need(fd >= 0, "pidfd_open");
	try_now("setns");
	return result(setns(fd, number(args, 1, CLONE_NEWUTS)));
}

static pid_t own_child(void)
{
	pid_t child = fork();

	if (!child)
		for (;;)
			pause();
	need(child > 0, "fork");
	return child;
}

/* ptrace [PID]: attach and detach; without PID to an own child, which is benign. */
static int attack_ptrace(char **args)
{
	pid_t own = args[0] ? 0 : own_child(), target = own ? own : number(args, 0, 0);
	int status;

	try_now("ptrace");
	status = result(ptrace(PTRACE_SEIZE, target, NULL, NULL));
	if (own) {
		kill(own, SIGKILL);
		waitpid(own, NULL, 0);
	}
	return status;
}

/* process_vm PID: read a byte of its memory at an unmapped address. */
static int attack_process_vm(char **args)
{
	char byte;
	struct iovec ours = { &byte, 1 }, theirs = { (void *)1, 1 };

	try_now("process_vm_readv");
	return result(process_vm_readv(number(args, 0, getpid()), &ours, 1, &theirs, 1, 0));
}

/* getfd PID FD: copy a descriptor of another process. */
static int attack_getfd(char **args)
{
	int pidfd = syscall(SYS_pidfd_open, number(args, 0, getpid()), 0);

	need(pidfd >= 0, "pidfd_open");
	try_now("pidfd_getfd");
	return result(syscall(SYS_pidfd_getfd, pidfd, number(args, 1, 0), 0));
}

/* kcmp PID: compare an address space with another process's. */
static int attack_kcmp(char **args)
{
	try_now("kcmp");
	return result(syscall(SYS_kcmp, getpid(), number(args, 0, getpid()), 1 /* KCMP_VM */, 0, 0));
}

/* kill PID SIGNAL: 28 (SIGWINCH) is ignored by default; 0 is an own child. */
static int attack_kill(char **args)
{
	pid_t own = number(args, 0, 0) ? 0 : own_child();
	int status;

	try_now("kill");
	status = result(kill(own ? own : number(args, 0, 0), number(args, 1, SIGWINCH)));
	if (own) {
		kill(own, SIGKILL);
		waitpid(own, NULL, 0);
	}
	return status;
}

/* kill_pidfd PID SIGNAL: the same by the directory of /proc/PID, which serves as a pidfd. */
static int attack_kill_pidfd(char **args)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%ld", number(args, 0, getpid()));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	need(fd >= 0, path);
	try_now("pidfd_send_signal");
	return result(syscall(SYS_pidfd_send_signal, fd, number(args, 1, SIGWINCH), NULL, 0));
}

/* read_of PID FILE: read a file of /proc/PID. */
static int attack_read_of(char **args)
{
	char path[128], text[512];
	int fd;

	snprintf(path, sizeof(path), "/proc/%ld/%s", number(args, 0, getpid()), word(args, 1, "stat"));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	need(fd >= 0, path);
	try_now("read");
	return result(read(fd, text, sizeof(text)));
}

/* held PID BEGINNING: open the descriptor of PID whose link begins so; 0: of this process, which holds them. */
static int attack_held(char **args)
{
	long pid = number(args, 0, 0);
	char path[64], link[256];
	int both[2], fd;

	need(pid || (memfd_create("rftest", 0) >= 0 && !pipe(both)), "a memfd and a pipe");
	for (fd = 0; fd < 256; fd++) {
		snprintf(path, sizeof(path), "/proc/%ld/fd/%d", pid ? pid : getpid(), fd);
		memset(link, 0, sizeof(link));
		if (readlink(path, link, sizeof(link) - 1) > 0 && !strncmp(link, args[1], strlen(args[1])))
			break;
	}
	need(fd < 256, "such a descriptor");
	try_now("openat");
	return result(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

/* leave FILE|DESCRIPTOR: move this process to the cgroup of this cgroup.procs. */
static int attack_leave(char **args)
{
	const char *file = word(args, 0, "/leave/cgroup.procs");
	int fd = *file == '/' ? open(file, O_WRONLY | O_CLOEXEC) : atoi(file);

	need(fd >= 0, "the other cgroup");
	try_now("write");
	if (result(write(fd, "0", 1)))
		return ERROR;
	/* A call that a policy can match, to check that the process is still tracked. */
	return result(unshare(number(args, 1, CLONE_FS)));
}

/* memfd PROGRAM: run a copy of a program from memory. */
static int attack_memfd(char **args)
{
	char *const argv[] = { "true", NULL }, *const env[] = { NULL };
	int from = open(word(args, 0, "/bin/busybox"), O_RDONLY | O_CLOEXEC);
	int memory = memfd_create("program", MFD_CLOEXEC);
	char block[1 << 16];
	ssize_t length;

	need(from >= 0 && memory >= 0, "a copy in memory");
	while ((length = read(from, block, sizeof(block))) > 0)
		need(write(memory, block, length) == length, "write");
	try_now("execveat");
	fexecve(memory, argv, env);
	return result(-1);
}

/*
 * drop [WORD...]: run a copy of this program that the image did not have, as `attacks WORD...`; without words as
 * a program that does nothing.
 */
static int attack_drop(char **args)
{
	static char *const nothing[] = { "true", NULL };
	char *words[16] = { "attacks" };
	const char *where = "/root/dropped";
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to, count = 1;
	char block[1 << 16];
	ssize_t length;

	unlink(where);
	to = open(where, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0755);
	need(from >= 0 && to >= 0, "a copy");
	while ((length = read(from, block, sizeof(block))) > 0)
		need(write(to, block, length) == length, "write");
	close(to);
	while (*args && count < 15)
		words[count++] = *args++;
	if (count == 1)
		try_now("execve");
	execv(where, count == 1 ? nothing : words);
	return result(-1);
}

/* memfd_create only: benign. */
static int attack_memfd_create(char **args)
{
	(void)args;
	try_now("memfd_create");
	return result(memfd_create("buffer", MFD_CLOEXEC));
}

/* run PROGRAM [ARG...]: plain execve. */
static int attack_run(char **args)
{
	need(args[0] != NULL, "a program");
	try_now("execve");
	execv(args[0], args);
	return result(-1);
}

/* capset: set the current capabilities. */
static int attack_capset(char **args)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	(void)args;
	need(!syscall(SYS_capget, &header, data), "capget");
	try_now("capset");
	return result(syscall(SYS_capset, &header, data));
}

static int attack_setuid(char **args)
{
	try_now("setuid");
	return result(setuid(number(args, 0, 1000)));
}

static int attack_setgid(char **args)
{
	try_now("setgid");
	return result(setgid(number(args, 0, 1000)));
}

/* seccomp OPERATION: 2 queries if an action is supported. */
static int attack_seccomp(char **args)
{
	unsigned int action = SECCOMP_RET_KILL_PROCESS;

	try_now("seccomp");
	return result(syscall(SYS_seccomp, number(args, 0, SECCOMP_GET_ACTION_AVAIL), 0, &action));
}

/* bomb N [MILLISECONDS]: N idle children, as far as the limit permits. */
static int attack_bomb(char **args)
{
	long wanted = number(args, 0, 16), made = 0;
	pid_t leader = 0;

	try_now("fork");
	for (; made < wanted; made++) {
		pid_t child = fork();

		if (!child) {
			setpgid(0, leader);
			pause();
		}
		if (child < 0)
			break;
		leader = leader ? leader : child;
		setpgid(child, leader);
	}
	usleep(number(args, 1, 0) * 1000);
	if (leader)
		kill(-leader, SIGKILL);
	while (wait(NULL) > 0)
		;
	return result(made);
}

/* sweep: many kinds of calls, each in its own process, like an intruder that looks for an escape. */
static int attack_sweep(char **args)
{
	long calls = number(args, 0, 8);

	try_now("sweep");
	for (long n = 0; n < calls; n++) {
		pid_t child = fork();

		if (!child) {
			switch (n % 8) {
			case 0:
				_exit(unshare(CLONE_NEWUSER) < 0);
			case 1:
				_exit(syscall(SYS_bpf, 5, NULL, 0) < 0);
			case 2:
				_exit(syscall(SYS_finit_module, -1, "", 0) < 0);
			case 3:
				_exit(syscall(SYS_kexec_load, 0, 0, NULL, 0x0fff) < 0);
			case 4:
				_exit(syscall(SYS_fsopen, "proc", 0) < 0);
			case 5:
				_exit(syscall(SYS_ioperm, 0x80, 1, 1) < 0);
			case 6:
				_exit(syscall(SYS_userfaultfd, 0) < 0);
			default:
				_exit(syscall(SYS_pivot_root, "/tmp", "/tmp") < 0);
			}
		}
		need(child > 0, "fork");
		waitpid(child, NULL, 0);
	}
	return result(0);
}

const struct attack task_attacks[] = {
	{ "bomb", attack_bomb, "N children at once, for MILLISECONDS" },
	{ "sweep", attack_sweep, "N calls that look for a way out" },
	{ "unshare", attack_unshare, "unshare FLAGS (default: a user namespace)" },
	{ "unshare32", attack_unshare32, "the same by the 32-bit table" },
	{ "clone", attack_clone, "clone FLAGS" },
	{ "clone3", attack_clone3, "clone3 FLAGS" },
	{ "setns", attack_setns, "enter the namespace of FILE [NSTYPE]" },
	{ "setns_pidfd", attack_setns_pidfd, "enter a namespace of PID by a pidfd [NSTYPE]" },
	{ "ptrace", attack_ptrace, "seize PID, or a child of our own" },
	{ "process_vm", attack_process_vm, "read PID's memory where there is none" },
	{ "getfd", attack_getfd, "copy descriptor FD of PID" },
	{ "kcmp", attack_kcmp, "compare our address space with PID's" },
	{ "kill", attack_kill, "send PID a SIGNAL; 0: a child of our own" },
	{ "kill_pidfd", attack_kill_pidfd, "send PID a SIGNAL by its /proc/PID" },
	{ "read_of", attack_read_of, "read FILE of /proc/PID" },
	{ "held", attack_held, "open a descriptor of PID whose link begins with WORD" },
	{ "leave", attack_leave, "move to the cgroup of FILE" },
	{ "memfd", attack_memfd, "run a copy of PROGRAM from memory" },
	{ "drop", attack_drop, "run a new copy of ourselves as `attacks WORD...`" },
	{ "memfd_create", attack_memfd_create, "memory without a name, not run" },
	{ "run", attack_run, "execute PROGRAM [ARG...]" },
	{ "capset", attack_capset, "set the capabilities that we have" },
	{ "setuid", attack_setuid, "become user UID" },
	{ "setgid", attack_setgid, "become group GID" },
	{ "seccomp", attack_seccomp, "ask seccomp for OPERATION" },
	{ NULL, NULL, NULL },
};
