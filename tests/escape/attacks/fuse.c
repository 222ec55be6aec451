/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A FUSE filesystem like lxcfs: two files that look like a cgroup's and ignore written data. It runs outside of
 * containers, which see it by a bind mount.
 */
#include "attacks.h"
#include <linux/fuse.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>

static const char *const files[] = { "devices.allow", "release_agent" };

#define FIRST 2 /* node 1 is the directory */
#define FILES (sizeof(files) / sizeof(*files))

static void fill(struct fuse_attr *attr, unsigned long long node)
{
	attr->ino = node;
	attr->mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644;
	attr->nlink = 1;
	attr->blksize = 4096;
}

static void reply(int fuse, const struct fuse_in_header *to, int error, const void *body, size_t length)
{
	struct fuse_out_header head = { .len = sizeof(head) + length, .error = error, .unique = to->unique };
	struct iovec parts[] = { { &head, sizeof(head) }, { (void *)body, length } };

	/* The requesting process may have ended. */
	if (writev(fuse, parts, 2) < 0 && errno != ENOENT)
		exit(ERROR);
}

static void look_up(int fuse, const struct fuse_in_header *head, const char *name)
{
	struct fuse_entry_out entry = { 0 };

	for (size_t n = 0; n < FILES; n++)
		if (head->nodeid == 1 && !strcmp(name, files[n])) {
			entry.nodeid = FIRST + n;
			fill(&entry.attr, entry.nodeid);
			reply(fuse, head, 0, &entry, sizeof(entry));
			return;
		}
	reply(fuse, head, -ENOENT, NULL, 0);
}

static void answer(int fuse, const struct fuse_in_header *head, const void *body)
{
	struct fuse_init_out init = { .major = FUSE_KERNEL_VERSION, .max_write = 4096 };
	struct fuse_attr_out attr = { 0 };
	struct fuse_open_out opened = { 0 };
	struct fuse_write_out written = { 0 };

	switch (head->opcode) {
	case FUSE_INIT:
		init.minor = ((const struct fuse_init_in *)body)->minor;
		if (init.minor > FUSE_KERNEL_MINOR_VERSION)
			init.minor = FUSE_KERNEL_MINOR_VERSION;
		reply(fuse, head, 0, &init, sizeof(init));
		return;
	case FUSE_LOOKUP:
		look_up(fuse, head, body);
		return;
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		fill(&attr.attr, head->nodeid);
		reply(fuse, head, 0, &attr, sizeof(attr));
		return;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		reply(fuse, head, 0, &opened, sizeof(opened));
		return;
	case FUSE_WRITE:
		written.size = ((const struct fuse_write_in *)body)->size;
		reply(fuse, head, 0, &written, sizeof(written));
		return;
	case FUSE_READ:
	case FUSE_READDIR:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FLUSH:
		reply(fuse, head, 0, NULL, 0);
		return;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		return; /* these have no answer */
	default:
		reply(fuse, head, -ENOSYS, NULL, 0);
	}
}

/* fuse DIRECTORY: serve such a filesystem, mounted there, until it is unmounted. */
static int attack_fuse(char **args)
{
	static char room[FUSE_MIN_READ_BUFFER * 2];
	int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char options[128];
	ssize_t length;

	need(fuse >= 0, "/dev/fuse");
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse);
	need(!mount("lxcfs", word(args, 0, "/tmp"), "fuse.lxcfs", MS_NOSUID | MS_NODEV, options), "mount");
	puts("ready");
	fflush(stdout);
	while ((length = read(fuse, room, sizeof(room))) > 0 || (length < 0 && (errno == EINTR || errno == ENOENT)))
		if (length >= (ssize_t)sizeof(struct fuse_in_header))
			answer(fuse, (struct fuse_in_header *)room, room + sizeof(struct fuse_in_header));
	return WORKED;
}

const struct attack fuse_attacks[] = {
	{ "fuse", attack_fuse, "be a filesystem like lxcfs, mounted at DIRECTORY" },
	{ NULL, NULL, NULL },
};
