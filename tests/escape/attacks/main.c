/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attacks NAME [ARG...]: run one attack, or with no NAME list them.
 * attacks serve: run the attacks from standard input, one per line.
 * attacks narrow 32|x32: 0 if the kernel serves calls of that ABI, 1 if it refuses them.
 * attacks time N NAME [ARG...]: repeat N times; print the shortest call in nanoseconds.
 * Named true, pwd, cat or sleep it acts as that program: a container needs no other.
 */
#include "attacks.h"
#include <sys/wait.h>
#include <time.h>

static const struct attack *const tables[] = {
	mount_attacks, file_attacks, kernel_attacks, task_attacks, net_attacks, fuse_attacks, node_attacks,
};

/* For `time`: the start of the call, the shortest so far. */
static long long began, shortest = -1;
static int timing;

static long long monotonic(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

void try_now(const char *call)
{
	struct timespec now;
	char line[128];
	int length;

	if (timing) {
		began = monotonic();
		return;
	}
	clock_gettime(CLOCK_BOOTTIME, &now);
	length = snprintf(line, sizeof(line), "call %s at %lld\n", call, now.tv_sec * 1000000000LL + now.tv_nsec);
	/* Unbuffered: a killed process does not flush. */
	if (write(1, line, length) != length)
		exit(SETUP);
}

int result(long value)
{
	int error = errno;

	if (timing) {
		long long took = monotonic() - began;

		shortest = shortest < 0 || took < shortest ? took : shortest;
		return value == -1;
	}
	if (value != -1) {
		printf("worked %ld\n", value);
		return WORKED;
	}
	printf("failed %s\n", strerrorname_np(error));
	return error == EPERM ? REFUSED : ERROR;
}

void need(int condition, const char *what)
{
	if (condition)
		return;
	printf("setup %s: %s\n", what, strerror(errno));
	exit(SETUP);
}

#define WORDS 16

/* Runs one line's words in a child process, and prints its result as "end STATUS". */
static void serve_one(const char *self, char *line)
{
	char *words[WORDS + 2] = { (char *)self };
	int count = 1, status = 0;
	pid_t child, ended;

	for (char *one = strtok(line, " \n"); one && count <= WORDS; one = strtok(NULL, " \n"))
		words[count++] = one;
	child = fork();
	if (!child) {
		/* The attack must not read the rest of standard input. */
		close(0);
		open("/dev/null", O_RDONLY);
		execv(self, words);
		_exit(SETUP);
	}
	do
		ended = wait(&status);
	while (ended > 0 && ended != child);
	printf("end %d\n", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static int serve(const char *self)
{
	char line[4096];

	setvbuf(stdout, NULL, _IONBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin))
		serve_one(self, line);
	return 0;
}

static int cat(const char *path)
{
	char block[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0)
		return ERROR;
	while ((length = read(fd, block, sizeof(block))) > 0)
		if (write(1, block, length) != length)
			return ERROR;
	return 0;
}

/* Prints nothing if the attack ends the program: the call cannot be repeated. */
static int time_calls(const struct attack *attack, long times, char **args)
{
	timing = 1;
	while (times-- > 0)
		attack->run(args);
	printf("time %lld\n", shortest);
	return shortest < 0 ? ERROR : 0;
}

static const struct attack *find(const char *name)
{
	for (size_t t = 0; t < sizeof(tables) / sizeof(*tables); t++)
		for (const struct attack *attack = tables[t]; attack->name; attack++)
			if (!strcmp(name, attack->name))
				return attack;
	fprintf(stderr, "attacks: no attack '%s'\n", name);
	exit(USAGE);
}

/* Acts as the program of its name; -1: its own name. */
static int applet(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	char where[4096];

	if (!strcmp(name, "true"))
		return 0;
	if (!strcmp(name, "pwd"))
		return getcwd(where, sizeof(where)) && puts(where) >= 0 ? 0 : ERROR;
	if (!strcmp(name, "cat") && argc > 1)
		return cat(argv[1]);
	if (!strcmp(name, "sleep") && argc > 1)
		return sleep(atoi(argv[1])) ? ERROR : 0;
	return -1;
}

int main(int argc, char **argv)
{
	int status = applet(argc, argv);

	if (status >= 0)
		return status;
	if (argc == 2 && !strcmp(argv[1], "serve"))
		return serve(argv[0]);
	if (argc == 3 && !strcmp(argv[1], "narrow"))
		return narrow(argv[2]);
	if (argc > 3 && !strcmp(argv[1], "time"))
		return time_calls(find(argv[3]), atol(argv[2]), argv + 4);
	if (argc > 1)
		return find(argv[1])->run(argv + 2);
	for (size_t t = 0; t < sizeof(tables) / sizeof(*tables); t++)
		for (const struct attack *attack = tables[t]; attack->name; attack++)
			printf("%-20s %s\n", attack->name, attack->what);
	return 0;
}
