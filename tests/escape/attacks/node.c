/* SPDX-License-Identifier: Apache-2.0 */
/* What belongs to the whole node: its filesystems, its clock, its key services. Nothing is changed. */
#include "attacks.h"
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/quota.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timex.h>
#include <sys/xattr.h>

/* fanotify FLAGS: a group; without FAN_REPORT_FID (0x200) it hands out descriptors. */
static int attack_fanotify(char **args)
{
	try_now("fanotify_init");
	return result(syscall(SYS_fanotify_init, number(args, 0, 0), O_RDONLY));
}

/* fsioctl REQUEST [PATH]: on a filesystem that does not support it, or is not frozen. */
static int attack_fsioctl(char **args)
{
	char argument[4096] = { 0 };
	int fd = open(word(args, 1, "/tmp"), O_RDONLY | O_CLOEXEC);

	need(fd >= 0, "a file");
	try_now("ioctl");
	return result(ioctl(fd, (unsigned long)number(args, 0, 0), argument));
}

/* setxattr NAME PATH: capabilities without a bit, or any other value. */
static int attack_setxattr(char **args)
{
	struct vfs_cap_data none = { .magic_etc = VFS_CAP_REVISION_2 };

	need(args[0] && args[1], "a name and a path");
	if (access(args[1], F_OK))
		close(open(args[1], O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	try_now("setxattr");
	return result(setxattr(args[1], args[0], &none, sizeof(none), 0));
}

/* quota COMMAND PATH: of the filesystem of that file, which has no quotas. */
static int attack_quota(char **args)
{
	char argument[256] = { 0 };
	int fd = open(word(args, 1, "/tmp"), O_RDONLY | O_CLOEXEC);

	need(fd >= 0, "a file");
	try_now("quotactl_fd");
	return result(syscall(SYS_quotactl_fd, fd, QCMD(number(args, 0, 0), USRQUOTA), 0, argument));
}

/* request_key [WORDS]: a key that nobody has; with words, the host's /sbin/request-key gets them. */
static int attack_request_key(char **args)
{
	try_now("request_key");
	return result(syscall(SYS_request_key, "user", "rftest-absent", args[0], 0));
}

/* adjtimex [MODES]: set again what it is, or with 0 only read. */
static int attack_adjtimex(char **args)
{
	struct timex now = { .modes = 0 };

	need(adjtimex(&now) >= 0, "the clock's state");
	now.modes = number(args, 0, 0);
	try_now("adjtimex");
	return result(adjtimex(&now));
}

/* uevent: a message to udev about a device that does not exist, as the kernel sends them. */
static int attack_uevent(char **args)
{
	static const char text[] = "change@/devices/rftest\0ACTION=change\0DEVPATH=/devices/rftest\0SUBSYSTEM=rftest";
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

	(void)args;
	need(fd >= 0, "a socket");
	try_now("sendto");
	return result(sendto(fd, text, sizeof(text), 0, (struct sockaddr *)&kernel, sizeof(kernel)));
}

const struct attack node_attacks[] = {
	{ "fanotify", attack_fanotify, "a fanotify group with FLAGS" },
	{ "fsioctl", attack_fsioctl, "ioctl REQUEST on the directory PATH" },
	{ "setxattr", attack_setxattr, "set the attribute NAME of PATH" },
	{ "quota", attack_quota, "quota COMMAND on the filesystem of PATH" },
	{ "request_key", attack_request_key, "request a key, with WORDS for the host's helper" },
	{ "adjtimex", attack_adjtimex, "set the clock's MODES to what they are" },
	{ "uevent", attack_uevent, "a message to udev about no device" },
	{ NULL, NULL, NULL },
};
