/* SPDX-License-Identifier: Apache-2.0 */
/* Calls on the whole kernel: swap, clocks, accounting, fanotify, filesystems, keys, devices. */
#include "adversary.h"
#include <linux/fs.h>
#include <poll.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <time.h>

#define PAGE 4096

/* swap PATH: the node's memory goes into a file of the container's. */
static int attack_swap(char **args)
{
	const char *path = word(args, 0, "/volume/swap");
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	unsigned int header[2] = { 1, 255 };
	static char zero[PAGE];

	need(fd >= 0, "a file");
	for (int i = 0; i < 256; i++)
		need(write(fd, zero, PAGE) == PAGE, "write");
	need(pwrite(fd, header, sizeof(header), 1024) == sizeof(header), "write");
	need(pwrite(fd, "SWAPSPACE2", 10, PAGE - 10) == 10 && !fsync(fd), "write");
	return result(swapon(path, 0));
}

/* settime SECONDS: the node's clock goes forward. */
static int attack_settime(char **args)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	now.tv_sec += number(args, 0, 0);
	return result(clock_settime(CLOCK_REALTIME, &now));
}

/* adjtime SECONDS */
static int attack_adjtime(char **args)
{
	struct timex by = { .modes = ADJ_SETOFFSET, .time = { .tv_sec = number(args, 0, 0) } };

	return result(adjtimex(&by));
}

/* gettime */
static int attack_gettime(char **args)
{
	struct timex by = { .modes = 0 };

	(void)args;
	return result(adjtimex(&by));
}

/* acct PATH: a record of each process that ends goes into that file. */
static int attack_acct(char **args)
{
	long value = acct(word(args, 0, "/volume/acct"));

	if (!value && !fork())
		_exit(0);
	wait(NULL);
	return result(value);
}

/* fanotify MARK PATH TEXT [WAIT]: waits for somebody's open of a file, and writes by the descriptor. */
static int attack_fanotify(char **args)
{
	static const char *const marks[] = { "inode", "mount", "filesystem" };
	static const int flags[] = { 0, FAN_MARK_MOUNT, FAN_MARK_FILESYSTEM };
	struct fanotify_event_metadata event;
	const char *text = word(args, 2, "x");
	struct pollfd poll_for = { .events = POLLIN };
	int mark = 0;

	while (mark < 2 && strcmp(marks[mark], word(args, 0, "inode")))
		mark++;
	poll_for.fd = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC, O_RDWR);
	if (poll_for.fd < 0)
		return result(-1);
	if (fanotify_mark(poll_for.fd, FAN_MARK_ADD | flags[mark], FAN_OPEN, AT_FDCWD, word(args, 1, "/tmp")))
		return result(-1);
	for (long long end = now_ms() + number(args, 3, 4000); now_ms() < end && poll(&poll_for, 1, 500) >= 0;) {
		if (!(poll_for.revents & POLLIN))
			continue;
		if (read(poll_for.fd, &event, sizeof(event)) < (ssize_t)FAN_EVENT_METADATA_LEN)
			return result(-1);
		if (event.fd >= 0 && event.pid != getpid() && write(event.fd, text, strlen(text)) > 0)
			return result(0);
		close(event.fd);
	}
	errno = ETIMEDOUT;
	return result(-1);
}

/* fanotify_stall PATH MILLISECONDS: opens on that mount wait for an answer that does not come. */
static int attack_fanotify_stall(char **args)
{
	int fd = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY);

	if (fd < 0)
		return result(-1);
	if (fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN_PERM | FAN_EVENT_ON_CHILD, AT_FDCWD, word(args, 0, "/tmp")))
		return result(-1);
	usleep(number(args, 1, 2000) * 1000);
	return result(0);
}

/* inotify PATH: lawful. */
static int attack_inotify(char **args)
{
	int fd = inotify_init1(IN_CLOEXEC);

	return result(fd < 0 ? -1 : inotify_add_watch(fd, word(args, 0, "/tmp"), IN_CREATE));
}

/* filesystem_ioctl NUMBER PATH: one that acts on all of a filesystem. */
static int attack_filesystem_ioctl(char **args)
{
	unsigned int argument = 2; /* shut down without flushing */
	int fd = open(word(args, 1, "/tmp"), O_RDONLY);

	if (fd < 0)
		return result(-1);
	return result(ioctl(fd, number(args, 0, FIFREEZE), &argument));
}

/* filesystem_ioctl_32bit NUMBER PATH */
static int attack_filesystem_ioctl_32bit(char **args)
{
	unsigned int *argument;
	int fd;

	need_32bit();
	argument = (void *)low_text("....");
	fd = open(word(args, 1, "/tmp"), O_RDONLY);
	*argument = 2;
	if (fd < 0)
		return result(-1);
	return result(call_32bit(54, fd, number(args, 0, FIFREEZE), (long)argument));
}

/* request_key TYPE TEXT: the kernel runs the node's /sbin/request-key for it. */
static int attack_request_key(char **args)
{
	return result(syscall(SYS_request_key, word(args, 0, "user"), word(args, 1, "x"), word(args, 1, "x"), 0));
}

/* keyring: lawful, as pam_keyinit does. */
static int attack_keyring(char **args)
{
	(void)args;
	return result(syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL));
}

/* device MAJOR MINOR [FLAGS]: a node of the container's own, held open. */
static int attack_device(char **args)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/dev/rf-%d", getpid());
	if (mknod(path, S_IFCHR | 0600, makedev(number(args, 0, 1), number(args, 1, 3))))
		return result(-1);
	fd = open(path, number(args, 2, O_RDONLY) | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return result(-1);
	linger();
	return result(fd);
}

const struct attack kernel_attacks[] = {
	{ "swap", attack_swap },
	{ "settime", attack_settime },
	{ "adjtime", attack_adjtime },
	{ "gettime", attack_gettime },
	{ "acct", attack_acct },
	{ "fanotify", attack_fanotify },
	{ "fanotify_stall", attack_fanotify_stall },
	{ "inotify", attack_inotify },
	{ "filesystem_ioctl", attack_filesystem_ioctl },
	{ "filesystem_ioctl_32bit", attack_filesystem_ioctl_32bit },
	{ "request_key", attack_request_key },
	{ "keyring", attack_keyring },
	{ "device", attack_device },
	{ NULL, NULL },
};
