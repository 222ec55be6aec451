// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * process.look and signal: what a task does to a process, judged by the owner of that process.
 *
 * The kernel asks ptrace_access_check before it follows a link of /proc/PID (root, cwd, exe, fd,
 * map_files, ns), before it opens files there with a process's memory, and in calls on processes.
 * Calls that are events of their own are decided as such. Following a link is not refused: `ls -l`
 * does it for the name. But it is noted, and file_open decides about the object with it.
 *
 * What /proc/PID/stat shows to anyone is asked without audit, and is no look.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/borrowed.h"
#include "include/lsm_call.h"
#include "include/lsm_look.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* include/linux/ptrace.h */
#define RF_PTRACE_MODES 3 /* PTRACE_MODE_READ, PTRACE_MODE_ATTACH */
#define RF_PTRACE_MODE_ATTACH 2
#define RF_PTRACE_MODE_NOAUDIT 4
#define RF_PTRACE_MODE_REALCREDS 16 /* of calls; those of procfs have PTRACE_MODE_FSCREDS */

/* operands of process.look */
#define RF_DIM_LOOK_MODE 0
#define RF_DIM_LOOK_TARGET 1
#define RF_DIM_LOOK_VIA 2
#define RF_LOOK_BY_CALL 1
#define RF_LOOK_BY_OPEN 2
#define RF_LOOK_BY_LOOKUP 3 /* a link of /proc/PID, or a value that is read */

/* Events of calls that are decided here. */
#define RF_LOOKS                                                         \
	(RF_EVENT_BIT(RF_SYS_PTRACE) | RF_EVENT_BIT(RF_SYS_PROCESS_VM) | \
	 RF_EVENT_BIT(RF_SYS_PIDFD_GETFD) | RF_EVENT_BIT(RF_SYS_SETNS))
/* Those that are no process.look. */
#define RF_LOOKS_OF_CALLS (RF_LOOKS | RF_EVENT_BIT(RF_SYS_PERF_EVENT_OPEN))

#define RF_WORKER_CALL 1 /* an io_uring's worker is in no call */

/* A call that reached a process, and later one from the same place with the same arguments. */
#define RF_REACHED_NS 100000000ULL

static __always_inline __u64 rf_this_call(struct task_struct *task)
{
	struct rf_call call;

	if (!rf_call_in_progress(task, &call))
		return RF_WORKER_CALL;
	return rf_call_hash(&call, (struct pt_regs *)bpf_task_pt_regs(task));
}

static __always_inline bool rf_is_mark(__u64 mark, __u64 call, const struct rf_reached *reached)
{
	return mark == call && bpf_ktime_get_boot_ns() - reached->time_ns < RF_REACHED_NS;
}

__noinline __u32 rf_reached_by_hook(__u64 inode, __u64 magic, __u32 owner)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);
	struct rf_reached *reached;
	__u64 call;

	if (!armed)
		return owner;
	reached = &armed->reached;
	call = rf_this_call(task);
	if (rf_is_held_object(inode, owner) && rf_is_mark(reached->call, call, reached))
		owner = RF_MOUNT_PROCESS;
	reached->call = 0;
	if (magic == RF_MAGIC_PROC) {
		reached->opens = call;
		reached->time_ns = bpf_ktime_get_boot_ns();
	}
	return rf_with_process(inode, magic, owner);
}

/* The relation of a task that a hook was given, by its own binding; in a backstop, by its number.
 */
static __always_inline __u32 rf_relation_of_target(const struct rf_armed *armed,
						   struct task_struct *target, const bool behind)
{
	struct rf_armed *other;

	if (behind)
		return rf_relation_of_process(BPF_CORE_READ(target, tgid));
	if (target->tgid == bpf_get_current_task_btf()->tgid)
		return RF_RELATION_SELF;
	other = bpf_task_storage_get(&tasks, target, NULL, 0);
	if (!other)
		return RF_RELATION_HOST;
	return other->task.container == armed->task.container ? RF_RELATION_CONTAINER
							      : RF_RELATION_OTHER;
}

static __always_inline bool rf_is_foreign(__u32 relation)
{
	return relation == RF_RELATION_HOST || relation == RF_RELATION_OTHER;
}

/* Returns how the look came about, and notes it for the open that may follow. */
static __always_inline __u32 rf_look_via(struct rf_lsm *lsm, __u32 mode, __u32 relation)
{
	struct rf_reached *reached = &lsm->armed->reached;
	__u64 call;

	if (mode & RF_PTRACE_MODE_REALCREDS)
		return RF_LOOK_BY_CALL;
	call = rf_this_call(lsm->task);
	if (rf_is_mark(reached->opens, call, reached))
		return RF_LOOK_BY_OPEN;
	if (rf_is_foreign(relation)) {
		reached->call = call;
		reached->time_ns = bpf_ktime_get_boot_ns();
	}
	return RF_LOOK_BY_LOOKUP;
}

static __always_inline bool rf_is_decided_by_call(const struct rf_lsm *lsm)
{
	struct rf_syscall *known = rf_call_of_event(&lsm->call, RF_EVENT_NONE);
	__u32 bit = known ? (known->event & ~RF_SYSCALL_HOOKED) - RF_SYS_CLONE : 64;

	return bit < 64 && RF_LOOKS_OF_CALLS >> bit & 1;
}

/* Decides process.look, on a stack frame of its own. Returns what the hook has to return. */
rf_subprogram int rf_decide_look(__u32 relation, __u32 mode)
{
	struct rf_lsm lsm;
	__u32 via;

	if (!rf_lsm_armed(&lsm))
		return 0;
	via = rf_look_via(&lsm, mode, relation);
	rf_lsm_query(&lsm, RF_PROCESS_LOOK);
	if (rf_is_decided_by_call(&lsm))
		return 0;
	rf_lsm_operand(&lsm, RF_DIM_LOOK_MODE, mode & RF_PTRACE_MODES);
	rf_lsm_operand(&lsm, RF_DIM_LOOK_TARGET, relation);
	rf_lsm_operand(&lsm, RF_DIM_LOOK_VIA, via);
	return rf_lsm_decide_once(&lsm);
}

/* One program: what it lets through counts as driven by the caller, and nothing else does. */
SEC("lsm/ptrace_access_check")
int RF_HOOK(lsm_ptrace_access_check, struct task_struct *child, unsigned int mode, int ret)
{
	struct rf_armed *armed;

	if (ret)
		return ret;
	armed = rf_bound(bpf_get_current_task_btf());
	if (!armed)
		return 0;
	if (rf_refuses(rf_decide_call(RF_LOOKS, rf_address(child), 0)))
		return rf_lsm_refused();
	if (!(mode & RF_PTRACE_MODE_NOAUDIT) &&
	    rf_decide_look(rf_relation_of_target(armed, child, behind), mode))
		return rf_lsm_refused();
	if (mode & RF_PTRACE_MODE_ATTACH) /* who may attach may change its memory */
		rf_borrow(BPF_CORE_READ(child, tgid));
	return 0;
}

/* Asked for each process that a call signals, and not for signals of the kernel itself. */
SEC("lsm/task_kill")
int RF_HOOK(lsm_task_kill, struct task_struct *target, void *info, int sig, const struct cred *cred,
	    int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm) || BPF_CORE_READ(target, tgid) == lsm.task->tgid)
		return 0;
	rf_lsm_query(&lsm, RF_SYS_SIGNAL);
	rf_lsm_operand(&lsm, RF_DIM_SIGNAL, (__u32)sig);
	rf_lsm_operand(&lsm, RF_DIM_SIGNAL_TARGET,
		       rf_relation_of_target(lsm.armed, target, behind));
	return rf_lsm_decide_once(&lsm);
}

/*
 * Limits, priorities and the place of memory of another process: who may change them can end it
 * (RLIMIT_CPU) or take what it needs. The kernel asks for each process that a call is about.
 */
static __always_inline int rf_lsm_controls(struct task_struct *target, const bool behind)
{
	struct rf_lsm lsm;

	if (!rf_lsm_armed(&lsm) || BPF_CORE_READ(target, tgid) == lsm.task->tgid)
		return 0;
	rf_lsm_query(&lsm, RF_PROCESS_LOOK);
	rf_lsm_operand(&lsm, RF_DIM_LOOK_MODE, RF_PTRACE_MODE_ATTACH);
	rf_lsm_operand(&lsm, RF_DIM_LOOK_TARGET, rf_relation_of_target(lsm.armed, target, behind));
	rf_lsm_operand(&lsm, RF_DIM_LOOK_VIA, RF_LOOK_BY_CALL);
	return rf_lsm_decide_once(&lsm);
}

SEC("lsm/task_setrlimit")
int RF_HOOK(look_task_setrlimit, struct task_struct *target, unsigned int resource, void *limit,
	    int ret)
{
	return ret ? ret : rf_lsm_controls(target, behind);
}

SEC("lsm/task_setnice")
int RF_HOOK(look_task_setnice, struct task_struct *target, int nice, int ret)
{
	return ret ? ret : rf_lsm_controls(target, behind);
}

SEC("lsm/task_setioprio")
int RF_HOOK(look_task_setioprio, struct task_struct *target, int ioprio, int ret)
{
	return ret ? ret : rf_lsm_controls(target, behind);
}

SEC("lsm/task_setscheduler")
int RF_HOOK(look_task_setscheduler, struct task_struct *target, int ret)
{
	return ret ? ret : rf_lsm_controls(target, behind);
}

SEC("lsm/task_movememory")
int RF_HOOK(look_task_movememory, struct task_struct *target, int ret)
{
	return ret ? ret : rf_lsm_controls(target, behind);
}
