// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Changes of directories and modes. These are the hooks on paths, not those on inodes: they fire
 * for a process's call (or for an io_uring), and not when overlayfs makes its own nodes for the
 * process.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm.h"
#include "include/lsm_path.h"
#include "include/open.h"
#include "include/own_root.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_RENAME_EXCHANGE 2

/* operands */
#define RF_DIM_CHMOD_FILESYSTEM 1
#define RF_DIM_CHMOD_TREE 2
#define RF_DIM_EXCHANGED 1
#define RF_EXCHANGED_ALIKE 1
#define RF_EXCHANGED_DIRECTORY_AND_LINK 2

/* The operands of an event chmod. */
static __always_inline void rf_chmod_operands(struct rf_lsm *lsm, __u32 mode, __u64 dentry)
{
	__u64 super = (__u64)RF_READ(struct dentry, dentry, d_sb);

	rf_lsm_operand(lsm, 0, mode);
	rf_lsm_operand(lsm, RF_DIM_CHMOD_FILESYSTEM, RF_READ(struct super_block, super, s_magic));
	rf_lsm_operand(lsm, RF_DIM_CHMOD_TREE, rf_whose_name(dentry, lsm->armed->container_root));
}

__noinline int rf_decide_setid(__u32 mode, __u64 dentry, __u64 name)
{
	struct rf_lsm lsm;

	if (!rf_lsm_armed(&lsm))
		return RF_ACTION_NONE;
	rf_lsm_query(&lsm, RF_SYS_CHMOD);
	rf_chmod_operands(&lsm, mode, dentry);
	rf_lsm_decide(&lsm, name);
	return lsm.query.action;
}

/*
 * mknod, and open with O_CREAT: a file that is setuid from the start is as good as a chmod. On a
 * stack of its own.
 */
SEC("lsm/path_mknod")
int RF_HOOK(setid_path_mknod, const struct path *dir, struct dentry *dentry, umode_t mode,
	    unsigned int dev, int ret)
{
	__u32 type = mode & RF_S_IFMT;

	if (ret)
		return ret;
	if ((type && type != RF_S_IFREG) || !(mode & RF_S_ISUGID))
		return 0;
	return rf_lsm_verdict(rf_decide_setid(mode, rf_address(dentry),
					      (__u64)BPF_CORE_READ(dentry, d_name.name)));
}

/* A socket that is bound comes here, too, and is no mknod. */
SEC("lsm/path_mknod")
int RF_HOOK(lsm_path_mknod, const struct path *dir, struct dentry *dentry, umode_t mode,
	    unsigned int dev, int ret)
{
	__u32 type = mode & RF_S_IFMT;
	struct rf_lsm lsm;
	__u64 name;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	name = (__u64)BPF_CORE_READ(dentry, d_name.name);
	if (!type)
		type = RF_S_IFREG;
	if (!rf_lsm_query(&lsm, RF_SYS_MKNOD) && (type == RF_S_IFREG || type == RF_S_IFSOCK))
		return 0;
	rf_lsm_operand(&lsm, 0, type);
	return rf_lsm_decide(&lsm, name);
}

/* Where a link leads, by its text. */
#define RF_LEADS_ABSOLUTE 1
#define RF_LEADS_CLIMBING 2

/*
 * Takes the next character of a link's text. `dots` counts those of the name so far; 3: another
 * name. Returns 0 at the end.
 */
__noinline int rf_link_step(struct rf_scratch *buffer, __u32 at)
{
	char c;

	if (!buffer || at >= RF_NAME_MAX)
		return false;
	c = buffer->name[at];
	if (c == '/' || !c) {
		if (buffer->dots == 2)
			buffer->link_flags |= RF_LEADS_CLIMBING;
		buffer->dots = 0;
		return c;
	}
	buffer->dots = c == '.' && buffer->dots < 2 ? buffer->dots + 1 : 3;
	return true;
}

/*
 * A text that does not fit may climb after its end. The loop's round is a function: see path.bpf.c.
 */
static __always_inline __u32 rf_link_flags(struct rf_scratch *buffer)
{
	__u32 i;

	buffer->dots = 0;
	buffer->link_flags = buffer->name[0] == '/' ? RF_LEADS_ABSOLUTE : 0;
	for (i = 0; i < RF_NAME_MAX - 1; i++) {
		if (!rf_link_step(buffer, i))
			return buffer->link_flags;
	}
	return buffer->link_flags | RF_LEADS_CLIMBING;
}

/*
 * Decides file.link: a link gets a name, or a directory that may have links in it. `target`: the
 * text; 0: it is not known, and counts as the worst.
 */
__noinline int rf_link_decide(__u64 mnt, __u64 dentry, __u64 target, __u32 type)
{
	struct rf_query query;
	struct rf_scratch *buffer;
	struct rf_file file;
	struct rf_lsm lsm;
	__u32 answer, tree;

	if (!rf_lsm_armed(&lsm))
		return RF_ACTION_NONE;
	buffer = rf_scratch_claim(&lsm.armed->scratch);
	if (!buffer) {
		rf_query_init(&query, RF_FILE_LINK, &lsm.armed->task, lsm.container);
		rf_fail_no_scratch(&query, RF_MECHANISM_LSM);
		return query.action;
	}
	rf_file_named(&file, mnt, dentry, 0);
	file.mode = type;
	file.flags = RF_LEADS_ABSOLUTE | RF_LEADS_CLIMBING;
	if (target && bpf_probe_read_kernel_str(buffer->name, RF_NAME_MAX, (void *)target) > 0)
		file.flags = rf_link_flags(buffer);
	rf_scratch_release(buffer);
	tree = rf_tree_of_file(&file, lsm.armed->container_root, 0) << RF_TREE_SHIFT;
	tree |= rf_file_type(&file, rf_mount_owner(&lsm.armed->task, &file));
	answer = rf_file_query(&query, RF_FILE_LINK, lsm.task, &lsm.armed->task, lsm.container,
			       &file, tree, rf_in_compat(lsm.task));
	if (!rf_file_is_relevant(&query, RF_FILE_LINK, answer, &lsm.armed->task, lsm.container))
		return RF_ACTION_NONE;
	rf_file_decide(&query, lsm.task, lsm.armed, lsm.container, &file, answer, -1, 0,
		       RF_MECHANISM_LSM, false);
	return query.action;
}

SEC("lsm/path_symlink")
int RF_HOOK(lsm_path_symlink, const struct path *dir, struct dentry *dentry, const char *target,
	    int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_SYMLINK);
	return rf_lsm_decide(&lsm, (__u64)target);
}

/* Besides it, on a stack of its own. */
SEC("lsm/path_symlink")
int RF_HOOK(link_path_symlink, const struct path *dir, struct dentry *dentry, const char *target,
	    int ret)
{
	if (ret)
		return ret;
	return rf_lsm_verdict(rf_link_decide((__u64)BPF_CORE_READ(dir, mnt), rf_address(dentry),
					     (__u64)target, RF_S_IFLNK));
}

/*
 * Returns true if a link, or a directory that may have links in it, gets a name in another tree:
 * that is as good as a new link there. Within a tree it was decided when it was made, or the host
 * has made it.
 */
__noinline int rf_link_crosses(__u64 from, __u64 to)
{
	__u64 inode = (__u64)RF_READ(struct dentry, from, d_inode);
	__u32 type = inode ? RF_READ(struct inode, inode, i_mode) & RF_S_IFMT : 0;
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());

	if (!armed || (type != RF_S_IFLNK && type != RF_S_IFDIR))
		return false;
	return rf_whose_name(from, armed->container_root) !=
	       rf_whose_name(to, armed->container_root);
}

static __always_inline __u32 rf_link_moved(const struct path *dir, const struct dentry *from,
					   const struct dentry *to)
{
	const struct inode *inode = BPF_CORE_READ(from, d_inode);
	__u32 type;

	if (!rf_link_crosses(rf_address(from), rf_address(to)))
		return RF_ACTION_NONE;
	type = BPF_CORE_READ(inode, i_mode) & RF_S_IFMT;
	return rf_link_decide((__u64)BPF_CORE_READ(dir, mnt), rf_address(to),
			      type == RF_S_IFLNK ? (__u64)BPF_CORE_READ(inode, i_link) : 0, type);
}

SEC("lsm/path_link")
int RF_HOOK(link_path_link, struct dentry *old_dentry, const struct path *new_dir,
	    struct dentry *new_dentry, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_verdict(rf_link_moved(new_dir, old_dentry, new_dentry));
}

/* Of an exchange the other file moves as well. The flags: see names_path_rename. */
SEC("lsm/path_rename")
int RF_HOOK_NO_RESULT(link_path_rename, const struct path *old_dir, struct dentry *old_dentry,
		      const struct path *new_dir, struct dentry *new_dentry, unsigned int flags)
{
	if (rf_refuses(rf_link_moved(new_dir, old_dentry, new_dentry)))
		return rf_lsm_refused();
	if (!(flags & RF_RENAME_EXCHANGE))
		return 0;
	return rf_lsm_verdict(rf_link_moved(old_dir, new_dentry, old_dentry));
}

SEC("lsm/path_chmod")
int RF_HOOK(lsm_path_chmod, const struct path *path, umode_t mode, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_CHMOD);
	rf_chmod_operands(&lsm, mode, (__u64)BPF_CORE_READ(path, dentry));
	return rf_lsm_decide_path(&lsm, (__u64)BPF_CORE_READ(path, mnt),
				  (__u64)BPF_CORE_READ(path, dentry));
}

SEC("lsm/path_chroot")
int RF_HOOK(lsm_path_chroot, const struct path *path, int ret)
{
	struct rf_lsm lsm;
	bool host;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_CHROOT);
	rf_lsm_operand(&lsm, RF_DIM_CHROOTED, rf_is_chrooted());
	host = rf_is_host_root((__u64)BPF_CORE_READ(path, dentry));
	rf_lsm_operand(&lsm, RF_DIM_NEW_ROOT, host ? RF_ROOT_OF_HOST : RF_ROOT_OTHER);
	return rf_lsm_decide_path(&lsm, (__u64)BPF_CORE_READ(path, mnt),
				  (__u64)BPF_CORE_READ(path, dentry));
}

/*
 * renameat2 with RENAME_EXCHANGE, as when a directory is swapped for a link while a runtime walks
 * through it. The flags came here in 5.19 (100f59d96405). Before, this is the result of earlier
 * programs, and the flags of the call are used.
 */
SEC("lsm/path_rename")
int RF_HOOK_NO_RESULT(lsm_path_exchange, const struct path *old_dir, struct dentry *old_dentry,
		      const struct path *new_dir, struct dentry *new_dentry, unsigned int flags)
{
	__u32 one, other, kinds = RF_EXCHANGED_ALIKE;
	struct rf_lsm lsm;

	if (!rf_lsm_armed(&lsm))
		return 0;
	if (!rf_lsm_query(&lsm, RF_SYS_RENAME))
		rf_lsm_operand(&lsm, 0, flags);
	if (!lsm.query.value[0])
		return 0;
	one = BPF_CORE_READ(old_dentry, d_inode, i_mode) & RF_S_IFMT;
	other = BPF_CORE_READ(new_dentry, d_inode, i_mode) & RF_S_IFMT;
	if ((one == RF_S_IFDIR && other == RF_S_IFLNK) ||
	    (one == RF_S_IFLNK && other == RF_S_IFDIR))
		kinds = RF_EXCHANGED_DIRECTORY_AND_LINK;
	rf_lsm_operand(&lsm, RF_DIM_EXCHANGED, lsm.query.value[0] & RF_RENAME_EXCHANGE ? kinds : 0);
	return rf_lsm_decide_path(&lsm, (__u64)BPF_CORE_READ(new_dir, mnt), rf_address(new_dentry));
}
