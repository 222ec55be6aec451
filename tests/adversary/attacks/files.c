/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing files of the host, by every way to a descriptor. */
#include "adversary.h"
#include <linux/openat2.h>

static int put(int fd, const char *text)
{
	if (fd < 0)
		return result(-1);
	return result(write(fd, text, strlen(text)));
}

/* write PATH TEXT */
static int attack_write(char **args)
{
	return put(open(word(args, 0, "/tmp/x"), O_WRONLY | O_CREAT, 0644), word(args, 1, "x"));
}

/* append PATH TEXT */
static int attack_append(char **args)
{
	return put(open(word(args, 0, "/tmp/x"), O_WRONLY | O_APPEND), word(args, 1, "x"));
}

/* write_openat2 PATH TEXT */
static int attack_write_openat2(char **args)
{
	struct open_how how = { .flags = O_RDWR | O_CREAT, .mode = 0644 };

	return put(syscall(SYS_openat2, AT_FDCWD, word(args, 0, "/tmp/x"), &how, sizeof(how)), word(args, 1, "x"));
}

/* write_32bit PATH TEXT: by the number of open(2) that 32-bit programs use. */
static int attack_write_32bit(char **args)
{
	need_32bit();
	return put(call_32bit(5, (long)low_text(word(args, 0, "/tmp/x")), O_WRONLY | O_CREAT, 0644),
		   word(args, 1, "x"));
}

/* write_again PATH TEXT: by a descriptor that gives no access, opened again. */
static int attack_write_again(char **args)
{
	int fd = open(word(args, 0, "/tmp/x"), O_PATH);
	char path[64];

	if (fd < 0)
		return result(-1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return put(open(path, O_WRONLY), word(args, 1, "x"));
}

/* write_map PATH TEXT: by a shared mapping. */
static int attack_write_map(char **args)
{
	const char *text = word(args, 1, "x");
	int fd = open(word(args, 0, "/tmp/x"), O_RDWR | O_CREAT, 0644);
	char *there;

	if (fd < 0)
		return result(-1);
	need(!ftruncate(fd, strlen(text)), "ftruncate");
	there = mmap(NULL, strlen(text), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (there == MAP_FAILED)
		return result(-1);
	memcpy(there, text, strlen(text));
	return result(0);
}

/* write_below DIRECTORY NAME TEXT: from a working directory there. */
static int attack_write_below(char **args)
{
	if (chdir(word(args, 0, "/tmp")))
		return result(-1);
	return put(open(word(args, 1, "x"), O_WRONLY | O_CREAT, 0644), word(args, 2, "x"));
}

/* write_root DIRECTORY NAME TEXT: from a root directory there (chroot). */
static int attack_write_root(char **args)
{
	if (chroot(word(args, 0, "/tmp")) || chdir("/"))
		return result(-1);
	return put(open(word(args, 1, "x"), O_WRONLY | O_CREAT, 0644), word(args, 2, "x"));
}

/* write_unnamed DIRECTORY NAME TEXT: a file without a name, which gets one later. */
static int attack_write_unnamed(char **args)
{
	int directory = open(word(args, 0, "/tmp"), O_PATH),
	    fd = open(word(args, 0, "/tmp"), O_TMPFILE | O_WRONLY, 0644);
	char path[64];

	if (fd < 0 || write(fd, word(args, 2, "x"), strlen(word(args, 2, "x"))) < 0)
		return result(-1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return result(linkat(AT_FDCWD, path, directory, word(args, 1, "x"), AT_SYMLINK_FOLLOW));
}

/* read PATH [BYTES]: shows what is there. */
static int attack_read(char **args)
{
	int fd = open(word(args, 0, "/tmp/x"), O_RDONLY | O_NONBLOCK);
	char block[8192];
	ssize_t length;

	if (fd < 0)
		return result(-1);
	length = read(fd, block, sizeof(block));
	if (length > 0)
		show(block, length);
	return result(length);
}

/* read_at PATH ADDRESS: from the address in the text on (hexadecimal). */
static int attack_read_at(char **args)
{
	int fd = open(word(args, 0, "/proc/self/mem"), O_RDONLY);
	char block[64];
	ssize_t length;

	if (fd < 0)
		return result(-1);
	length = pread(fd, block, sizeof(block), strtoul(word(args, 1, "0"), NULL, 16));
	if (length > 0)
		show(block, length);
	return result(length);
}

/* read_map PATH: by a mapping. */
static int attack_read_map(char **args)
{
	int fd = open(word(args, 0, "/tmp/x"), O_RDONLY);
	char *there;

	if (fd < 0)
		return result(-1);
	there = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	if (there == MAP_FAILED)
		return result(-1);
	show(there, 4096);
	return result(0);
}

const struct attack file_attacks[] = {
	{ "write", attack_write },
	{ "append", attack_append },
	{ "write_openat2", attack_write_openat2 },
	{ "write_32bit", attack_write_32bit },
	{ "write_again", attack_write_again },
	{ "write_map", attack_write_map },
	{ "write_below", attack_write_below },
	{ "write_root", attack_write_root },
	{ "write_unnamed", attack_write_unnamed },
	{ "read", attack_read },
	{ "read_at", attack_read_at },
	{ "read_map", attack_read_map },
	{ NULL, NULL },
};
