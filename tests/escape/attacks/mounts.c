/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts by the old and the new interface, all inside the container's own mount namespace. */
#include "attacks.h"
#include <linux/mount.h>
#include <sys/stat.h>

/* sys/mount.h and linux/mount.h cannot be included together with every libc. */
int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
int umount2(const char *target, int flags);
#ifndef MS_BIND
#define MS_RDONLY 1
#define MS_REMOUNT 32
#define MS_BIND 4096
#define MS_PRIVATE (1 << 18)
#endif
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

/* Paths of glibc's system call numbers that older headers lack. */
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

static const char *spot(const char *name)
{
	static char path[64];

	snprintf(path, sizeof(path), "/tmp/%s", name);
	mkdir(path, 0700);
	return path;
}

/* mount FSTYPE [SOURCE [DATA]]: mount a filesystem of this type on an empty directory. */
static int attack_mount(char **args)
{
	const char *type = word(args, 0, "tmpfs"), *where = spot("mounted");

	try_now("mount");
	return result(mount(word(args, 1, "none"), where, type, 0, word(args, 2, NULL)));
}

/* mount_magic [FSTYPE]: the same with the magic number of old, whose bits look like flags. */
static int attack_mount_magic(char **args)
{
	const char *type = word(args, 0, "tmpfs"), *where = spot("magic");

	try_now("mount");
	return result(mount("none", where, type, 0xc0ed0000 /* MS_MGC_VAL */, NULL));
}

static int attack_bind(char **args)
{
	const char *from = word(args, 0, "/etc"), *where = spot("bound");

	try_now("mount");
	return result(mount(from, where, NULL, MS_BIND, NULL));
}

/* remount: make a read-only bind mount of an own directory writable. */
static int attack_remount(char **args)
{
	const char *where = word(args, 0, NULL);

	if (!where) {
		where = spot("readonly");
		need(!mount(where, where, NULL, MS_BIND, NULL), "bind mount");
	}
	try_now("mount");
	return result(mount(NULL, where, NULL, MS_REMOUNT | MS_BIND, NULL));
}

/* private: change only the propagation, as unshare -m does for all mounts. */
static int attack_private(char **args)
{
	try_now("mount");
	return result(mount(NULL, word(args, 0, "/tmp"), NULL, MS_PRIVATE, NULL));
}

/* umount PATH: unmount (an unmask); with 1 lazily. A PATH that is not a mount gives EINVAL. */
static int attack_umount(char **args)
{
	const char *where = word(args, 0, "/tmp");

	try_now("umount2");
	return result(umount2(where, number(args, 1, 0) ? MNT_DETACH : 0));
}

static int attack_pivot_root(char **args)
{
	try_now("pivot_root");
	return result(syscall(SYS_pivot_root, word(args, 0, "/tmp"), word(args, 1, "/tmp")));
}

static int attack_chroot(char **args)
{
	try_now("chroot");
	return result(chroot(word(args, 0, "/tmp")));
}

/* chroot_out [DIRECTORY]: chroot, and again from an open directory outside of it. */
static int attack_chroot_out(char **args)
{
	int outside = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	need(outside >= 0 && !chroot(word(args, 0, "/tmp")) && !fchdir(outside), "chroot");
	try_now("chroot");
	return result(chroot("."));
}

static int attack_fsopen(char **args)
{
	try_now("fsopen");
	return result(syscall(SYS_fsopen, word(args, 0, "proc"), 0));
}

/* fsconfig FD: set a parameter of a leaked filesystem context. */
static int attack_fsconfig(char **args)
{
	try_now("fsconfig");
	return result(syscall(SYS_fsconfig, number(args, 0, -1), 1 /* SET_STRING */, "source", "none", 0));
}

/* fsmount [FD]: without one it fails by itself, but after the kernel's permission check. */
static int attack_fsmount(char **args)
{
	try_now("fsmount");
	return result(syscall(SYS_fsmount, number(args, 0, -1), 0, 0));
}

static int attack_fspick(char **args)
{
	try_now("fspick");
	return result(syscall(SYS_fspick, AT_FDCWD, word(args, 0, "/tmp"), 0));
}

#define NEW_NAMESPACE 2 /* OPEN_TREE_NAMESPACE, of 7.0 */

/* open_tree PATH [FLAGS]: open a mount, or with OPEN_TREE_CLONE a copy of it. */
static int attack_open_tree(char **args)
{
	long flags = number(args, 1, OPEN_TREE_CLONE), tree;

	try_now("open_tree");
	tree = syscall(SYS_open_tree, AT_FDCWD, word(args, 0, "/etc"), flags);
	if (tree < 0 && flags & NEW_NAMESPACE && errno == EINVAL)
		errno = ENOSYS; /* this kernel does not know the flag */
	return result(tree);
}

/* move_mount FD: attach a leaked mount. */
static int attack_move_mount(char **args)
{
	const char *where = spot("moved");

	try_now("move_mount");
	return result(syscall(SYS_move_mount, number(args, 0, -1), "", AT_FDCWD, where, 4 /* F_EMPTY_PATH */));
}

/*
 * hand PROGRAM [ARG...]: execute PROGRAM with a filesystem context as descriptor 4 and a detached mount as 5, to
 * leak them to a container.
 */
static int attack_hand(char **args)
{
	int fs = syscall(SYS_fsopen, "tmpfs", 0), other = syscall(SYS_fsopen, "tmpfs", 0);

	need(args[0] && fs >= 0 && other >= 0, "fsopen tmpfs");
	need(!syscall(SYS_fsconfig, other, 6 /* CMD_CREATE */, NULL, NULL, 0), "fsconfig create");
	other = syscall(SYS_fsmount, other, 0, 0);
	need(dup2(other, 10) == 10 && dup2(fs, 4) == 4 && dup2(10, 5) == 5, "descriptors");
	for (int fd = 8; fd < 64; fd++)
		close(fd);
	execvp(args[0], args);
	need(0, args[0]);
	return SETUP;
}

/* mount_setattr: clear read-only and nosuid of an own mount. */
static int attack_mount_setattr(char **args)
{
	struct {
		unsigned long long set, clear, propagation, user;
	} attributes = { .clear = 1 | 2 };
	const char *where = word(args, 0, "/tmp");

	try_now("mount_setattr");
	return result(syscall(SYS_mount_setattr, AT_FDCWD, where, 0, &attributes, sizeof(attributes)));
}

const struct attack mount_attacks[] = {
	{ "mount", attack_mount, "mount FSTYPE [SOURCE [DATA]] on a new directory" },
	{ "mount_magic", attack_mount_magic, "mount [FSTYPE] with MS_MGC_VAL in its flags" },
	{ "bind", attack_bind, "bind mount [DIRECTORY]" },
	{ "remount", attack_remount, "remount [PATH] writable" },
	{ "private", attack_private, "make the mount [PATH] private" },
	{ "umount", attack_umount, "umount [PATH [1: lazily]]" },
	{ "pivot_root", attack_pivot_root, "pivot_root NEW OLD" },
	{ "chroot", attack_chroot, "chroot [DIRECTORY]" },
	{ "chroot_out", attack_chroot_out, "chroot [DIRECTORY], and out of it again" },
	{ "hand", attack_hand, "PROGRAM [ARG...] with mounts in its hands" },
	{ "fsopen", attack_fsopen, "fsopen [FSTYPE]" },
	{ "fsconfig", attack_fsconfig, "configure the filesystem of descriptor FD" },
	{ "fsmount", attack_fsmount, "make a mount of the filesystem [FD]" },
	{ "fspick", attack_fspick, "pick [PATH] for a change of its options" },
	{ "open_tree", attack_open_tree, "clone the tree at [PATH [FLAGS]]" },
	{ "move_mount", attack_move_mount, "attach the mount of descriptor FD" },
	{ "mount_setattr", attack_mount_setattr, "clear read-only and nosuid of [PATH]" },
	{ NULL, NULL, NULL },
};
