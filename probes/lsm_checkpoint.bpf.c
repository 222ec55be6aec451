// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The checkpoint (drift.h) at hooks: of calls by name, of mounts, of sockets, of other processes.
 * A task that should not be where it is gets nothing done from there. Programs of their own, as
 * the checkpoint needs the whole stack; file_open and bprm_creds_for_exec have theirs in
 * lsm_invariants.bpf.c. agent/ringfence/bpf/lsm.py lists the hooks.
 *
 * They look at no argument. A hook that an earlier program has refused does not come here.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/drift.h"
#include "include/lsm.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline int rf_checkpoint(__u32 at)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);

	if (!armed)
		return 0;
	return rf_lsm_verdict(rf_drift_check(task, armed, at | RF_AT_HOOK));
}

/* ---- names --------------------------------------------------------------- */

SEC("lsm/path_link")
int checkpoint_path_link(void *ctx)
{
	return rf_checkpoint(RF_FILE_OPEN);
}

SEC("lsm/path_rename")
int checkpoint_path_rename(void *ctx)
{
	return rf_checkpoint(RF_FILE_OPEN);
}

SEC("lsm/path_unlink")
int checkpoint_path_unlink(void *ctx)
{
	return rf_checkpoint(RF_FILE_OPEN);
}

SEC("lsm/path_rmdir")
int checkpoint_path_rmdir(void *ctx)
{
	return rf_checkpoint(RF_FILE_OPEN);
}

SEC("lsm/path_mkdir")
int checkpoint_path_mkdir(void *ctx)
{
	return rf_checkpoint(RF_FILE_OPEN);
}

SEC("lsm/path_mknod")
int checkpoint_path_mknod(void *ctx)
{
	return rf_checkpoint(RF_FILE_OPEN);
}

SEC("lsm/path_symlink")
int checkpoint_path_symlink(void *ctx)
{
	return rf_checkpoint(RF_FILE_OPEN);
}

SEC("lsm/path_truncate")
int checkpoint_path_truncate(void *ctx)
{
	return rf_checkpoint(RF_FILE_OPEN);
}

SEC("lsm/path_chmod")
int checkpoint_path_chmod(void *ctx)
{
	return rf_checkpoint(RF_FILE_OPEN);
}

SEC("lsm/path_chown")
int checkpoint_path_chown(void *ctx)
{
	return rf_checkpoint(RF_FILE_OPEN);
}

SEC("lsm/path_chroot")
int checkpoint_path_chroot(void *ctx)
{
	return rf_checkpoint(RF_SYS_CHROOT);
}

SEC("lsm/inode_setxattr")
int checkpoint_inode_setxattr(void *ctx)
{
	return rf_checkpoint(RF_SYS_SETXATTR);
}

/* ---- mounts -------------------------------------------------------------- */

SEC("lsm/sb_mount")
int checkpoint_sb_mount(void *ctx)
{
	return rf_checkpoint(RF_SYS_MOUNT);
}

SEC("lsm/sb_umount")
int checkpoint_sb_umount(void *ctx)
{
	return rf_checkpoint(RF_SYS_UMOUNT);
}

SEC("lsm/sb_pivotroot")
int checkpoint_sb_pivotroot(void *ctx)
{
	return rf_checkpoint(RF_SYS_PIVOT_ROOT);
}

SEC("lsm/move_mount")
int checkpoint_move_mount(void *ctx)
{
	return rf_checkpoint(RF_SYS_MOVE_MOUNT);
}

/* ---- sockets ------------------------------------------------------------- */

SEC("lsm/socket_create")
int checkpoint_socket_create(void *ctx)
{
	return rf_checkpoint(RF_SYS_SOCKET);
}

SEC("lsm/socket_bind")
int checkpoint_socket_bind(void *ctx)
{
	return rf_checkpoint(RF_NET_BIND);
}

SEC("lsm/socket_connect")
int checkpoint_socket_connect(void *ctx)
{
	return rf_checkpoint(RF_NET_CONNECT);
}

SEC("lsm/unix_stream_connect")
int checkpoint_unix_stream_connect(void *ctx)
{
	return rf_checkpoint(RF_UNIX_CONNECT);
}

SEC("lsm/unix_may_send")
int checkpoint_unix_may_send(void *ctx)
{
	return rf_checkpoint(RF_UNIX_CONNECT);
}

/* ---- other processes, and new ones ---------------------------------------- */

SEC("lsm/task_alloc")
int checkpoint_task_alloc(void *ctx)
{
	return rf_checkpoint(RF_SYS_CLONE);
}

/* 6.1: 7cd4c5c2101c. Needs no capability, so what was entered before is judged here. */
SEC("lsm/userns_create")
int checkpoint_userns_create(void *ctx)
{
	return rf_checkpoint(RF_SYS_UNSHARE);
}

SEC("lsm/task_kill")
int checkpoint_task_kill(void *ctx)
{
	return rf_checkpoint(RF_PROCESS_EXIT);
}

SEC("lsm/ptrace_access_check")
int checkpoint_ptrace_access_check(void *ctx)
{
	return rf_checkpoint(RF_SYS_PTRACE);
}

/* ---- the kernel ----------------------------------------------------------- */

SEC("lsm/bpf")
int checkpoint_bpf(void *ctx)
{
	return rf_checkpoint(RF_SYS_BPF);
}

SEC("lsm/file_ioctl")
int checkpoint_file_ioctl(void *ctx)
{
	return rf_checkpoint(RF_SYS_IOCTL);
}

/*
 * What needs a capability and reaches no other hook: unshare among them. A call of setns comes
 * here before it takes effect, so what it enters is judged at the next checkpoint, and no later
 * than what the task does then. What the task has made before it is judged here.
 */
SEC("lsm/capable")
int checkpoint_capable(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);
	struct rf_call call;
	int verdict;

	if (!armed)
		return 0;
	verdict = rf_drift_check(task, armed, RF_SYS_SETNS | RF_AT_HOOK);
	if (rf_call_in_progress(task, &call) && rf_call_of_event(&call, RF_SYS_SETNS))
		armed->entering = 1;
	return rf_lsm_verdict(verdict);
}
