// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Opens, decided on the kernel's struct file when the call is about to return: never on a path that
 * another thread can change. The task is killed before it can use the descriptor. This is the
 * hottest path of all: what costs (another mount's namespace, a name, the path) is read only if a
 * rule needs it.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/borrowed.h"
#include "include/look.h"
#include "include/open.h"
#include "include/unix_server.h"
#include "include/guard.h"
#include "include/lost.h"

#define RF_NR_OPENAT2 437 /* on every architecture */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Returns true if the call has emptied the file, which is possible although the file is open for
 * reading only. The file's flags do not show it any more. Those of openat2 are read again, and may
 * have changed; if they cannot be read, it may have.
 */
static __always_inline bool rf_truncated(struct pt_regs *regs, __u32 nr, bool compat)
{
	__u64 flags = rf_open_flags_at(regs, nr, compat);

	if (nr == RF_NR_OPENAT2 && bpf_probe_read_user(&flags, sizeof(flags), (void *)flags))
		return true;
	return flags & RF_O_TRUNC;
}

/*
 * The descriptor is gone: another thread has closed it, perhaps after it made another one for the
 * same file. So the file may be any.
 */
static __always_inline void rf_opened_unseen(struct rf_query *query, const struct rf_task *bound,
					     const struct rf_container *container)
{
	rf_query_init(query, RF_FILE_OPEN, bound, container);
	rf_fail_no_scratch(query, RF_MECHANISM_KILL);
}

/*
 * Returns true if the open began before the task was bound, once: a runtime may wait in it for the
 * start of a container (an open of its fifo), which is bound meanwhile (adopt.bpf.c).
 */
static __always_inline bool rf_began_unbound(struct task_struct *task, struct rf_armed *armed,
					     bool compat)
{
	__u32 mark = armed->began_unbound;

	if (!mark)
		return false;
	armed->began_unbound = 0;
	return mark == rf_call_mark(task, compat);
}

/* The caller has called rf_settle_current(): from here there would not be stack enough. */
rf_subprogram int rf_opened(struct task_struct *task, bool compat)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct rf_container *container;
	struct rf_query query;
	struct rf_armed *armed;
	struct rf_file file;
	__u32 answer, owner, what, nr;
	__u64 at;
	long fd;

	armed = rf_bound(task);
	if (!armed || rf_began_unbound(task, armed, compat))
		return 0;
	fd = rf_return_value(regs);
	if (fd < 0)
		return 0;
	container = rf_container_of_current(&armed->task);
	if (!container)
		return 0;
	rf_count(armed->task.slot, RF_COUNT_OPEN);
	at = rf_file_of_fd(fd);
	if (!at) {
		rf_opened_unseen(&query, &armed->task, container);
		return 0;
	}
	rf_file_read(&file, at);
	nr = rf_call_number(regs);
	if (!(file.flags & (RF_O_ACCMODE | RF_O_PATH)) && rf_truncated(regs, nr, compat))
		file.flags |= RF_O_RDWR;
	if (rf_guard_is_relevant(&file, file.flags & RF_O_ACCMODE)) {
		what = rf_guard_opened(&file);
		if (what)
			rf_guard_hit(what, 0, file.dentry, 0, false);
	}
	owner = rf_opens_by_handle(nr, compat)
			? rf_mount_owner_or_outside(task, &armed->task, &file)
			: rf_mount_owner(&armed->task, &file);
	if (rf_is_reached(&file, owner))
		owner = rf_reached_by_call(file.inode, file.magic, owner, fd);
	answer = rf_file_prefilter(&query, task, armed, container, &file, owner, compat);
	if (rf_file_is_relevant(&query, RF_FILE_OPEN, answer, &armed->task, container)) {
		rf_file_decide(&query, task, armed, container, &file, answer, fd,
			       compat ? RF_FLAG_COMPAT : 0, RF_MECHANISM_KILL, false);
		if (rf_refuses(query.action))
			return 0;
	}
	if (file.magic == RF_MAGIC_PROC && file.flags & RF_O_ACCMODE)
		rf_borrow_by_memory(&file);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit")
int open_exit(void *ctx)
{
	rf_settle_current();
	return rf_opened(bpf_get_current_task_btf(), false);
}

/*
 * The same for 32-bit callers, which per-syscall tracepoints do not see. Like every_call, it costs
 * every call of every process: to be attached where 32-bit programs run in containers.
 */
SEC("tp_btf/sys_exit")
int BPF_PROG(compat_exit, struct pt_regs *regs, long ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_call call;

	if (!rf_in_compat(task) || ret < 0)
		return 0;
	rf_unix_call_done();
	rf_read_call(&call, regs, true);
	if (!rf_opens_file(call.nr))
		return 0;
	rf_settle_current();
	return rf_opened(task, true);
}
