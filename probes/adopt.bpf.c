// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Adoption of tasks that ran before the agent, by a task iterator. The agent reads it after the
 * tracepoints are attached, until it binds no more task (a task may fork meanwhile). Each newly
 * bound thread is one line: tgid, tid, slot.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/drift.h"
#include "include/lifecycle.h"
#include "include/membership.h"
#include "include/program.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static const char rf_adopted_line[] = "%d %d %u\n";

/*
 * Returns true for a runtime's init that has not run the workload yet: its program is outside of
 * its own mounts (the runtime's binary on the host, or a memfd copy), and its parent is on the
 * host. It will be armed at its exec.
 */
static __always_inline bool rf_is_runtime(struct task_struct *task, const struct rf_file *exe)
{
	if (rf_mount_ns(exe) == rf_mnt_ns(task))
		return false;
	return BPF_CORE_READ(task, real_parent, nsproxy, mnt_ns, ns.inum) == config.host_mnt_ns;
}

/*
 * The slot of a task that the previous agent had bound: it stays with that container, wherever it
 * is now.
 */
static __always_inline __u32 rf_carried_slot(struct task_struct *task)
{
	__u32 tgid = task->tgid, *slot;
	struct rf_carried *was = bpf_map_lookup_elem(&carried, &tgid);
	__u64 container;

	if (!was || was->start_ns != BPF_CORE_READ(task, group_leader, start_boottime))
		return RF_NO_SLOT;
	container = was->container;
	slot = bpf_map_lookup_elem(&containers, &container);
	return slot ? *slot : RF_NO_SLOT;
}

static __always_inline struct rf_armed *rf_adopt_into(struct task_struct *task,
						      struct rf_scratch *buffer, __u32 slot,
						      struct rf_container *container,
						      bool was_armed)
{
	struct rf_armed *armed;
	struct rf_task like = {};
	struct rf_file file;
	__u64 exe, container_root;

	exe = (__u64)BPF_CORE_READ(task, mm, exe_file);
	if (!exe)
		return NULL;
	/*
	 * Not the task's root: a task in a chroot must not count as the container's first process.
	 */
	container_root = (__u64)BPF_CORE_READ(task, fs, root.mnt, mnt_root);
	like.facts = rf_program(rf_address(task), buffer, &file, exe, container_root);
	like.exe_hash = buffer->hash;
	if (!was_armed && rf_is_runtime(task, &file))
		return NULL;
	like.container = container->cgroup;
	like.slot = slot;
	like.start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	armed = rf_bind(task, container, &like);
	if (!armed)
		return NULL;
	armed->container_root = container_root;
	rf_drift_watch(task, armed);
	rf_claim_namespaces(rf_address(task), &armed->task, RF_EVERY_KIND);
	rf_publish(task, &armed->task, container);
	rf_count_task(task, armed, container, true);
	return armed;
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
	rf_complete_binding(task, armed, container, true);
	return true;
}

/*
 * Binds a task that ran before the agent, or that a program missed. Returns its binding; NULL:
 * none.
 */
static __always_inline struct rf_armed *rf_adopt_task(struct task_struct *task)
{
	struct rf_container *container;
	struct rf_scratch *buffer;
	struct rf_armed *armed;
	__u32 mine;
	bool was_armed;

	armed = rf_bound(task);
	if (armed && armed->task.container)
		return rf_complete_half_bound(task, armed) ? armed : NULL;
	if (rf_is_agent(task))
		return NULL;
	mine = rf_carried_slot(task);
	was_armed = rf_is_slot(mine);
	if (!was_armed && rf_own_mounts(task))
		mine = rf_slot_of(rf_cgroup_of(task));
	container = bpf_map_lookup_elem(&slots, &mine);
	if (!container || !container->cgroup)
		return NULL;
	buffer = rf_scratch_get();
	if (!buffer) {
		rf_drop(RF_CONTAINER_START, RF_DROP_TABLE_FULL, mine);
		return NULL;
	}
	armed = rf_adopt_into(task, buffer, mine, container, was_armed);
	rf_scratch_put(buffer);
	return armed;
}

SEC("iter/task")
int adopt(struct bpf_iter__task *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct task_struct *task = ctx->task;
	struct rf_armed *armed;
	__u64 line[3];

	if (!task)
		return 0;
	armed = rf_adopt_task(task);
	if (!armed)
		return 0;
	line[0] = task->tgid;
	line[1] = task->pid;
	line[2] = armed->task.slot;
	bpf_seq_printf(seq, rf_adopted_line, sizeof(rf_adopted_line), line, sizeof(line));
	return 0;
}
