/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What an exec changes in a task's binding: the task is armed, if it was not, and has another
 * program. It happens where the exec cannot fail any more: at a hook (lsm_follow.bpf.c), which the
 * kernel never skips, and at sched_process_exec (process.bpf.c), which also reports it. The second
 * one repeats what the first did, with the same result.
 */
#ifndef RINGFENCE_EXEC_BINDING_H
#define RINGFENCE_EXEC_BINDING_H

#include "enroll.h"
#include "lifecycle.h"
#include "program.h"

/*
 * The binding that a task gets by its cgroup. Returns false if it is in no container, or not yet in
 * its own mounts.
 */
static __always_inline bool rf_binding_by_cgroup(struct task_struct *task, struct rf_task *like)
{
	struct rf_container *container;
	__u64 cgroup;

	if (!rf_own_mounts(task) || rf_is_agent(task))
		return false;
	cgroup = rf_cgroup_of(task);
	like->slot = rf_slot_of(cgroup);
	if (like->slot == RF_NO_SLOT && config.late)
		like->slot = rf_enroll_late(cgroup);
	if (!rf_is_slot(like->slot))
		return false;
	/*
	 * A node may have a mount namespace of its own (in a container, or as a service that
	 * systemd isolates). Its runtime re-executes itself (runc, against CVE-2019-5736), perhaps
	 * when it is in the container's cgroup already, but has not left the node's mounts yet.
	 */
	container = bpf_map_lookup_elem(&slots, &like->slot);
	return container && container->maker_mnt_ns != rf_mnt_ns(task);
}

struct rf_exec_binding {
	struct rf_task like;
	__u64 container_root; /* the root directory of its container */
	__u32 newly_armed;
	__u32 pad;
};

/* Applies the binding to the current task. Returns 1 if the task is bound by it. */
int rf_bind_exec(const struct rf_exec_binding *binding);

/*
 * A container is settled in the namespaces that its runtime made, when its first program runs in
 * them. Later ones are claimed when the task is checked (drift.bpf.c); if nothing checks it, here.
 * Not in rf_bind_exec, which lacks the stack.
 */
static __always_inline void rf_settle_namespaces(struct task_struct *task,
						 const struct rf_exec_binding *binding,
						 const struct rf_armed *armed)
{
	if (binding->newly_armed || !armed->identity.cred)
		rf_claim_namespaces(rf_address(task), &armed->task, RF_EVERY_KIND);
}

/*
 * The container of a task that executes, with the part of the binding that needs no program; NULL:
 * none.
 */
static __always_inline struct rf_container *rf_exec_container(struct task_struct *task,
							      struct rf_exec_binding *binding)
{
	struct rf_armed *armed = rf_bound(task);
	struct rf_container *container;

	if (armed && armed->task.container) {
		container = rf_container_of(&armed->task);
		binding->like.slot = armed->task.slot;
		binding->container_root = armed->container_root;
	} else {
		if (!rf_binding_by_cgroup(task, &binding->like))
			return NULL;
		container = bpf_map_lookup_elem(&slots, &binding->like.slot);
		binding->container_root = rf_root_of(task);
		binding->newly_armed = true;
	}
	binding->like.start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	if (container)
		binding->like.container = container->cgroup;
	return container;
}

/*
 * Reads the program. Without a buffer for its path, the program counts as unknown, and no exception
 * applies.
 */
static __always_inline void rf_exec_program(struct task_struct *task,
					    struct rf_exec_binding *binding,
					    struct rf_scratch *buffer, struct rf_file *exe,
					    __u64 file)
{
	if (buffer) {
		binding->like.facts =
			rf_program(rf_address(task), buffer, exe, file, binding->container_root);
		binding->like.exe_hash = buffer->hash;
	} else {
		rf_drop(RF_PROCESS_EXEC, RF_DROP_TABLE_FULL, binding->like.slot);
		rf_file_read(exe, file);
		binding->like.facts = rf_program_facts(exe) | RF_PROGRAM_ELSEWHERE;
	}
}

/* A buffer for an exec: the task's own, if it is bound already. NULL: none is free. */
static __always_inline struct rf_scratch *rf_exec_buffer(struct rf_armed *armed)
{
	return armed ? rf_scratch_claim(&armed->scratch) : rf_scratch_get();
}

/*
 * The process counts as borrowed if its environment may change what the program does. `early`: the
 * environment cannot be read yet. Gives the buffer back.
 */
static __always_inline void rf_exec_done(struct task_struct *task, struct rf_scratch *buffer,
					 const bool early)
{
	if (early || !buffer || rf_has_loader_variables(buffer))
		rf_borrow(task->tgid);
	if (buffer)
		rf_scratch_put(buffer);
}

#endif
