// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The life of armed tasks. task_newtask and not sched_process_fork: it comes before the child can
 * run. sched_process_exec: the new credentials, mount namespace and program are in place, and the
 * program has not run yet. sched_process_exit fires for each thread.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/drift.h"
#include "include/enroll.h"
#include "include/exec.h"
#include "include/exec_binding.h"
#include "include/guard.h"
#include "include/lost.h"
#include "include/unarmed.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline void rf_task_record(__u32 event, struct task_struct *subject,
					   const struct rf_task *bound,
					   struct rf_container *container,
					   struct task_struct *child, __u64 flags)
{
	struct rf_task_event *record;
	__u32 route = rf_route(event, bound->slot, container, RF_ACTION_NONE);

	if (route == RF_ROUTE_NONE)
		return;
	record = RF_RECORD(rf_task_event, event, bound->slot, route);
	if (!record)
		return;
	rf_header(&record->header, event, subject, bound);
	record->header.facts = rf_facts(rf_address(subject), bound->facts);
	record->clone_flags = flags;
	record->child_pid = child->tgid;
	record->child_tid = child->pid;
	record->child_start_ns = BPF_CORE_READ(child, group_leader, start_boottime);
	record->exit_code = subject->exit_code;
	rf_submit(record, event);
}

/*
 * clone3 with CLONE_INTO_CGROUP: nothing is moved, but the child starts in another cgroup of v2.
 * Reported as leaving the container's cgroup; the verdict concerns the parent. The child is bound
 * to its container all the same.
 */
rf_subprogram int rf_report_clone_into_cgroup(struct task_struct *child, const struct rf_task *like,
					      struct rf_container *container)
{
	struct cgroup *into = BPF_CORE_READ(child, cgroups, dfl_cgrp);
	struct rf_cgroup_event *record;
	struct rf_query query;
	__u32 route;
	__u8 flags;
	long len;

	if (!rf_leaves_container(into, like))
		return 0;
	rf_query_init(&query, RF_CGROUP_ATTACH, like, container);
	query.value[0] = RF_RELATION_CONTAINER;
	rf_evaluate(&query, child, like, NULL);
	flags = rf_enforce(&query);
	rf_count_verdict(&query);
	route = rf_route(RF_CGROUP_ATTACH, like->slot, container, query.action);
	if (route == RF_ROUTE_NONE)
		return 0;
	record = RF_RECORD(rf_cgroup_event, RF_CGROUP_ATTACH, like->slot, route);
	if (!record)
		return 0;
	rf_header(&record->header, RF_CGROUP_ATTACH, child, like);
	rf_header_verdict(&record->header, &query, child, like);
	record->header.flags = flags;
	record->cgroup = BPF_CORE_READ(into, kn, id);
	len = bpf_probe_read_kernel_str(record->path, sizeof(record->path),
					BPF_CORE_READ(into, kn, name));
	if (len > 0)
		record->path_len = len - 1;
	rf_submit(record, RF_CGROUP_ATTACH);
	return 0;
}

/*
 * Checks the clone3 flags that the kernel actually used: at the entry they are in the caller's
 * memory, perhaps not readable yet, and can change afterwards. The entry did not stop this caller,
 * so it is killed, and its child is marked to be killed, as only a signal of the kernel itself
 * could reach it now. Alerts were reported at the entry. Returns true if the child must be killed.
 */
rf_subprogram bool rf_check_clone3(struct task_struct *parent, struct rf_armed *armed,
				   struct rf_container *container, __u64 flags)
{
	struct rf_query *query = (struct rf_query *)armed->query_storage;
	struct rf_syscall_event *record;
	struct rf_call call;
	__u8 failed;

	if (parent->flags & RF_PF_IO_WORKER)
		return false;
	rf_read_call(&call, (struct pt_regs *)bpf_task_pt_regs(parent), rf_in_compat(parent));
	if ((call.nr & 0xffff) != RF_NR_CLONE3)
		return false;
	rf_query_init(query, RF_SYS_CLONE, &armed->task, container);
	if (call.compat)
		query->value[RF_DIM_FACTS] = rf_compat_facts(parent);
	query->value[0] = flags;
	rf_evaluate(query, parent, &armed->task, NULL);
	if (query->action <= RF_ACTION_ALERT)
		return false;
	failed = rf_enforce(query);
	rf_count_verdict(query);
	if (rf_route_verdict(query, container) == RF_ROUTE_NONE)
		return true;
	record = RF_RECORD(rf_syscall_event, RF_SYS_CLONE, armed->task.slot, RF_ROUTE_ALERTS);
	if (!record)
		return true;
	rf_header(&record->header, RF_SYS_CLONE, parent, &armed->task);
	rf_header_verdict(&record->header, query, parent, &armed->task);
	record->header.flags = failed | (call.compat ? RF_FLAG_COMPAT : 0);
	record->nr = call.nr;
	__builtin_memcpy(record->args, call.args, sizeof(record->args));
	record->operand[0] = flags;
	rf_submit(record, RF_SYS_CLONE);
	return true;
}

/*
 * Limits the tasks per container. Each known task uses memory of the agent, and without memory no
 * container's new tasks are followed. A task that exceeds the limit is killed with its child.
 * Returns true if the child must be killed.
 */
static __always_inline bool rf_exceeds_task_share(const struct rf_container *container)
{
	__u32 tasks = container->tasks;

	if (!config.task_share || tasks < config.task_share)
		return false;
	return rf_guard_hit(RF_TAMPER_TASKS, tasks, 0, 0, false) == RF_ACTION_KILL;
}

SEC("tp_btf/task_newtask")
int BPF_PROG(task_newtask, struct task_struct *child, __u64 clone_flags)
{
	struct task_struct *parent = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_armed *of_child;
	struct rf_armed *armed;
	struct rf_task like;
	__u64 started;
	bool entered, kill;

	rf_settle_current();
	armed = rf_bound(parent);
	if (!armed || !armed->task.container) {
		if (rf_unarmed_forks(parent, child, clone_flags) && armed)
			rf_lose_child(child, armed, BPF_CORE_READ(child, start_boottime), false);
		return 0;
	}
	container = rf_container_of(&armed->task);
	if (!container)
		return 0;
	/*
	 * Checked before the child inherits the identity, against which it is compared from here
	 * on.
	 */
	entered = rf_drift_check(parent, armed, RF_SYS_CLONE) > RF_ACTION_ALERT;
	rf_note_sharing(container, clone_flags, parent);
	if (rf_is_condemned(container))
		bpf_send_signal(9);
	__builtin_memcpy(&like, &armed->task, sizeof(like));
	started = child->start_boottime;
	/* else one load may serve two kinds of pointer, which the verifier refuses */
	barrier_var(started);
	if (!(clone_flags & RF_CLONE_THREAD))
		like.start_ns = started;
	of_child = rf_bind(child, container, &like);
	if (!of_child) /* a hook bound it before (lsm_follow.bpf.c), or there was no memory */
		of_child = rf_bound(child);
	kill = rf_is_condemned(container) ||
	       rf_check_clone3(parent, armed, container, clone_flags) ||
	       rf_exceeds_task_share(container) || entered;
	if (!of_child) {
		rf_lose_child(child, armed, like.start_ns, kill);
	} else {
		of_child->task.start_ns = like.start_ns;
		rf_inherit(of_child, armed);
		if (kill)
			of_child->identity.kill_pending = 1;
		if (rf_mark_counted(of_child))
			__sync_fetch_and_add(&container->tasks, 1);
	}
	if (clone_flags & RF_CLONE_THREAD)
		return 0;
	if (clone_flags & RF_CLONE_NEW_ANY && !entered)
		rf_claim_namespaces(rf_address(child), &like, clone_flags);
	if (clone_flags & RF_CLONE_INTO_CGROUP)
		rf_report_clone_into_cgroup(child, &like, container);
	rf_count(like.slot, RF_COUNT_FORK);
	/*
	 * The end of an unbound task is not seen: its entry would stay, and match the next process
	 * of that number.
	 */
	if (of_child)
		rf_publish(child, &like, container);
	rf_task_record(RF_PROCESS_FORK, parent, &like, container, child, clone_flags);
	return 0;
}

/*
 * An armed task runs a new program. If an LSM hook has decided it, it is only reported. The first
 * program of a container reached no such hook, as no task was armed: it is killed before it starts.
 */
static __always_inline void rf_report_exec(struct task_struct *task, struct rf_task *bound,
					   struct rf_container *container,
					   const struct rf_file *exe, struct rf_scratch *buffer,
					   bool newly_armed)
{
	struct rf_query query;
	__u32 route;
	__u8 flags = 0;

	rf_count(bound->slot, RF_COUNT_EXEC);
	if (!buffer) {
		if (newly_armed || !config.exec_hooked)
			rf_exec_fail_no_scratch(&query, task, bound, container, exe,
						RF_MECHANISM_KILL);
		return;
	}
	rf_exec_query(&query, task, bound, container, exe, buffer);
	if (newly_armed || !config.exec_hooked)
		rf_evaluate(&query, task, bound, NULL);
	route = rf_conclude(&query, container, RF_MECHANISM_KILL, &flags);
	if (route != RF_ROUTE_NONE)
		rf_exec_record(task, bound, exe, buffer, &query, route, flags, true);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *task, pid_t old_pid,
	     struct linux_binprm *binprm)
{
	struct rf_exec_binding binding = {};
	struct rf_container *container;
	struct rf_scratch *buffer;
	struct rf_armed *armed;
	struct rf_file exe;

	container = rf_exec_container(task, &binding);
	if (!container)
		return 0;
	armed = rf_bound(task);
	buffer = rf_exec_buffer(armed);
	rf_exec_program(task, &binding, buffer, &exe, (__u64)BPF_CORE_READ(binprm, file));
	rf_bind_exec(&binding);
	armed = rf_bound(task);
	if (armed && armed->task.container) {
		rf_settle_namespaces(task, &binding, armed);
		rf_count_task(task, armed, container, false);
		rf_report_exec(task, &armed->task, container, &exe, buffer,
			       binding.newly_armed || armed->armed_by_exec);
	}
	rf_exec_done(task, buffer, false);
	return 0;
}

static __always_inline void rf_report_stop(struct task_struct *task, const struct rf_task *bound,
					   const struct rf_container *container)
{
	struct rf_container_event *record;

	record = RF_RECORD(rf_container_event, RF_CONTAINER_STOP, bound->slot, RF_ROUTE_ALERTS);
	if (!record)
		return;
	rf_header(&record->header, RF_CONTAINER_STOP, task, bound);
	record->cgroup = container->cgroup;
	record->exit_code = task->exit_code;
	rf_submit(record, RF_CONTAINER_STOP);
}

/* A task has ended. `process`: its process, too, which was in the table until now. */
static __always_inline void rf_task_ended(struct task_struct *task, struct rf_armed *armed,
					  bool process)
{
	struct rf_container *container = rf_container_of(&armed->task);

	if (!container)
		return;
	if (process) {
		__sync_fetch_and_add(&container->processes, -1);
		rf_count(armed->task.slot, RF_COUNT_EXIT);
		rf_task_record(RF_PROCESS_EXIT, task, &armed->task, container, task, 0);
	}
	if (rf_mark_ended(armed) && __sync_fetch_and_sub(&container->tasks, 1) == 1) {
		rf_report_stop(task, &armed->task, container);
		rf_recycle(armed->task.slot);
	}
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	struct rf_armed *armed = rf_bound(task);
	__u32 tgid = task->tgid;

	if (rf_any_lost())
		rf_forget_lost(task->pid);
	if (!armed)
		return 0;
	/*
	 * The last threads of a group may both see live == 0: the one that deletes the process
	 * reports its end.
	 */
	rf_task_ended(task, armed,
		      BPF_CORE_READ(task, signal, live.counter) == 0 &&
			      !bpf_map_delete_elem(&processes, &tgid));
	return 0;
}

/*
 * An end that was not seen, because the program above was skipped
 * (docs/reference/kernel-compat.md), is seen when the task is freed, where nothing is preempted.
 * Its number may belong to another process by then.
 */
SEC("tp_btf/sched_process_free")
int BPF_PROG(sched_process_free, struct task_struct *task)
{
	struct rf_armed *armed = rf_bound(task);
	struct rf_task *listed;
	__u32 tgid = task->tgid;

	if (!armed || armed->counted != RF_COUNTED)
		return 0;
	listed = bpf_map_lookup_elem(&processes, &tgid);
	rf_task_ended(task, armed,
		      listed && listed->start_ns == armed->task.start_ns &&
			      BPF_CORE_READ(task, signal, live.counter) == 0 &&
			      !bpf_map_delete_elem(&processes, &tgid));
	return 0;
}
