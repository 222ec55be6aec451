/* SPDX-License-Identifier: Apache-2.0 */
/* attacks NAME [ARG...]: run one attack, or with no NAME list them. */
#include "attacks.h"
#include <time.h>

static const struct attack *const tables[] = {
	mount_attacks, file_attacks, kernel_attacks, task_attacks, net_attacks,
};

void try_now(const char *call)
{
	struct timespec now;
	char line[128];
	int length;

	clock_gettime(CLOCK_BOOTTIME, &now);
	length = snprintf(line, sizeof(line), "call %s at %lld\n", call, now.tv_sec * 1000000000LL + now.tv_nsec);
	/* Straight out: a killed process flushes nothing. */
	if (write(1, line, length) != length)
		exit(SETUP);
}

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

void need(int condition, const char *what)
{
	if (condition)
		return;
	printf("setup %s: %s\n", what, strerror(errno));
	exit(SETUP);
}

const char *word(char **args, int i, const char *otherwise)
{
	for (int n = 0; n < i; n++)
		if (!args[n])
			return otherwise;
	return args[i] ? args[i] : otherwise;
}

long number(char **args, int i, long otherwise)
{
	const char *text = word(args, i, NULL);

	return text ? strtol(text, NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
	for (size_t t = 0; t < sizeof(tables) / sizeof(*tables); t++)
		for (const struct attack *attack = tables[t]; attack->name; attack++) {
			if (argc < 2)
				printf("%-20s %s\n", attack->name, attack->what);
			else if (!strcmp(argv[1], attack->name))
				return attack->run(argv + 2);
		}
	if (argc < 2)
		return 0;
	fprintf(stderr, "attacks: no attack '%s'\n", argv[1]);
	return USAGE;
}
