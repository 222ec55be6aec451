/* SPDX-License-Identifier: Apache-2.0 */
/* Files and devices: opened, never changed. */
#include "attacks.h"
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* open PATH [r|w]: open and close; for writing without writing anything. */
static int attack_open(char **args)
{
	const char *path = word(args, 0, "/etc/passwd"), *mode = word(args, 1, "r");

	try_now("openat");
	return result(open(path, (*mode == 'w' ? O_WRONLY : O_RDONLY) | O_CLOEXEC | O_NONBLOCK));
}

/* openat FD PATH: open below a directory descriptor that was left open. */
static int attack_openat(char **args)
{
	int fd = number(args, 0, 3);

	need(fcntl(fd, F_GETFD) >= 0, "the leaked descriptor");
	try_now("openat");
	return result(openat(fd, word(args, 1, "."), O_RDONLY | O_CLOEXEC));
}

/* rewrite PATH: write back the value that is there already. */
static int attack_rewrite(char **args)
{
	const char *path = word(args, 0, "/proc/sys/kernel/core_pattern");
	char value[512];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0 && errno == ENOENT) {
		try_now("write");
		errno = ENOENT;
		return result(-1);
	}
	need(fd >= 0, path);
	length = read(fd, value, sizeof(value));
	need(length > 0, "read the value");
	close(fd);
	try_now("write");
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return result(fd < 0 ? -1 : write(fd, value, length));
}

static int attack_read(char **args)
{
	char value[64];
	int fd;

	try_now("read");
	fd = open(word(args, 0, "/proc/sys/kernel/ostype"), O_RDONLY | O_CLOEXEC);
	return result(fd < 0 ? -1 : read(fd, value, sizeof(value)));
}

static mode_t node_type(const char *kind)
{
	return *kind == 'b' ? S_IFBLK : *kind == 'c' ? S_IFCHR : *kind == 'p' ? S_IFIFO : S_IFREG;
}

/* mknod b|c|p|f MAJOR MINOR: make a node in /tmp and take it away again. */
static int attack_mknod(char **args)
{
	dev_t device = makedev(number(args, 1, 259), number(args, 2, 1048575));
	int status;

	unlink("/tmp/node");
	try_now("mknod");
	status = result(mknod("/tmp/node", node_type(word(args, 0, "b")) | 0600, device));
	unlink("/tmp/node");
	return status;
}

/* device b|c MAJOR MINOR: open a node of that number, read nothing. */
static int attack_device(char **args)
{
	dev_t device = makedev(number(args, 1, 259), number(args, 2, 1048575));
	int status;

	unlink("/tmp/node");
	need(!mknod("/tmp/node", node_type(word(args, 0, "b")) | 0600, device), "mknod");
	try_now("openat");
	status = result(open("/tmp/node", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
	unlink("/tmp/node");
	return status;
}

/* handle PATH: open a file of our own by its handle, as `shocker` opens the host's. */
static int attack_handle(char **args)
{
	struct {
		struct file_handle head;
		char bytes[128];
	} handle = { .head.handle_bytes = 128 };
	const char *path = word(args, 0, "/tmp");
	int mount_id, fd = open(path, O_RDONLY | O_CLOEXEC);

	need(fd >= 0, path);
	need(!name_to_handle_at(AT_FDCWD, path, &handle.head, &mount_id, 0), "name_to_handle_at");
	try_now("open_by_handle_at");
	return result(open_by_handle_at(fd, &handle.head, O_RDONLY | O_CLOEXEC));
}

/* chmod MODE: of a file of our own. */
static int attack_chmod(char **args)
{
	const char *path = word(args, 1, "/tmp/mode");
	int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	need(fd >= 0, path);
	try_now("chmod");
	return result(chmod(path, number(args, 0, 04755)));
}

static int attack_symlink(char **args)
{
	unlink("/tmp/link");
	try_now("symlink");
	return result(symlink(word(args, 0, "/"), "/tmp/link"));
}

/* exchange: two files of our own change names, in one step. */
static int attack_exchange(char **args)
{
	int one = open("/tmp/one", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	int two = open("/tmp/two", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	need(one >= 0 && two >= 0, "two files");
	try_now("renameat2");
	return result(syscall(SYS_renameat2, AT_FDCWD, "/tmp/one", AT_FDCWD, "/tmp/two", number(args, 0, 2)));
}

/* cwd FD PATH: open a relative path with a leaked directory as the working directory. */
static int attack_cwd(char **args)
{
	need(!fchdir(number(args, 0, 3)), "the leaked descriptor");
	try_now("openat");
	return result(open(word(args, 1, "."), O_RDONLY | O_CLOEXEC));
}

/* tiocsti: push a byte into the input of a terminal of our own. */
static int attack_tiocsti(char **args)
{
	int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	need(terminal >= 0, "a terminal");
	(void)args;
	try_now("ioctl");
	return result(ioctl(terminal, TIOCSTI, "x"));
}

/* splice: one byte from a pipe to a pipe. */
static int attack_splice(char **args)
{
	int from[2], to[2];

	(void)args;
	need(!pipe(from) && !pipe(to) && write(from[1], "x", 1) == 1, "pipes");
	try_now("splice");
	return result(splice(from[0], NULL, to[1], NULL, 1, 0));
}

const struct attack file_attacks[] = {
	{ "open", attack_open, "open PATH [r|w], change nothing" },
	{ "openat", attack_openat, "open PATH below the leaked descriptor FD" },
	{ "rewrite", attack_rewrite, "write back what PATH holds" },
	{ "read", attack_read, "read PATH" },
	{ "mknod", attack_mknod, "make a node: b|c|p|f MAJOR MINOR" },
	{ "device", attack_device, "open a node: b|c MAJOR MINOR" },
	{ "handle", attack_handle, "open PATH by its handle" },
	{ "chmod", attack_chmod, "set MODE on a file of our own" },
	{ "symlink", attack_symlink, "make a link to TARGET" },
	{ "exchange", attack_exchange, "exchange the names of two files, or with FLAGS" },
	{ "cwd", attack_cwd, "open PATH below the leaked descriptor FD as working directory" },
	{ "tiocsti", attack_tiocsti, "push input into a terminal of our own" },
	{ "splice", attack_splice, "a byte from pipe to pipe" },
	{ NULL, NULL, NULL },
};
