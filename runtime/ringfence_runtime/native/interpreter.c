/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instructions of the native init (init.c). Most are plain system calls. The others are the
 * checks between the calls, and acts that need a loop. The rules of launch/paths.py hold here as
 * well: the kernel resolves each name of the image below the root, and the following instructions
 * act on the descriptor.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interpreter.h"

#define NR_openat2 437 /* an older C library does not name it */

int slots[MOST_SLOTS];
char *data;
static const char *program_path;

void fall_back(void)
{
	send(CHANNEL, FALLBACK, 1, MSG_NOSIGNAL);
	_exit(1);
}

static uint64_t argument(const struct instruction *op, int index)
{
	uint64_t value = op->arguments[index];

	if (op->how[index] == SLOT)
		return (uint64_t)(int64_t)slots[value];
	return op->how[index] == DATA ? (uint64_t)(uintptr_t)(data + value) : value;
}

static char *text(const struct instruction *op, int index)
{
	return data + op->arguments[index];
}

static int is_expected(const struct instruction *op, int error)
{
	for (size_t i = 0; i < sizeof(op->errors) / sizeof(*op->errors); i++)
		if (op->errors[i] && op->errors[i] == error)
			return 1;
	return 0;
}

static int openat2(int directory, const char *path, uint64_t flags, uint64_t resolve)
{
	struct how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };

	for (int attempt = 0; attempt < 64; attempt++) {
		int fd = (int)syscall(NR_openat2, directory, path, &how, sizeof(how));

		if (fd >= 0 || errno != EAGAIN)
			return fd;
	}
	return -1;
}

/*
 * Returns an O_PATH descriptor of a path below a root. Creates the path and its parent directories
 * if they are missing. A name is only created in a directory that was opened below the root. The
 * callers reject a last name that is a symlink.
 */
static int ensure(int root, const char *path, int is_directory, uint64_t resolve, mode_t mode, int depth)
{
	char copy[MOST_PATH];
	char *last;
	int parent;
	int fd;

	while (*path == '/')
		path++;
	fd = openat2(root, *path ? path : ".", O_PATH, resolve);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	must(strlen(path) < sizeof(copy) && depth < 64);
	strcpy(copy, path);
	last = copy + strlen(copy);
	while (last > copy && last[-1] == '/')
		*--last = 0;
	last = strrchr(copy, '/');
	if (last) {
		*last++ = 0;
		parent = ensure(root, copy, 1, resolve, 0755, depth + 1);
	} else {
		last = copy;
		parent = openat2(root, ".", O_PATH | O_DIRECTORY, resolve);
	}
	if (parent < 0)
		return -1;
	must(*last && strcmp(last, ".") != 0 && strcmp(last, "..") != 0);
	if (is_directory) {
		if (mkdirat(parent, last, mode) != 0 && errno != EEXIST)
			return -1;
	} else {
		fd = openat(parent, last, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
		if (fd < 0 && errno != EEXIST)
			return -1;
		if (fd >= 0)
			close(fd);
	}
	fd = openat(parent, last, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	close(parent);
	return fd;
}

static int is_kind(int fd, mode_t kind)
{
	struct stat status;

	return fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == kind;
}

static void do_ensure(const struct instruction *op)
{
	int fd = ensure(slots[op->arguments[0]], text(op, 1), (int)op->arguments[2], op->arguments[3],
			(mode_t)op->arguments[4], 0);

	if (fd < 0 && is_expected(op, errno))
		return;
	must(fd >= 0 && !is_kind(fd, S_IFLNK));
	slots[op->result] = fd;
}

static uint32_t magic_of(int fd)
{
	struct statfs status;

	must(fstatfs(fd, &status) == 0);
	return (uint32_t)status.f_type;
}

static void check_device(const struct instruction *op)
{
	struct stat status;

	must(fstat(slots[op->arguments[0]], &status) == 0);
	must((status.st_mode & S_IFMT) == op->arguments[1] && status.st_rdev == op->arguments[2]);
}

/* A tmpfs without a mode option gets the mode of the directory that it covers, or 1777 (TMPFS_MODE). */
static void existing_mode(const struct instruction *op)
{
	struct stat status = { .st_mode = 01777 };
	int fd = openat2(slots[op->arguments[0]], text(op, 1), O_PATH, op->arguments[2]);

	must(fd >= 0 || errno == ENOENT || errno == ENOTDIR);
	if (fd >= 0) {
		must(fstat(fd, &status) == 0);
		close(fd);
	}
	snprintf(text(op, 3), 8, "%o", status.st_mode & 07777);
}

static void drop_bounding(uint64_t wanted)
{
	for (int number = 0; number < 64; number++)
		if (!(wanted >> number & 1) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0) {
			must(errno == EINVAL);
			return;
		}
}

/*
 * Finds HOME in the container's /etc/passwd. The image controls that file, so only a bounded part
 * of a regular file is read.
 */
static void find_home(const struct instruction *op)
{
	char wanted[24];
	char *buffer;
	char *line;
	ssize_t size;
	int fd = openat2(slots[op->arguments[0]], "etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY, op->arguments[1]);

	if (fd < 0)
		return;
	must(is_kind(fd, S_IFREG) && (buffer = malloc((1 << 20) + 1)) != NULL);
	size = read(fd, buffer, 1 << 20);
	close(fd);
	must(size >= 0 && !memchr(buffer, 0, (size_t)size));
	buffer[size] = 0;
	snprintf(wanted, sizeof(wanted), "%u", (unsigned)op->arguments[2]);
	for (char *rest = buffer; (line = strsep(&rest, "\n")) != NULL;) {
		char *fields[7] = { 0 };
		int count = 0;

		while (count < 7 && line)
			fields[count++] = strsep(&line, ":");
		if (count < 7 || strcmp(fields[2], wanted) != 0 || *fields[5] != '/')
			continue;
		must(strlen(fields[5]) < MOST_PATH);
		sprintf(text(op, 3), "HOME=%s", fields[5]);
		break;
	}
	free(buffer);
}

/*
 * Enters the working directory, which must lie in the root (CVE-2024-21626: one through a leaked
 * descriptor).
 */
static void enter_directory(const char *path)
{
	char buffer[MOST_PATH];

	must(chdir(path) == 0 && syscall(SYS_getcwd, buffer, sizeof(buffer)) > 0 && *buffer == '/');
}

/*
 * Lets the workload's user reopen the streams as /dev/stdout. /dev/null keeps its owner: all
 * processes share it.
 */
static void own_streams(uid_t uid, gid_t gid)
{
	struct stat status;

	for (int fd = 0; fd < 3; fd++) {
		gid_t group = isatty(fd) ? (gid_t)-1 : gid;

		if (fstat(fd, &status) != 0)
			continue;
		if (S_ISCHR(status.st_mode) && status.st_rdev == 0x103) /* 1:3 */
			continue;
		if (status.st_uid == uid && (group == (gid_t)-1 || status.st_gid == group))
			continue;
		must(fchown(fd, uid, group) == 0 || errno == EPERM || errno == EINVAL || errno == EROFS ||
		     errno == EBADF);
	}
}

static int is_executable(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 && !S_ISDIR(status.st_mode) && faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0;
}

/*
 * Finds the first candidate that can be executed. The candidates are consecutive texts; an empty
 * one ends the list.
 */
static void find_program(const char *candidates)
{
	for (; *candidates; candidates += strlen(candidates) + 1)
		if (is_executable(candidates)) {
			program_path = candidates;
			return;
		}
	fall_back();
}

static int starts(int channel)
{
	char message[16];

	return recv(channel, message, sizeof(message), 0) > 0 && *message == 'S';
}

/*
 * Reports that the container is ready, then waits for the start: on the same channel, or on the
 * listening socket.
 */
static int wait_for_start(int listener)
{
	must(send(CHANNEL, "R", 1, MSG_NOSIGNAL) == 1);
	if (listener < 0) {
		if (!starts(CHANNEL))
			_exit(1);
		return CHANNEL;
	}
	close(CHANNEL);
	for (;;) {
		int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (peer >= 0 && starts(peer))
			return peer;
		if (peer >= 0)
			close(peer);
	}
}

static int peer = CHANNEL;

static void execute(const struct instruction *op)
{
	char message[512];
	int size;
	int code;

	execve(program_path, (char **)argument(op, 0), (char **)argument(op, 1));
	code = errno;
	size = snprintf(message, sizeof(message), "Eexec: \"%s\": %s", text(op, 2), strerror(code));
	for (char *letter = strrchr(message, ':'); letter && *letter; letter++)
		if (*letter >= 'A' && *letter <= 'Z')
			*letter += 'a' - 'A';
	send(peer, message, size < (int)sizeof(message) ? (size_t)size : sizeof(message) - 1, MSG_NOSIGNAL);
	_exit(code == ENOENT ? 127 : 126);
}

/* Returns how many of the following instructions to skip. */
static unsigned make_call(const struct instruction *op)
{
	long result = syscall(op->number, argument(op, 0), argument(op, 1), argument(op, 2), argument(op, 3),
			      argument(op, 4), argument(op, 5));

	if (result < 0) {
		must(is_expected(op, errno));
		return op->skip;
	}
	if (op->result >= 0)
		slots[op->result] = (int)result;
	return 0;
}

unsigned perform(const struct instruction *op)
{
	int slot = (int)op->arguments[0];

	switch (op->kind) {
	case CALL:
		return make_call(op);
	case ENSURE:
		do_ensure(op);
		return 0;
	case CHECK_MAGIC:
		must(magic_of(slots[slot]) == op->arguments[1]);
		return 0;
	case CHECK_NOT_MAGIC:
		must(magic_of(slots[slot]) != op->arguments[1]);
		return 0;
	case CHECK_DEVICE:
		check_device(op);
		return 0;
	case SKIP:
		return op->skip;
	case SKIP_UNLESS_DIRECTORY:
		return is_kind(slots[slot], S_IFDIR) ? 0 : op->skip;
	case EXISTING_MODE:
		existing_mode(op);
		return 0;
	case DROP_BOUNDING:
		drop_bounding(op->arguments[0]);
		return 0;
	case HOME:
		find_home(op);
		return 0;
	case DIRECTORY:
		enter_directory(text(op, 0));
		return 0;
	case STREAMS:
		own_streams((uid_t)op->arguments[0], (gid_t)op->arguments[1]);
		return 0;
	case FIND:
		find_program(text(op, 0));
		return 0;
	case READY:
		peer = wait_for_start(op->how[0] == SLOT ? slots[slot] : -1);
		return 0;
	case EXECUTE:
		execute(op);
	}
	fall_back();
	return 0;
}
