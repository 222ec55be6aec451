/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that change names or attributes and open nothing. */
#include "adversary.h"
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

static int one_symlink(int at, const char *name, const char *to)
{
	return symlinkat(to, at, name);
}

static int one_mkdir(int at, const char *name, const char *to)
{
	(void)to;
	return mkdirat(at, name, 0755);
}

static int one_unlink(int at, const char *name, const char *to)
{
	(void)to;
	return unlinkat(at, name, 0);
}

static int one_rename(int at, const char *name, const char *to)
{
	return renameat(at, name, at, to);
}

static int one_link(int at, const char *name, const char *to)
{
	return linkat(at, name, at, to, 0);
}

static int one_chmod(int at, const char *name, const char *to)
{
	(void)to;
	return fchmodat(at, name, 0777, 0);
}

static int one_mknod(int at, const char *name, const char *to)
{
	(void)to;
	return mknodat(at, name, S_IFIFO | 0644, 0);
}

static int one_device(int at, const char *name, const char *to)
{
	(void)to;
	return mknodat(at, name, S_IFCHR | 0644, makedev(1, 3));
}

static const struct {
	const char *name;
	int (*run)(int at, const char *name, const char *to);
} calls[] = {
	{ "symlink", one_symlink }, { "mkdir", one_mkdir }, { "unlink", one_unlink }, { "rename", one_rename },
	{ "link", one_link },	    { "chmod", one_chmod }, { "mknod", one_mknod },   { "device", one_device },
};

static int run_call(const char *call, int at, const char *name, const char *to)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if (!strcmp(calls[i].name, call))
			return calls[i].run(at, name, to);
	exit(USAGE);
}

/* name CALL DIRECTORY NAME [TO]: by a directory that gives no access (O_PATH). */
static int attack_name(char **args)
{
	int at = open(word(args, 1, "/tmp"), O_PATH | O_DIRECTORY);

	if (at < 0)
		return result(-1);
	return result(run_call(word(args, 0, "mkdir"), at, word(args, 2, "x"), word(args, 3, "y")));
}

/* name_path CALL DIRECTORY NAME [TO]: by the whole path. */
static int attack_name_path(char **args)
{
	const char *directory = word(args, 1, "/tmp");
	char name[4096], to[4096];

	snprintf(name, sizeof(name), "%s/%s", directory, word(args, 2, "x"));
	if (strcmp(word(args, 0, "mkdir"), "symlink"))
		snprintf(to, sizeof(to), "%s/%s", directory, word(args, 3, "y"));
	else
		snprintf(to, sizeof(to), "%s", word(args, 3, "y"));
	return result(run_call(word(args, 0, "mkdir"), AT_FDCWD, name, to));
}

/* name_cwd CALL DIRECTORY NAME [TO]: from a working directory there. */
static int attack_name_cwd(char **args)
{
	if (chdir(word(args, 1, "/tmp")))
		return result(-1);
	return result(run_call(word(args, 0, "mkdir"), AT_FDCWD, word(args, 2, "x"), word(args, 3, "y")));
}

/* name_root CALL DIRECTORY NAME [TO]: from a root directory there (chroot). */
static int attack_name_root(char **args)
{
	char name[4096], to[4096];

	if (chroot(word(args, 1, "/tmp")) || chdir("/"))
		return result(-1);
	snprintf(name, sizeof(name), "/%s", word(args, 2, "x"));
	snprintf(to, sizeof(to), "/%s", word(args, 3, "y"));
	return result(run_call(word(args, 0, "mkdir"), AT_FDCWD, name, to));
}

/* truncate PATH */
static int attack_truncate(char **args)
{
	return result(truncate(word(args, 0, "/tmp/x"), 0));
}

/* replace PATH TEXT FROM: a file of the container's, moved over one of the same filesystem. */
static int attack_replace(char **args)
{
	const char *from = word(args, 2, "/tmp/from");
	int fd = open(from, O_WRONLY | O_CREAT | O_TRUNC, 0755);

	need(fd >= 0 && write(fd, word(args, 1, "x"), strlen(word(args, 1, "x"))) > 0, "a file");
	return result(rename(from, word(args, 0, "/tmp/x")));
}

/* other_name PATH TEXT LINK: a second name for the file, and writing by that. */
static int attack_other_name(char **args)
{
	int fd;

	if (link(word(args, 0, "/tmp/x"), word(args, 2, "/tmp/y")))
		return result(-1);
	fd = open(word(args, 2, "/tmp/y"), O_WRONLY);
	if (fd < 0)
		return result(-1);
	return result(write(fd, word(args, 1, "x"), strlen(word(args, 1, "x"))));
}

/* All capabilities, effective. */
static const unsigned int capability[5] = { 0x02000001, 0xffffffff, 0, 0x1ff, 0 };

/* xattr PATH NAME: a file capability. */
static int attack_xattr(char **args)
{
	return result(setxattr(word(args, 0, "/tmp/x"), word(args, 1, "security.capability"), capability,
			       sizeof(capability), 0));
}

/* fxattr PATH NAME: the same by a descriptor. */
static int attack_fxattr(char **args)
{
	int fd = open(word(args, 0, "/tmp/x"), O_RDONLY);

	if (fd < 0)
		return result(-1);
	return result(fsetxattr(fd, word(args, 1, "security.capability"), capability, sizeof(capability), 0));
}

/* setid PATH: the set-id bit of a file that is there. */
static int attack_setid(char **args)
{
	return result(chmod(word(args, 0, "/tmp/x"), 04755));
}

/* setid_new PATH: a file that has it from the start. */
static int attack_setid_new(char **args)
{
	umask(0);
	return result(open(word(args, 0, "/tmp/x"), O_WRONLY | O_CREAT | O_EXCL, 04755));
}

/* link_into CALL FROM TO TARGET: makes a symbolic link FROM, then moves it or gives it the name TO. */
static int attack_link_into(char **args)
{
	const char *from = word(args, 1, "/tmp/x"), *to = word(args, 2, "/tmp/y");

	need(!symlink(word(args, 3, "file"), from), "a link");
	return result(run_call(word(args, 0, "rename"), AT_FDCWD, from, to));
}

/* link_within CALL FROM TO TARGET: moves a directory with such a link in it. */
static int attack_link_within(char **args)
{
	const char *from = word(args, 1, "/tmp/x"), *to = word(args, 2, "/tmp/y");
	char link[4096];

	snprintf(link, sizeof(link), "%s/link", from);
	need(!mkdir(from, 0755) && !symlink(word(args, 3, "file"), link), "a link in a directory");
	return result(run_call(word(args, 0, "rename"), AT_FDCWD, from, to));
}

/* flags PATH: by a descriptor that is only for reading. */
static int attack_flags(char **args)
{
	int fd = open(word(args, 0, "/tmp/x"), O_RDONLY), flags;

	need(fd >= 0 && !ioctl(fd, FS_IOC_GETFLAGS, &flags), "open for reading");
	flags |= FS_NODUMP_FL;
	return result(ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

/* xflags PATH: the same by the other ioctl. */
static int attack_xflags(char **args)
{
	int fd = open(word(args, 0, "/tmp/x"), O_RDONLY);
	struct fsxattr flags;

	need(fd >= 0 && !ioctl(fd, FS_IOC_FSGETXATTR, &flags), "open for reading");
	flags.fsx_xflags |= FS_XFLAG_NODUMP;
	return result(ioctl(fd, FS_IOC_FSSETXATTR, &flags));
}

#define CALL_FILE_SETATTR 469

/* file_setattr PATH: the same by path, from Linux 6.17 on. */
static int attack_file_setattr(char **args)
{
	struct {
		unsigned long long xflags;
		unsigned int other[4];
	} flags = { .xflags = FS_XFLAG_NODUMP };
	long done = syscall(CALL_FILE_SETATTR, AT_FDCWD, word(args, 0, "/tmp/x"), &flags, sizeof(flags), 0);

	need(!done || errno != ENOSYS, "file_setattr");
	return result(done);
}

/* times PATH: as if it was changed in 1970. */
static int attack_times(char **args)
{
	struct timespec times[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	int fd = open(word(args, 0, "/tmp/x"), O_RDONLY);

	need(fd >= 0, "open for reading");
	return result(futimens(fd, times));
}

const struct attack name_attacks[] = {
	{ "name", attack_name },
	{ "name_path", attack_name_path },
	{ "name_cwd", attack_name_cwd },
	{ "name_root", attack_name_root },
	{ "truncate", attack_truncate },
	{ "replace", attack_replace },
	{ "other_name", attack_other_name },
	{ "xattr", attack_xattr },
	{ "fxattr", attack_fxattr },
	{ "setid", attack_setid },
	{ "setid_new", attack_setid_new },
	{ "link_into", attack_link_into },
	{ "link_within", attack_link_within },
	{ "flags", attack_flags },
	{ "xflags", attack_xflags },
	{ "file_setattr", attack_file_setattr },
	{ "times", attack_times },
	{ NULL, NULL },
};
