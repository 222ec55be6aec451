/* SPDX-License-Identifier: Apache-2.0 */
/* Calls on the kernel itself, with arguments that cannot have an effect. */
#include "attacks.h"
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <sys/klog.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/time.h>

/* The verifier refuses a program without instructions: only the call matters. */
static int attack_bpf(char **args)
{
	char attributes[128] = { 0 };

	try_now("bpf");
	return result(syscall(SYS_bpf, number(args, 0, 5 /* BPF_PROG_LOAD */), attributes, sizeof(attributes)));
}

static int attack_perf(char **args)
{
	struct perf_event_attr attributes = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attributes),
		.config = PERF_COUNT_SW_TASK_CLOCK,
		.disabled = 1,
	};

	try_now("perf_event_open");
	return result(syscall(SYS_perf_event_open, &attributes, number(args, 0, 0), -1, -1, 0));
}

static int attack_init_module(char **args)
{
	(void)args;
	try_now("init_module");
	return result(syscall(SYS_init_module, "", 0, ""));
}

static int attack_finit_module(char **args)
{
	(void)args;
	try_now("finit_module");
	return result(syscall(SYS_finit_module, -1, "", 0));
}

static int attack_delete_module(char **args)
{
	(void)args;
	try_now("delete_module");
	return result(syscall(SYS_delete_module, "rftest_no_such_module", O_NONBLOCK));
}

/* Unknown flags: refused before anything is loaded or unloaded. */
static int attack_kexec(char **args)
{
	(void)args;
	try_now("kexec_load");
	return result(syscall(SYS_kexec_load, 0, 0, NULL, 0x0fff));
}

static int attack_kexec_file(char **args)
{
	(void)args;
	try_now("kexec_file_load");
	return result(syscall(SYS_kexec_file_load, -1, -1, 0, NULL, 0x0fffUL));
}

/* reboot COMMAND: the magic numbers are wrong, so every command is refused. */
static int attack_reboot(char **args)
{
	try_now("reboot");
	return result(syscall(SYS_reboot, 0, 0, number(args, 0, 0), NULL));
}

static int attack_iopl(char **args)
{
	try_now("iopl");
	return result(syscall(SYS_iopl, number(args, 0, 3)));
}

/* ioperm ON: request port 0x80, or (0) release it. */
static int attack_ioperm(char **args)
{
	try_now("ioperm");
	return result(syscall(SYS_ioperm, 0x80, 1, number(args, 0, 1)));
}

/* syslog TYPE: 10 asks for the buffer's size, 3 reads it. */
static int attack_syslog(char **args)
{
	static char text[1024];

	try_now("syslog");
	return result(klogctl(number(args, 0, 3), text, sizeof(text)));
}

static int attack_swapon(char **args)
{
	(void)args;
	try_now("swapon");
	return result(syscall(SYS_swapon, "/tmp/no-such-file", 0));
}

/* Neither a time nor a time zone: nothing is set. */
static int attack_settime(char **args)
{
	(void)args;
	try_now("settimeofday");
	return result(syscall(SYS_settimeofday, NULL, NULL));
}

static int attack_acct(char **args)
{
	(void)args;
	try_now("acct");
	return result(syscall(SYS_acct, "/tmp/no-such-file"));
}

static int attack_userfaultfd(char **args)
{
	try_now("userfaultfd");
	return result(syscall(SYS_userfaultfd, number(args, 0, O_CLOEXEC)));
}

static int attack_io_uring(char **args)
{
	char parameters[120] = { 0 };

	(void)args;
	try_now("io_uring_setup");
	return result(syscall(SYS_io_uring_setup, 1, parameters));
}

/* A classic BPF program of one instruction on an own socket: benign, and not bpf(2). */
static int attack_filter(char **args)
{
	struct sock_filter all = { .code = BPF_RET | BPF_K, .k = 0xffff };
	struct sock_fprog program = { .len = 1, .filter = &all };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)args;
	need(fd >= 0, "a socket");
	try_now("setsockopt");
	return result(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
}

/* keyctl OPERATION: 0 asks for the session keyring's number. */
static int attack_keyctl(char **args)
{
	try_now("keyctl");
	return result(syscall(SYS_keyctl, number(args, 0, 0), -3 /* session */, 0, 0, 0));
}

static int attack_add_key(char **args)
{
	(void)args;
	try_now("add_key");
	return result(syscall(SYS_add_key, "user", "rftest", "x", 1, -2 /* process keyring */));
}

static int attack_personality(char **args)
{
	try_now("personality");
	return result(personality(number(args, 0, ADDR_NO_RANDOMIZE)));
}

static int attack_sethostname(char **args)
{
	const char *name = word(args, 0, "rftest");

	try_now("sethostname");
	return result(sethostname(name, strlen(name)));
}

const struct attack kernel_attacks[] = {
	{ "bpf", attack_bpf, "bpf(COMMAND) with empty attributes" },
	{ "perf", attack_perf, "perf_event_open of PID" },
	{ "init_module", attack_init_module, "load an empty module" },
	{ "finit_module", attack_finit_module, "load a module from no file" },
	{ "delete_module", attack_delete_module, "unload a module that is not there" },
	{ "kexec", attack_kexec, "kexec_load with impossible flags" },
	{ "kexec_file", attack_kexec_file, "kexec_file_load with impossible flags" },
	{ "reboot", attack_reboot, "reboot COMMAND with wrong magic numbers" },
	{ "iopl", attack_iopl, "iopl LEVEL" },
	{ "ioperm", attack_ioperm, "ask for I/O port 0x80, or (0) give it back" },
	{ "syslog", attack_syslog, "read the kernel's log (TYPE 3)" },
	{ "swapon", attack_swapon, "swap to a file that is not there" },
	{ "settime", attack_settime, "set a clock to nothing" },
	{ "acct", attack_acct, "account to a file that is not there" },
	{ "userfaultfd", attack_userfaultfd, "a userfaultfd with FLAGS" },
	{ "io_uring", attack_io_uring, "a ring of one entry" },
	{ "filter", attack_filter, "a filter on a socket of our own" },
	{ "keyctl", attack_keyctl, "keyctl OPERATION on our session keyring" },
	{ "add_key", attack_add_key, "a key in our process keyring" },
	{ "personality", attack_personality, "set a PERSONA" },
	{ "sethostname", attack_sethostname, "name our own UTS namespace" },
	{ NULL, NULL, NULL },
};
