/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's init until it executes the workload, for the launches that launch/program.py can lay out beforehand.
 *
 * It knows nothing of containers. It is handed a list of system calls with their arguments (and the few checks that
 * must be made between them) over the channel that it inherits as descriptor 3, with the descriptors that they need,
 * and makes them in order. Python decides what the list is; this only saves the fork of an interpreter, whose memory
 * would be copied page by page. Whatever goes otherwise than the list foresees is answered by "B" before anything
 * of the workload has run: the runtime then ends this process and starts the init that Python itself is (child.py),
 * which knows what to do about it, or how to say what is wrong.
 *
 * The layout of the message is that of program.py; tests/runtime/test_program.py compares the two.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAGIC 0x52464932u /* RFI2 */
#define MOST_BYTES (192 * 1024)
#define MOST_FDS 250
#define MOST_SLOTS 1024
#define CHANNEL 3
#define MOST_PATH 4096

/* Kinds of steps, and what an argument is. */
enum {
	CALL,
	ENSURE,
	CHECK_MAGIC,
	CHECK_NOT_MAGIC,
	CHECK_DEVICE,
	SKIP,
	SKIP_UNLESS_DIRECTORY,
	EXISTING_MODE,
	DROP_BOUNDING,
	HOME,
	DIRECTORY,
	STREAMS,
	FIND,
	READY,
	EXECUTE
};
enum { NUMBER, SLOT, DATA };

struct step {
	uint16_t kind;
	uint16_t number;   /* the system call */
	int16_t result;	   /* the slot that its result goes to, or -1 */
	uint16_t skip;	   /* after one of the errors below: how many steps are left out */
	int16_t errors[4]; /* errors that do not matter; 0: none */
	uint8_t how[8];	   /* of each argument; six are used */
	uint64_t arguments[6];
};

_Static_assert(sizeof(struct step) == 72, "program.py packs it so");

struct header {
	uint32_t magic;
	uint32_t steps;
	uint32_t fds;
	uint32_t pointers;
	uint32_t data; /* bytes */
	uint32_t reserved;
};

struct how {
	uint64_t flags, mode, resolve;
};

static int slots[MOST_SLOTS];
static char *data;
static const char *program_path;

/* Something that the list did not foresee: let Python do it. */
static void give_up(void)
{
	send(CHANNEL, "B", 1, MSG_NOSIGNAL);
	_exit(1);
}

static void must(int condition)
{
	if (!condition)
		give_up();
}

static uint64_t argument(const struct step *step, int index)
{
	uint64_t value = step->arguments[index];

	if (step->how[index] == SLOT)
		return (uint64_t)(int64_t)slots[value];
	return step->how[index] == DATA ? (uint64_t)(uintptr_t)(data + value) : value;
}

static char *text(const struct step *step, int index)
{
	return data + step->arguments[index];
}

static int foreseen(const struct step *step, int error)
{
	for (size_t i = 0; i < sizeof(step->errors) / sizeof(*step->errors); i++)
		if (step->errors[i] && step->errors[i] == error)
			return 1;
	return 0;
}

static int openat2(int directory, const char *path, uint64_t flags, uint64_t resolve)
{
	struct how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };

	for (int attempt = 0; attempt < 64; attempt++) {
		int fd = (int)syscall(437, directory, path, &how, sizeof(how));

		if (fd >= 0 || errno != EAGAIN)
			return fd;
	}
	return -1;
}

/*
 * An O_PATH descriptor of a path below a root, made where it is missing: the parents as directories. Names are only
 * ever made in a directory that was opened below the root, and a last name that is a symlink is not for us.
 */
static int ensure(int root, const char *path, int is_directory, uint64_t resolve, int depth)
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
		parent = ensure(root, copy, 1, resolve, depth + 1);
	} else {
		last = copy;
		parent = openat2(root, ".", O_PATH | O_DIRECTORY, resolve);
	}
	if (parent < 0)
		return -1;
	must(*last && strcmp(last, ".") != 0 && strcmp(last, "..") != 0);
	if (is_directory) {
		if (mkdirat(parent, last, 0755) != 0 && errno != EEXIST)
			return -1;
	} else {
		fd = openat(parent, last, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0755);
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

static void do_ensure(const struct step *step)
{
	int fd = ensure(slots[step->arguments[0]], text(step, 1), (int)step->arguments[2], step->arguments[3], 0);

	if (fd < 0 && foreseen(step, errno))
		return;
	must(fd >= 0 && !is_kind(fd, S_IFLNK));
	slots[step->result] = fd;
}

static uint32_t magic_of(int fd)
{
	struct statfs status;

	must(fstatfs(fd, &status) == 0);
	return (uint32_t)status.f_type;
}

static void check_device(const struct step *step)
{
	struct stat status;

	must(fstat(slots[step->arguments[0]], &status) == 0);
	must((status.st_mode & S_IFMT) == step->arguments[1] && status.st_rdev == step->arguments[2]);
}

/* A tmpfs without a mode of its own takes that of the directory that it covers. */
static void existing_mode(const struct step *step)
{
	struct stat status = { .st_mode = 0755 };
	int fd = openat2(slots[step->arguments[0]], text(step, 1), O_PATH, step->arguments[2]);

	must(fd >= 0 || errno == ENOENT || errno == ENOTDIR);
	if (fd >= 0) {
		must(fstat(fd, &status) == 0);
		close(fd);
	}
	snprintf(text(step, 3), 8, "%o", status.st_mode & 07777);
}

static void drop_bounding(uint64_t wanted)
{
	for (int number = 0; number < 64; number++)
		if (!(wanted >> number & 1) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0) {
			must(errno == EINVAL);
			return;
		}
}

/* HOME from the container's own /etc/passwd, which is a file of the image: bounded, and only if it is a file. */
static void find_home(const struct step *step)
{
	char wanted[24];
	char *buffer;
	char *line;
	ssize_t size;
	int fd = openat2(slots[step->arguments[0]], "etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY, step->arguments[1]);

	if (fd < 0)
		return;
	must(is_kind(fd, S_IFREG) && (buffer = malloc((1 << 20) + 1)) != NULL);
	size = read(fd, buffer, 1 << 20);
	close(fd);
	must(size >= 0 && !memchr(buffer, 0, (size_t)size));
	buffer[size] = 0;
	snprintf(wanted, sizeof(wanted), "%u", (unsigned)step->arguments[2]);
	for (char *rest = buffer; (line = strsep(&rest, "\n")) != NULL;) {
		char *fields[7] = { 0 };
		int count = 0;

		while (count < 7 && line)
			fields[count++] = strsep(&line, ":");
		if (count < 7 || strcmp(fields[2], wanted) != 0 || *fields[5] != '/')
			continue;
		must(strlen(fields[5]) < MOST_PATH);
		sprintf(text(step, 3), "HOME=%s", fields[5]);
		break;
	}
	free(buffer);
}

/* The working directory, which must lie in our root (CVE-2024-21626: one through a leaked descriptor). */
static void enter_directory(const char *path)
{
	char buffer[MOST_PATH];

	must(chdir(path) == 0 && syscall(SYS_getcwd, buffer, sizeof(buffer)) > 0 && *buffer == '/');
}

/* Give the workload's user what it may open again by /dev/stdout; /dev/null stays as it is, for everyone. */
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

/* The first of the candidates that can be executed; texts one behind the other, an empty one at the end. */
static void find_program(const char *candidates)
{
	for (; *candidates; candidates += strlen(candidates) + 1)
		if (is_executable(candidates)) {
			program_path = candidates;
			return;
		}
	give_up();
}

static int starts(int channel)
{
	char message[16];

	return recv(channel, message, sizeof(message), 0) > 0 && *message == 'S';
}

/* Tell that all is ready; then be let go over the same channel, or by who connects to the listening socket. */
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

static void execute(const struct step *step)
{
	char message[512];
	int size;
	int code;

	execve(program_path, (char **)argument(step, 0), (char **)argument(step, 1));
	code = errno;
	size = snprintf(message, sizeof(message), "Eexec: \"%s\": %s", text(step, 2), strerror(code));
	for (char *letter = strrchr(message, ':'); letter && *letter; letter++)
		if (*letter >= 'A' && *letter <= 'Z')
			*letter += 'a' - 'A';
	send(peer, message, size < (int)sizeof(message) ? (size_t)size : sizeof(message) - 1, MSG_NOSIGNAL);
	_exit(code == ENOENT ? 127 : 126);
}

/* How many of the following steps to leave out. */
static unsigned make_call(const struct step *step)
{
	long result = syscall(step->number, argument(step, 0), argument(step, 1), argument(step, 2), argument(step, 3),
			      argument(step, 4), argument(step, 5));

	if (result < 0) {
		must(foreseen(step, errno));
		return step->skip;
	}
	if (step->result >= 0)
		slots[step->result] = (int)result;
	return 0;
}

static unsigned take(const struct step *step)
{
	int slot = (int)step->arguments[0];

	switch (step->kind) {
	case CALL:
		return make_call(step);
	case ENSURE:
		do_ensure(step);
		return 0;
	case CHECK_MAGIC:
		must(magic_of(slots[slot]) == step->arguments[1]);
		return 0;
	case CHECK_NOT_MAGIC:
		must(magic_of(slots[slot]) != step->arguments[1]);
		return 0;
	case CHECK_DEVICE:
		check_device(step);
		return 0;
	case SKIP:
		return step->skip;
	case SKIP_UNLESS_DIRECTORY:
		return is_kind(slots[slot], S_IFDIR) ? 0 : step->skip;
	case EXISTING_MODE:
		existing_mode(step);
		return 0;
	case DROP_BOUNDING:
		drop_bounding(step->arguments[0]);
		return 0;
	case HOME:
		find_home(step);
		return 0;
	case DIRECTORY:
		enter_directory(text(step, 0));
		return 0;
	case STREAMS:
		own_streams((uid_t)step->arguments[0], (gid_t)step->arguments[1]);
		return 0;
	case FIND:
		find_program(text(step, 0));
		return 0;
	case READY:
		peer = wait_for_start(step->how[0] == SLOT ? slots[slot] : -1);
		return 0;
	case EXECUTE:
		execute(step);
	}
	give_up();
	return 0;
}

/* Python ignores SIGPIPE and SIGXFSZ, and what is ignored stays so over execve. */
static void reset_signals(void)
{
	struct sigaction standard = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int number = 1; number < 65; number++)
		sigaction(number, &standard, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The message: header, steps, offsets of pointers within the data, the data. */
static struct step *receive(struct header *header)
{
	static union {
		char bytes[MOST_BYTES];
		uint64_t alignment;
	} message;
	static union {
		struct cmsghdr header;
		char space[CMSG_SPACE(MOST_FDS * sizeof(int))];
	} control;
	struct iovec part = { .iov_base = message.bytes, .iov_len = sizeof(message) };
	struct msghdr whole = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	ssize_t size = recvmsg(CHANNEL, &whole, MSG_CMSG_CLOEXEC);
	struct cmsghdr *rights = CMSG_FIRSTHDR(&whole);
	uint32_t *pointers;

	if (size <= 0)
		_exit(1); /* the runtime has ended */
	must((size_t)size >= sizeof(*header) && !(whole.msg_flags & (MSG_TRUNC | MSG_CTRUNC)));
	memcpy(header, message.bytes, sizeof(*header));
	must(header->magic == MAGIC && header->fds <= MOST_FDS && header->data < MOST_BYTES &&
	     header->steps < MOST_BYTES / sizeof(struct step) && header->pointers < MOST_BYTES / sizeof(uint32_t));
	must((size_t)size == sizeof(*header) + header->steps * sizeof(struct step) +
				     header->pointers * sizeof(uint32_t) + header->data);
	must(!header->fds || (rights && rights->cmsg_len == CMSG_LEN(header->fds * sizeof(int))));
	if (header->fds)
		memcpy(slots, CMSG_DATA(rights), header->fds * sizeof(int));
	pointers = (uint32_t *)(message.bytes + sizeof(*header) + header->steps * sizeof(struct step));
	data = (char *)(pointers + header->pointers);
	for (uint32_t i = 0; i < header->pointers; i++) {
		uint64_t value;

		must(pointers[i] + sizeof(value) <= header->data);
		memcpy(&value, data + pointers[i], sizeof(value));
		value += (uint64_t)(uintptr_t)data;
		memcpy(data + pointers[i], &value, sizeof(value));
	}
	return (struct step *)(message.bytes + sizeof(*header));
}

static void be_init(void)
{
	struct header header;
	struct step *steps;

	setsid();
	steps = receive(&header);
	for (uint32_t at = 0; at < header.steps; at++)
		at += take(&steps[at]);
	give_up(); /* the last step executes the workload */
}

/* struct clone_args of linux/sched.h, as far as the kernel has had it since 5.7. */
struct clone_arguments {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size,
		cgroup;
};

/* Make an init as the launcher's own child: the number of its process, or an error, negative. */
static int32_t clone_init(uint64_t flags, const int *fds, int count)
{
	struct clone_arguments arguments = { .flags = flags | CLONE_PARENT };
	long pid;

	if (count > 1) {
		arguments.flags |= 0x200000000ULL; /* CLONE_INTO_CGROUP */
		arguments.cgroup = (uint64_t)fds[1];
	}
	pid = syscall(435, &arguments, sizeof(arguments));
	if (pid == 0) {
		dup2(fds[0], CHANNEL);
		for (int i = 0; i < count; i++)
			close(fds[i]);
		be_init();
	}
	return pid < 0 ? -errno : (int32_t)pid;
}

/*
 * For the warm launcher: stay, and make inits whenever it asks. A fork of us costs next to nothing, one of the
 * launcher's interpreter a few thousand pages. Each request is the flags of clone3, with the channel of the new init
 * and, on a host with version 2, its cgroup as descriptors.
 */
static void be_spawner(void)
{
	for (;;) {
		uint64_t flags;
		int fds[2];
		union {
			struct cmsghdr header;
			char space[CMSG_SPACE(sizeof(fds))];
		} control;
		struct iovec part = { .iov_base = &flags, .iov_len = sizeof(flags) };
		struct msghdr whole = {
			.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
		};
		struct cmsghdr *rights;
		int count;
		int32_t answer = -EBADMSG;

		if (recvmsg(CHANNEL, &whole, MSG_CMSG_CLOEXEC) <= 0)
			_exit(0); /* the launcher has ended */
		rights = CMSG_FIRSTHDR(&whole);
		count = rights ? (int)((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
		if (count > 0) {
			memcpy(fds, CMSG_DATA(rights), (size_t)count * sizeof(int));
			answer = clone_init(flags, fds, count);
		}
		for (int i = 0; i < count; i++)
			close(fds[i]);
		if (send(CHANNEL, &answer, sizeof(answer), MSG_NOSIGNAL) != sizeof(answer))
			_exit(1);
	}
}

int main(int count, char **words)
{
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	reset_signals();
	if (count > 1 && strcmp(words[1], "spawner") == 0)
		be_spawner();
	be_init();
}
