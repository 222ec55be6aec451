// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The agent's self-defence by BPF-LSM: refused before the effect, on the kernel's objects. Each
 * hook first checks whether it is about the agent, which is cheap and rare; only then it looks at
 * the caller.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/guard.h"
#include "include/lsm.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_PTRACE_MODE_ATTACH 2
#define RF_FMODE_WRITE 2

#define RF_BPF_LINK_UPDATE 29
#define RF_BPF_LINK_GET_FD_BY_ID 30
#define RF_BPF_LINK_DETACH 34

#define RF_NOT_THE_AGENT(task)                                                          \
	do {                                                                            \
		if (!(behind ? rf_task_is_agent(rf_address(task)) : rf_is_agent(task))) \
			return 0;                                                       \
	} while (0)

/* An attempt on an object of the agent at a hook. Returns what the hook has to return. */
static __always_inline int rf_guard_refuse(__u32 what, __u64 detail, __u64 dentry)
{
	return rf_lsm_verdict(rf_guard_hit(what, detail, dentry, 0, true));
}

/* ---- its process -------------------------------------------------------- */

/* Signal 0 only checks that the process exists. */
SEC("lsm/task_kill")
int RF_HOOK(guard_task_kill, struct task_struct *target, void *info, int sig,
	    const struct cred *cred, int ret)
{
	if (ret)
		return ret;
	RF_NOT_THE_AGENT(target);
	return sig ? rf_guard_refuse(RF_TAMPER_SIGNAL, sig, 0) : 0;
}

/*
 * F_SETOWN and F_SETSIG make the kernel send any signal. The current task need not be the one that
 * set it up: the agent uses none.
 */
SEC("lsm/file_send_sigiotask")
int RF_HOOK(guard_file_send_sigiotask, struct task_struct *target, void *owner, int sig, int ret)
{
	if (ret)
		return ret;
	RF_NOT_THE_AGENT(target);
	rf_guard_hit(RF_TAMPER_SIGNAL, sig, 0, 0, true);
	return config.guard == RF_GUARD_DENY ? rf_lsm_refused() : 0;
}

SEC("lsm/task_setrlimit")
int RF_HOOK(guard_task_setrlimit, struct task_struct *target, unsigned int resource, void *limit,
	    int ret)
{
	if (ret)
		return ret;
	RF_NOT_THE_AGENT(target);
	return rf_guard_refuse(RF_TAMPER_LIMIT, resource, 0);
}

SEC("lsm/task_setnice")
int RF_HOOK(guard_task_setnice, struct task_struct *target, int nice, int ret)
{
	if (ret)
		return ret;
	RF_NOT_THE_AGENT(target);
	return rf_guard_refuse(RF_TAMPER_PRIORITY, 0, 0);
}

SEC("lsm/task_setioprio")
int RF_HOOK(guard_task_setioprio, struct task_struct *target, int ioprio, int ret)
{
	if (ret)
		return ret;
	RF_NOT_THE_AGENT(target);
	return rf_guard_refuse(RF_TAMPER_PRIORITY, 0, 0);
}

/* Policy, parameters, CPUs; and a move to another cgroup of the controller cpuset. */
SEC("lsm/task_setscheduler")
int RF_HOOK(guard_task_setscheduler, struct task_struct *target, int ret)
{
	if (ret)
		return ret;
	RF_NOT_THE_AGENT(target);
	return rf_guard_refuse(RF_TAMPER_PRIORITY, 0, 0);
}

SEC("lsm/task_movememory")
int RF_HOOK(guard_task_movememory, struct task_struct *target, int ret)
{
	if (ret)
		return ret;
	RF_NOT_THE_AGENT(target);
	return rf_guard_refuse(RF_TAMPER_PRIORITY, 0, 0);
}

/*
 * ptrace(2), process_vm_readv(2), pidfd_getfd(2), /proc/PID/mem ...; and what /proc only shows:
 * environ, maps, fd ...
 */
SEC("lsm/ptrace_access_check")
int RF_HOOK(guard_ptrace_access_check, struct task_struct *target, unsigned int mode, int ret)
{
	__u32 what = mode & RF_PTRACE_MODE_ATTACH ? RF_TAMPER_TRACE : RF_TAMPER_LOOK;

	if (ret)
		return ret;
	RF_NOT_THE_AGENT(target);
	return rf_guard_refuse(what, mode, 0);
}

/* ---- its objects of BPF -------------------------------------------------- */

SEC("lsm/bpf_map")
int RF_HOOK(guard_bpf_map, struct bpf_map *map, unsigned int mode, int ret)
{
	__u32 id;

	if (ret)
		return ret;
	id = BPF_CORE_READ(map, id);
	if (!rf_is_guarded_object(RF_GUARD_MAP, id))
		return 0;
	return rf_guard_refuse(RF_TAMPER_MAP, id, 0);
}

SEC("lsm/bpf_prog")
int RF_HOOK(guard_bpf_prog, struct bpf_prog *program, int ret)
{
	__u32 id;

	if (ret)
		return ret;
	id = BPF_CORE_READ(program, aux, id);
	if (!rf_is_guarded_object(RF_GUARD_PROGRAM, id))
		return 0;
	return rf_guard_refuse(RF_TAMPER_PROGRAM, id, 0);
}

/*
 * Links have no hook of their own. The id or the descriptor is the first member of the kernel's
 * copy of the arguments. 6.15 gave the hook another argument, so the result of earlier programs is
 * not read.
 */
SEC("lsm/bpf")
int RF_HOOK_NO_RESULT(guard_bpf, int command, void *attr)
{
	__u32 id = 0;
	__u64 file;

	if (command != RF_BPF_LINK_GET_FD_BY_ID && command != RF_BPF_LINK_UPDATE &&
	    command != RF_BPF_LINK_DETACH)
		return 0;
	bpf_probe_read_kernel(&id, sizeof(id), attr);
	if (command != RF_BPF_LINK_GET_FD_BY_ID) {
		file = rf_file_of_fd(id);
		id = file ? RF_READ(struct bpf_link, RF_READ(struct file, file, private_data), id)
			  : 0;
	}
	if (!rf_is_guarded_object(RF_GUARD_LINK, id))
		return 0;
	return rf_guard_refuse(RF_TAMPER_LINK, id, 0);
}

/*
 * A link that is opened from its pin reaches no hook at all. The caller is killed here, and does
 * not return from the call that would give it the descriptor.
 */
SEC("fentry/bpf_link_new_fd")
int BPF_PROG(guard_bpf_link_new_fd, struct bpf_link *link)
{
	__u32 id = BPF_CORE_READ(link, id);

	if (rf_is_guarded_object(RF_GUARD_LINK, id))
		rf_guard_hit(RF_TAMPER_LINK, id, 0, 0, false);
	return 0;
}

/* ---- its files ----------------------------------------------------------- */

SEC("lsm/file_open")
int RF_HOOK(guard_file_open, struct file *opened, int ret)
{
	struct rf_file file = {};
	bool writes = RF_FIELD(behind, opened, f_mode) & RF_FMODE_WRITE;
	__u32 what;

	if (ret)
		return ret;
	file.magic = behind ? BPF_CORE_READ(opened, f_inode, i_sb, s_magic)
			    : opened->f_inode->i_sb->s_magic;
	if (!rf_guard_is_relevant(&file, writes) || !rf_bound(bpf_get_current_task_btf()))
		return 0;
	rf_file_read(&file, rf_address(opened));
	what = rf_guard_opened(&file);
	return what ? rf_guard_refuse(what, 0, file.dentry) : 0;
}

/* An operation on a name. `moves`: a directory of that name takes what is below it along. */
static __always_inline int rf_guard_name(__u64 dentry, bool moves)
{
	__u32 kind;

	if (!config.guard || !rf_bound(bpf_get_current_task_btf()))
		return 0;
	kind = rf_guard_kind(dentry);
	if (kind == RF_GUARD_TREE || kind == RF_GUARD_FILE || (moves && kind == RF_GUARD_ABOVE))
		return rf_guard_refuse(RF_TAMPER_FILE, 0, dentry);
	return 0;
}

SEC("lsm/path_unlink")
int RF_HOOK(guard_path_unlink, const struct path *dir, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return rf_guard_name(rf_address(dentry), true);
}

SEC("lsm/path_rmdir")
int RF_HOOK(guard_path_rmdir, const struct path *dir, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return rf_guard_name(rf_address(dentry), true);
}

/* The flags came in 5.19 (100f59d96405): see lsm_dentry_ops.bpf.c. */
SEC("lsm/path_rename")
int RF_HOOK_NO_RESULT(guard_path_rename, const struct path *old_dir, struct dentry *old_dentry,
		      const struct path *new_dir, struct dentry *new_dentry)
{
	if (rf_guard_name(rf_address(old_dentry), true))
		return rf_lsm_refused();
	return rf_guard_name(rf_address(new_dentry), true);
}

/*
 * Another name for a guarded file, which no guarded directory would show; and a name for another
 * file in a guarded directory.
 */
SEC("lsm/path_link")
int RF_HOOK(guard_path_link, struct dentry *old_dentry, const struct path *new_dir,
	    struct dentry *new_dentry, int ret)
{
	if (ret)
		return ret;
	if (rf_guard_name(rf_address(old_dentry), false))
		return rf_lsm_refused();
	return rf_guard_name(rf_address(new_dentry), false);
}

SEC("lsm/path_symlink")
int RF_HOOK(guard_path_symlink, const struct path *dir, struct dentry *dentry, const char *old_name,
	    int ret)
{
	if (ret)
		return ret;
	return rf_guard_name(rf_address(dentry), false);
}

SEC("lsm/path_mkdir")
int RF_HOOK(guard_path_mkdir, const struct path *dir, struct dentry *dentry, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return rf_guard_name(rf_address(dentry), false);
}

SEC("lsm/path_mknod")
int RF_HOOK(guard_path_mknod, const struct path *dir, struct dentry *dentry, umode_t mode,
	    unsigned int dev, int ret)
{
	if (ret)
		return ret;
	return rf_guard_name(rf_address(dentry), false);
}

static __always_inline int rf_guard_object(const struct path *path)
{
	return rf_guard_name((__u64)BPF_CORE_READ(path, dentry), false);
}

SEC("lsm/path_truncate")
int RF_HOOK(guard_path_truncate, const struct path *path, int ret)
{
	if (ret)
		return ret;
	return rf_guard_object(path);
}

SEC("lsm/path_chmod")
int RF_HOOK(guard_path_chmod, const struct path *path, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return rf_guard_object(path);
}

SEC("lsm/path_chown")
int RF_HOOK(guard_path_chown, const struct path *path, unsigned long long uid,
	    unsigned long long gid, int ret)
{
	if (ret)
		return ret;
	return rf_guard_object(path);
}

/* ---- its mount and its sockets -------------------------------------------- */

static __always_inline int rf_guard_mount(__u64 super)
{
	struct rf_guard_key key = { .device = RF_READ(struct super_block, super, s_dev) };
	__u32 *found = bpf_map_lookup_elem(&guards, &key);

	if (!found || (*found & RF_GUARD_KIND) != RF_GUARD_PINS)
		return 0;
	return rf_guard_refuse(RF_TAMPER_MOUNT, 0, 0);
}

SEC("lsm/sb_umount")
int RF_HOOK(guard_sb_umount, struct vfsmount *mnt, int flags, int ret)
{
	if (ret)
		return ret;
	return rf_guard_mount((__u64)BPF_CORE_READ(mnt, mnt_sb));
}

SEC("lsm/sb_remount")
int RF_HOOK(guard_sb_remount, struct super_block *super, void *options, int ret)
{
	if (ret)
		return ret;
	return rf_guard_mount(rf_address(super));
}

static __always_inline int rf_guard_socket(__u64 socket)
{
	__u64 dentry = (__u64)RF_READ(struct unix_sock, socket, path.dentry);

	if (!dentry || !rf_bound(bpf_get_current_task_btf()))
		return 0;
	if (!rf_guard_kind(dentry))
		return 0;
	return rf_guard_refuse(RF_TAMPER_SOCKET, 0, dentry);
}

SEC("lsm/unix_stream_connect")
int RF_HOOK(guard_unix_stream_connect, struct sock *sock, struct sock *other, struct sock *newsk,
	    int ret)
{
	if (ret)
		return ret;
	return rf_guard_socket(rf_address(other));
}

SEC("lsm/unix_may_send")
int RF_HOOK(guard_unix_may_send, struct socket *sock, struct socket *other, int ret)
{
	if (ret)
		return ret;
	return rf_guard_socket((__u64)BPF_CORE_READ(other, sk));
}
