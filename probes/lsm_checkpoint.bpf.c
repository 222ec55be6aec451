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

#define RF_CHECKPOINT(hook, at)                  \
	SEC("lsm/" #hook)                        \
	int RF_HOOK_NO_RESULT(checkpoint_##hook) \
	{                                        \
		return rf_checkpoint(at);        \
	}

/* ---- names --------------------------------------------------------------- */

RF_CHECKPOINT(path_link, RF_FILE_OPEN)
RF_CHECKPOINT(path_rename, RF_FILE_OPEN)
RF_CHECKPOINT(path_unlink, RF_FILE_OPEN)
RF_CHECKPOINT(path_rmdir, RF_FILE_OPEN)
RF_CHECKPOINT(path_mkdir, RF_FILE_OPEN)
RF_CHECKPOINT(path_mknod, RF_FILE_OPEN)
RF_CHECKPOINT(path_symlink, RF_FILE_OPEN)
RF_CHECKPOINT(path_truncate, RF_FILE_OPEN)
RF_CHECKPOINT(path_chmod, RF_FILE_OPEN)
RF_CHECKPOINT(path_chown, RF_FILE_OPEN)
RF_CHECKPOINT(path_chroot, RF_SYS_CHROOT)
RF_CHECKPOINT(inode_setxattr, RF_SYS_SETXATTR)

/* ---- mounts -------------------------------------------------------------- */

RF_CHECKPOINT(sb_mount, RF_SYS_MOUNT)
RF_CHECKPOINT(sb_umount, RF_SYS_UMOUNT)
RF_CHECKPOINT(sb_pivotroot, RF_SYS_PIVOT_ROOT)
RF_CHECKPOINT(move_mount, RF_SYS_MOVE_MOUNT)

/* ---- sockets ------------------------------------------------------------- */

RF_CHECKPOINT(socket_create, RF_SYS_SOCKET)
RF_CHECKPOINT(socket_bind, RF_NET_BIND)
RF_CHECKPOINT(socket_connect, RF_NET_CONNECT)
RF_CHECKPOINT(unix_stream_connect, RF_UNIX_CONNECT)
RF_CHECKPOINT(unix_may_send, RF_UNIX_CONNECT)

/* ---- other processes, and new ones ---------------------------------------- */

RF_CHECKPOINT(task_alloc, RF_SYS_CLONE)

/* 6.1: 7cd4c5c2101c. Needs no capability, so what was entered before is judged here. */
RF_CHECKPOINT(userns_create, RF_SYS_UNSHARE)
RF_CHECKPOINT(task_kill, RF_PROCESS_EXIT)
RF_CHECKPOINT(ptrace_access_check, RF_SYS_PTRACE)

/* ---- the kernel ----------------------------------------------------------- */

RF_CHECKPOINT(bpf, RF_SYS_BPF)
RF_CHECKPOINT(file_ioctl, RF_SYS_IOCTL)

/*
 * What needs a capability and reaches no other hook: unshare among them. A call of setns comes
 * here before it takes effect, so what it enters is judged at the next checkpoint, and no later
 * than what the task does then. What the task has made before it is judged here.
 */
SEC("lsm/capable")
int RF_HOOK_NO_RESULT(checkpoint_capable)
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
