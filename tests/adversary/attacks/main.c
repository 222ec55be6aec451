/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adversary NAME [ARG...]: one attempt.
 * adversary serve: attempts from standard input, one per line; the first process of a container.
 * adversary memory WORD...: the same words, by a copy of this program that has no file.
 * adversary orphan WORD...: that copy, as a child of the host's first process.
 * adversary apart WORD...: the same words, in a mount namespace of its own.
 */
#include "adversary.h"
#include <time.h>

static const struct attack *const tables[] = {
	file_attacks,	name_attacks, task_attacks,   namespace_attacks, socket_attacks,
	kernel_attacks, race_attacks, tamper_attacks, hammer_attacks,
};

int result(long value)
{
	int error = errno;

	if (value != -1) {
		printf("worked %ld\n", value);
		return WORKED;
	}
	printf("failed %s\n", strerrorname_np(error));
	return error == EPERM ? REFUSED : ERROR;
}

void show(const char *data, long length)
{
	printf("got ");
	for (long i = 0; i < length; i++)
		if (data[i] > ' ' && data[i] < 127)
			putchar(data[i]);
	printf("\n");
	fflush(stdout);
}

void need(int condition, const char *what)
{
	if (condition)
		return;
	printf("setup %s: %s\n", what, strerrorname_np(errno));
	fflush(stdout);
	_exit(SETUP);
}

void linger(void)
{
	pid_t child = fork();

	need(child >= 0, "fork");
	if (child)
		return;
	close(0);
	close(1);
	close(2);
	for (;;)
		pause();
}

long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

char *low_text(const char *text)
{
	static char *next, *end;
	char *made;

	if (!next) {
		next = mmap((void *)0x10000000, 1 << 16, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		need(next != MAP_FAILED, "memory below 4 GiB");
		end = next + (1 << 16);
	}
	made = next;
	need(made + strlen(text) + 1 < end, "room below 4 GiB");
	next += strlen(text) + 1;
	return strcpy(made, text);
}

static const struct attack *find(const char *name)
{
	for (size_t t = 0; t < sizeof(tables) / sizeof(*tables); t++)
		for (const struct attack *attack = tables[t]; attack->name; attack++)
			if (!strcmp(name, attack->name))
				return attack;
	fprintf(stderr, "adversary: no attack '%s'\n", name);
	exit(USAGE);
}

int run(char **words)
{
	return find(words[0])->run(words + 1);
}

/* Runs the words by a copy of this program in memory. */
static int from_memory(char **words)
{
	int from = open("/proc/self/exe", O_RDONLY), memory = memfd_create("x", 0);
	char block[1 << 16], *const env[] = { NULL };
	ssize_t length;

	need(from >= 0 && memory >= 0, "a copy in memory");
	while ((length = read(from, block, sizeof(block))) > 0)
		need(write(memory, block, length) == length, "write");
	fexecve(memory, words, env);
	return result(-1);
}

#define WORDS 24

/* Runs one line's words in a child process, and prints its result as "end STATUS". */
static void serve_one(char *line)
{
	char *words[WORDS + 2] = { "/bin/adversary" };
	int count = 1, status = 0;
	pid_t child, ended;

	for (char *one = strtok(line, " \n"); one && count <= WORDS; one = strtok(NULL, " \n"))
		words[count++] = one;
	child = fork();
	if (!child) {
		close(0);
		open("/dev/null", O_RDONLY);
		execv(words[0], words);
		_exit(SETUP);
	}
	do
		ended = wait(&status);
	while (ended > 0 && ended != child);
	printf("\nend %d\n", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static int serve(void)
{
	char line[4096];

	setvbuf(stdout, NULL, _IONBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin))
		serve_one(line);
	return 0;
}

/* An orphan of the host's first process runs the words, where pids are the host's. */
static int orphaned(char **words)
{
	if (!fork()) {
		if (!fork()) {
			while (getppid() != 1)
				usleep(1000);
			_exit(from_memory(words));
		}
		_exit(0);
	}
	wait(NULL);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return USAGE;
	if (!strcmp(argv[1], "serve"))
		return serve();
	if (!strcmp(argv[1], "memory") && argc > 2)
		return from_memory(argv + 1);
	if (!strcmp(argv[1], "orphan") && argc > 2)
		return orphaned(argv + 1);
	if (!strcmp(argv[1], "apart") && argc > 2) {
		need(!unshare(CLONE_NEWNS), "unshare");
		return main(argc - 1, argv + 1);
	}
	return run(argv + 1);
}
