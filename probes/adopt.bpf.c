// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Adoption of tasks that ran before the agent, by a task iterator. The agent reads it after the
 * tracepoints are attached, until it binds no more task (a task may fork meanwhile). Each newly
 * bound thread is one line: tgid, tid, slot; or instead of the slot why it is not bound yet.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/drift.h"
#include "include/lost.h"
#include "include/membership.h"
#include "include/open.h"
#include "include/program.h"
#include "include/unarmed.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static const char rf_adopted_line[] = "%d %d %u\n";

static __always_inline bool rf_waits_shortly(struct task_struct *task)
{
	struct rf_armed *seen = rf_bound(task);

	return seen && rf_is_short(seen);
}

static __always_inline void rf_note_first_adoption(void)
{
	__u32 at = RF_UNARMED_FIRST_NS;
	__u64 *first = bpf_map_lookup_elem(&unarmed, &at);

	if (first && !*first)
		*first = bpf_ktime_get_boot_ns();
}

#define RF_OLD_NS 10000000000ULL
#define RF_OLD_GRACE_NS 1000000000ULL

/* Returns true if a task's parent is in the same mounts, and is not known to be armed. */
static __always_inline bool rf_has_unarmed_parent(struct task_struct *task)
{
	struct task_struct *parent = BPF_CORE_READ(task, group_leader, real_parent);
	__u32 tgid = BPF_CORE_READ(parent, tgid);

	return BPF_CORE_READ(parent, nsproxy, mnt_ns, ns.inum) == rf_mnt_ns(task) &&
	       !bpf_map_lookup_elem(&processes, &tgid);
}

/*
 * A task may be a runtime's if its program is outside of its mounts (the runtime's binary on the
 * host, or a copy of it in memory), or if it is still in the mounts of the runtime on a node that
 * has its own. Returns true if it may be one for some time to come: see unarmed.h. An old process
 * has a shorter time, as its container has started long ago.
 */
static __always_inline bool rf_may_be_runtime(struct task_struct *task, const struct rf_file *exe)
{
	__u64 now = bpf_ktime_get_boot_ns(), grace = rf_grace_ns();
	struct rf_armed *seen;

	if (rf_mount_ns(exe) == rf_mnt_ns(task) && !rf_has_unarmed_parent(task))
		return false;
	seen = rf_see_unarmed(task, now);
	if (!seen)
		return false;
	if (now - BPF_CORE_READ(task, group_leader, start_boottime) > RF_OLD_NS &&
	    grace > RF_OLD_GRACE_NS)
		grace = RF_OLD_GRACE_NS;
	return !rf_grace_is_over(seen, now, grace);
}

/* What an earlier agent had bound a task to; NULL: nothing. */
static __always_inline const struct rf_task *rf_bound_before(struct task_struct *task)
{
	struct rf_armed *was;
	__u32 i;

	for (i = 0; i < RF_BEFORE; i++) {
		__u32 at = i;
		void *before = bpf_map_lookup_elem(&tasks_before, &at);

		if (!before)
			continue;
		was = bpf_task_storage_get(before, task, NULL, 0);
		if (was && was->task.container)
			return &was->task;
	}
	return NULL;
}

/* The slot of a task that was bound: it stays with that container, wherever it is now. */
static __always_inline __u32 rf_carried_slot(struct task_struct *task)
{
	const struct rf_task *was = rf_bound_before(task);
	__u64 container;
	__u32 *slot;

	if (!was)
		return RF_NO_SLOT;
	container = was->container;
	slot = bpf_map_lookup_elem(&containers, &container);
	return slot ? *slot : RF_NO_SLOT;
}

/*
 * What an earlier agent knew of the process, and nothing shows any more. Of a process beyond its
 * container's share it knew nothing, so that counts as borrowed.
 */
static __always_inline __u32 rf_carried_facts(struct task_struct *task)
{
	__u64 start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	__u32 tgid = task->tgid, i;
	struct rf_task *was;

	for (i = 0; i < RF_BEFORE; i++) {
		__u32 at = i;
		void *before = bpf_map_lookup_elem(&processes_before, &at);

		if (!before)
			continue;
		was = bpf_map_lookup_elem(before, &tgid);
		if (was && was->start_ns == start_ns)
			return was->facts & RF_PROGRAM_BORROWED;
	}
	return RF_PROGRAM_BORROWED;
}

/* It was bound meanwhile, or there is no memory: then it is settled at its next call. */
static __always_inline __u32 rf_unbound_in(struct task_struct *task, const struct rf_task *like,
					   __u64 container_root)
{
	struct rf_lost lost = {};

	if (rf_bound(task))
		return RF_ADOPT_NOTHING;
	__builtin_memcpy(&lost.task, like, sizeof(lost.task));
	lost.container_root = container_root;
	lost.start_ns = BPF_CORE_READ(task, start_boottime);
	rf_lose(&lost, task->pid);
	return RF_ADOPT_NO_MEMORY;
}

static __always_inline __u32 rf_adopt_into(struct task_struct *task, struct rf_scratch *buffer,
					   __u32 slot, struct rf_container *container,
					   bool was_armed)
{
	struct rf_armed *armed;
	struct rf_task like = {};
	struct rf_file file;
	__u64 exe, container_root;

	exe = (__u64)BPF_CORE_READ(task, mm, exe_file);
	if (!exe)
		return RF_ADOPT_NOTHING;
	container_root = rf_root_of_mounts(rf_address(task));
	like.facts = rf_program(rf_address(task), buffer, &file, exe, container_root);
	like.exe_hash = buffer->hash;
	if (!was_armed && rf_may_be_runtime(task, &file))
		return rf_waits_shortly(task) ? RF_ADOPT_WAITS : RF_ADOPT_ENTERS;
	like.container = container->cgroup;
	like.slot = slot;
	if (was_armed)
		like.facts |= rf_carried_facts(task);
	like.start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	armed = rf_bind(task, container, &like);
	if (!armed)
		return rf_unbound_in(task, &like, container_root);
	armed->container_root = container_root;
	armed->began_unbound = rf_call_mark(task, rf_in_compat(task));
	rf_note_shared_before(container, task);
	rf_drift_watch(task, armed);
	rf_claim_namespaces(rf_address(task), &armed->task, RF_EVERY_KIND);
	rf_publish(task, &armed->task, container);
	rf_count_task(task, armed, container, true);
	return slot;
}

/*
 * Completes a task that a hook had bound, if the program at task_newtask was skipped for it.
 * Returns true if it is such a task.
 */
static __always_inline bool rf_complete_half_bound(struct task_struct *task, struct rf_armed *armed)
{
	struct rf_container *container = rf_container_of(&armed->task);

	if (!container || armed->counted != RF_COUNTED_NOT_YET || !BPF_CORE_READ(task, nsproxy))
		return false;
	rf_claim_namespaces(rf_address(task), &armed->task, RF_EVERY_KIND);
	rf_complete_binding(task, armed, container, true);
	return true;
}

/*
 * Binds a task that ran before the agent, or that a program missed. Returns its slot, or why it is
 * not bound.
 */
static __always_inline __u32 rf_adopt_task(struct task_struct *task)
{
	struct rf_container *container;
	struct rf_scratch *buffer;
	struct rf_armed *armed;
	__u32 mine, result;
	bool was_armed;

	armed = rf_bound(task);
	if (armed && armed->task.container)
		return rf_complete_half_bound(task, armed) ? armed->task.slot : RF_ADOPT_NOTHING;
	if (rf_is_agent(task) || !BPF_CORE_READ(task, mm))
		return RF_ADOPT_NOTHING;
	mine = rf_carried_slot(task);
	was_armed = rf_is_slot(mine);
	if (!was_armed)
		mine = rf_slot_of_unarmed(task);
	container = bpf_map_lookup_elem(&slots, &mine);
	if (!container || !container->cgroup) {
		/* in the host's mounts */
		mine = rf_slot_of(rf_cgroup_of(task));
		return rf_is_slot(mine) ? RF_ADOPT_ENTERS : RF_ADOPT_NOTHING;
	}
	buffer = rf_scratch_get();
	if (!buffer) {
		rf_drop(RF_CONTAINER_START, RF_DROP_TABLE_FULL, mine);
		return RF_ADOPT_NO_MEMORY;
	}
	result = rf_adopt_into(task, buffer, mine, container, was_armed);
	rf_scratch_put(buffer);
	return result;
}

SEC("iter/task")
int adopt(struct bpf_iter__task *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct task_struct *task = ctx->task;
	__u64 line[3];
	__u32 slot;

	if (!task)
		return 0;
	rf_note_first_adoption();
	slot = rf_adopt_task(task);
	if (slot == RF_ADOPT_NOTHING)
		return 0;
	line[0] = task->tgid;
	line[1] = task->pid;
	line[2] = slot;
	bpf_seq_printf(seq, rf_adopted_line, sizeof(rf_adopted_line), line, sizeof(line));
	return 0;
}
