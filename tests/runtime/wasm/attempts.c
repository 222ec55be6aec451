// SPDX-License-Identifier: Apache-2.0
/* What a module tries through WASI's host functions: the first argument says what, the second names a path. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static int says(const char *word, int failed)
{
	printf("%s: %s\n", word, failed ? strerror(errno) : "done");
	return 0;
}

static int look(const char *path)
{
	char text[64];
	int fd = open(path, O_RDONLY);
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (got < 0)
		return says("read", 1);
	printf("read: %d bytes: %.*s\n", (int)got, (int)got, text);
	return 0;
}

/* Reads the file until somebody else has exchanged it often enough: what was read, and how often. */
static int race(const char *path)
{
	int inside = 0, failed = 0;
	for (int count = 0; count < 200000 && (inside < 500 || failed < 500); count++) {
		char text[8] = "";
		int fd = open(path, O_RDONLY);
		if (fd < 0) {
			failed++;
			continue;
		}
		if (read(fd, text, sizeof(text) - 1) == 6 && !strcmp(text, "inside"))
			inside++;
		else
			printf("read: %s\n", text);
		close(fd);
	}
	printf("inside: %d, failed: %d\n", inside, failed);
	return 0;
}

static int list(const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	if (!directory)
		return says("list", 1);
	while ((entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			puts(entry->d_name);
	puts("end");
	return 0;
}

static int grow(void)
{
	size_t size = 0;
	for (volatile char *block; size < 4096 && (block = malloc(1 << 20)); size++)
		for (size_t at = 0; at < 1 << 20; at += 4096)
			block[at] = 1;
	printf("MiB: %zu\n", size);
	return 0;
}

static int open_many(void)
{
	char name[64];
	int count = 0;
	for (; count < 10000; count++) {
		snprintf(name, sizeof(name), "/tmp/%d", count);
		if (open(name, O_CREAT | O_RDWR, 0600) < 0)
			break;
	}
	printf("files: %d\n", count);
	return 0;
}

static int show(int count, char **words)
{
	for (int i = 0; i < count; i++)
		puts(words[i]);
	for (char **item = environ; *item; item++)
		puts(*item);
	return 7;
}

int main(int count, char **words)
{
	const char *what = count > 1 ? words[1] : "", *path = count > 2 ? words[2] : "";
	if (!strcmp(what, "read"))
		return look(path);
	if (!strcmp(what, "list"))
		return list(path);
	if (!strcmp(what, "race"))
		return race(path);
	if (!strcmp(what, "write"))
		return says("write", open(path, O_CREAT | O_WRONLY, 0600) < 0);
	if (!strcmp(what, "link"))
		return says("link", symlink(path, "/tmp/link")) | look("/tmp/link");
	if (!strcmp(what, "grow"))
		return grow();
	if (!strcmp(what, "files"))
		return open_many();
	if (!strcmp(what, "loop"))
		for (;;)
			;
	if (!strcmp(what, "sleep")) {
		puts("waiting");
		fflush(stdout);
		sleep(60);
	}
	if (!strcmp(what, "trap"))
		__builtin_trap();
	return show(count, words);
}
