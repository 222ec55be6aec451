/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What an exec makes of a task: armed, if it was not, and of another program. Done where the exec
 * cannot fail any more: by a hook (lsm_follow.bpf.c), which the kernel never skips, and by
 * sched_process_exec (process.bpf.c), which tells of it. What the first has done the second does
 * again, to the same end.
 */
#ifndef RINGFENCE_EXEC_BINDING_H
#define RINGFENCE_EXEC_BINDING_H

#include "enroll.h"
#include "lifecycle.h"
#include "program.h"

/* The binding that a task would get in its cgroup; false: it is in no container, or not yet in its
 * own mounts. */
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
	 * A node may live in mounts of its own (in a container, or as a service that systemd
	 * shields): its runtime, which executes itself anew (runc, against CVE-2019-5736) when its
	 * caller may have moved it into the cgroup already, has not left them yet.
	 */
	container = bpf_map_lookup_elem(&slots, &like->slot);
	return container && container->maker_mnt_ns != rf_mnt_ns(task);
}

struct rf_exec_binding {
	struct rf_task like;
	__u64 container_root; /* the root of its container's files */
	__u32 newly_armed;
	__u32 pad;
};

/* process.bpf.c: carries it out, for the current task. Returns whether the task is bound by this.
 */
int rf_bind_exec(const struct rf_exec_binding *binding);

/* The container of a task that executes, with what is known of it before its program is; NULL: it
 * is in none. */
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

/* The program that the file is; without a buffer to read its path into: one that is not known, and
 * so has no exception. */
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
		binding->like.facts = RF_PROGRAM_ELSEWHERE;
	}
}

#endif
