/* SPDX-License-Identifier: Apache-2.0 */
/* Files and devices: opened, never modified. */
#include "attacks.h"
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* open PATH [r|w]: open and close; for writing without writing anything. */
static int attack_open(char **args)
{
	const char *path = word(args, 0, "/etc/passwd"), *mode = word(args, 1, "r");

	try_now("openat");
	return result(open(path, (*mode == 'w' ? O_WRONLY : O_RDONLY) | O_CLOEXEC | O_NONBLOCK));
}

/* openat FD PATH: open below a leaked directory descriptor. */
static int attack_openat(char **args)
{
	int fd = number(args, 0, 3);

	need(fcntl(fd, F_GETFD) >= 0, "the leaked descriptor");
	try_now("openat");
	return result(openat(fd, word(args, 1, "."), O_RDONLY | O_CLOEXEC));
}

/* rewrite PATH: write back the current value. */
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

/* mknod b|c|p|f MAJOR MINOR: create a node in /tmp and remove it. */
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

/* device b|c MAJOR MINOR: open a node with that number, without reading. */
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

/* handle PATH: open an own file by its handle, as `shocker` opens the host's. */
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

/* chmod MODE: of an own file. */
static int attack_chmod(char **args)
{
	const char *path = word(args, 1, "/tmp/mode");
	int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	need(fd >= 0, path);
	try_now("chmod");
	return result(chmod(path, number(args, 0, 04755)));
}

/* symlink TARGET [LINK]: create a link and remove it. */
static int attack_symlink(char **args)
{
	const char *link = word(args, 1, "/tmp/link");
	int status;

	unlink(link);
	try_now("symlink");
	status = result(symlink(word(args, 0, "/"), link));
	unlink(link);
	return status;
}

/* exchange [FLAGS [link]]: exchange two own names atomically; with `link` a directory and a link. */
static int attack_exchange(char **args)
{
	const char *kind = word(args, 1, "files");
	const char *one = "/tmp/exchange-one", *two = "/tmp/exchange-two";

	unlink(one), rmdir(one), unlink(two), rmdir(two);
	if (!strcmp(kind, "link"))
		need(!mkdir(one, 0700) && !symlink("/", two), "a directory and a link");
	else
		need(!mknod(one, S_IFREG | 0600, 0) && !mknod(two, S_IFREG | 0600, 0), "two files");
	try_now("renameat2");
	return result(syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, two, number(args, 0, 2)));
}

/* cwd FD PATH: open a relative path with a leaked directory as the working directory. */
static int attack_cwd(char **args)
{
	need(!fchdir(number(args, 0, 3)), "the leaked descriptor");
	try_now("openat");
	return result(open(word(args, 1, "."), O_RDONLY | O_CLOEXEC));
}

/* tty [REQUEST]: an ioctl of an own terminal; without REQUEST inject a byte into its input. */
static int attack_tty(char **args)
{
	char room[64] = "x";
	int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	need(terminal >= 0, "a terminal");
	try_now("ioctl");
	return result(ioctl(terminal, number(args, 0, TIOCSTI), room));
}

/* splice PATH: splice a byte of a file, opened for reading, into a pipe. */
static int attack_splice(char **args)
{
	int from = open(word(args, 0, "/bin/su"), O_RDONLY | O_CLOEXEC), to[2];

	need(from >= 0 && !pipe(to), "a file and a pipe");
	try_now("splice");
	return result(splice(from, NULL, to[1], NULL, 1, 0));
}

/* map PATH: map a file for execution, without running it. */
static int attack_map(char **args)
{
	int fd = open(word(args, 0, "/bin/true"), O_RDONLY | O_CLOEXEC);
	void *where;

	need(fd >= 0, "the file");
	try_now("mmap");
	where = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	return result(where == MAP_FAILED ? -1 : 0);
}

/* exploit DEVICE WORD: as user nobody, let a kernel module change this task like an exploit; then open a file. */
static int attack_exploit(char **args)
{
	const char *what = word(args, 1, "commit");
	int fd = open(word(args, 0, "/run/exploit"), O_WRONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT) {
		try_now("openat");
		errno = ENOENT;
		return result(-1);
	}
	need(fd >= 0 && !setgid(65534) && !setuid(65534), "to be nobody, and the device");
	close(open("/proc/uptime", O_RDONLY | O_CLOEXEC)); /* the task must have made a call with its own identity */
	need(write(fd, what, strlen(what)) >= 0, "the module");
	try_now("openat");
	return result(open("/proc/uptime", O_RDONLY | O_CLOEXEC));
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
	{ "symlink", attack_symlink, "make a link to TARGET at LINK" },
	{ "exchange", attack_exchange, "renameat2 of two files with FLAGS, or of a directory and a `link`" },
	{ "cwd", attack_cwd, "open PATH below the leaked descriptor FD as working directory" },
	{ "tty", attack_tty, "ioctl REQUEST on a terminal of our own (default: push input)" },
	{ "splice", attack_splice, "a byte of the file PATH into a pipe" },
	{ "map", attack_map, "map PATH for execution" },
	{ "exploit", attack_exploit, "what a kernel exploit would do: DEVICE WORD" },
	{ NULL, NULL, NULL },
};
