// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What is guarded, and what happens on an attempt. No rule is evaluated: a wrong policy, or none,
 * changes nothing here.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/guard.h"
#include "include/match.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_GUARD_DEPTH 256

/*
 * Returns true if an object can be of that kind. On an overlay, a directory and a file may have the
 * same number.
 */
static __always_inline bool rf_can_be_guarded_as(__u64 inode, __u32 kind)
{
	__u32 type = RF_READ(struct inode, inode, i_mode) & RF_S_IFMT;

	return (kind == RF_GUARD_FILE) == (type != RF_S_IFDIR);
}

/*
 * One step of rf_guard_kind, `depth` levels above the file. Returns the guard kind (<=
 * RF_GUARD_KIND), or the address of the parent dentry to check next. A function, so that the
 * verifier follows it once and not in each round.
 */
__noinline __u64 rf_guard_step(__u64 device, __u64 dentry, __u32 depth)
{
	struct rf_guard_key key = { .device = device };
	__u64 inode = (__u64)RF_READ(struct dentry, dentry, d_inode), parent, super;
	__u32 *found;

	key.id = inode ? RF_READ(struct inode, inode, i_ino) : 0; /* 0: it does not exist yet */
	found = key.id ? bpf_map_lookup_elem(&guards, &key) : NULL;
	if (found) {
		__u32 kind = *found & RF_GUARD_KIND;

		bool of_files = kind == RF_GUARD_CGROUP || kind == RF_GUARD_CGROUP_ABOVE;

		if (rf_can_be_guarded_as(inode, kind) &&
		    (kind == RF_GUARD_TREE || depth == (of_files ? 1 : 0)))
			return kind;
	}
	parent = (__u64)RF_READ(struct dentry, dentry, d_parent);
	if (parent && parent != dentry)
		return parent;
	super = (__u64)RF_READ(struct dentry, dentry, d_sb);
	return dentry == (__u64)RF_READ(struct super_block, super, s_root) ? 0 : RF_GUARD_NAMELESS;
}

__noinline __u32 rf_guard_kind(__u64 dentry)
{
	__u64 super = (__u64)RF_READ(struct dentry, dentry, d_sb);
	struct rf_guard_key key = { .device = RF_READ(struct super_block, super, s_dev) };
	__u32 depth;

	if (!bpf_map_lookup_elem(&guards, &key))
		return 0;
	for (depth = 0; depth < RF_GUARD_DEPTH; depth++) {
		dentry = rf_guard_step(key.device, dentry, depth);
		if (dentry <= RF_GUARD_KIND)
			return dentry;
	}
	return RF_GUARD_NAMELESS; /* too deep to know */
}

static __always_inline __u8 rf_guard_action(__u32 what, bool hooked)
{
	if (config.guard != RF_GUARD_DENY)
		return RF_ACTION_ALERT;
	if (hooked)
		return RF_ACTION_DENY;
	/* A task that only reads may be a monitor of the node: it is not killed. */
	return what >= RF_TAMPER_LOOK ? RF_ACTION_ALERT : RF_ACTION_KILL;
}

/* The call that the task is in. Kernel threads and workers of an io_uring are in none. */
static __always_inline __u32 rf_guard_nr(struct task_struct *task)
{
	if (task->flags & (RF_PF_KTHREAD | RF_PF_IO_WORKER))
		return RF_NO_CALL;
	return rf_call_number((struct pt_regs *)bpf_task_pt_regs(task));
}

/* What a record of the self-defence says. */
struct rf_guard_report {
	__u64 detail;
	__u64 dentry;
	__u32 what;
	__u32 text;
	__u8 action;
	__u8 mechanism;
	__u8 flags;
};

static __always_inline void rf_guard_record(struct task_struct *task, struct rf_armed *armed,
					    const struct rf_guard_report *report, __u32 route)
{
	const struct rf_task *bound = &armed->task;
	struct rf_tamper_event *record =
		RF_RECORD(rf_tamper_event, RF_AGENT_TAMPER, bound->slot, route);
	struct rf_scratch *buffer = &armed->scratch;
	__u8 flags = report->flags;

	if (!record)
		return;
	rf_header(&record->header, RF_AGENT_TAMPER, task, bound);
	record->header.facts = rf_facts(rf_address(task), bound->facts);
	record->header.action = report->action;
	record->header.mechanism = report->mechanism;
	record->what = report->what;
	record->detail = report->detail;
	record->agent_pid = config.agent_pid;
	record->agent_start_ns = config.agent_start_ns;
	record->nr = rf_guard_nr(task);
	record->header.flags = rf_in_compat(task) ? RF_FLAG_COMPAT : 0;
	if (report->text) {
		bpf_probe_read_kernel_str(record->path, sizeof(record->path), buffer->name);
		record->path_len = buffer->len < RF_PATH_LEN ? buffer->len : RF_PATH_LEN - 1;
	} else if (report->dentry && rf_scratch_claim(buffer)) {
		rf_path_in_filesystem(buffer, report->dentry);
		if (rf_path_copy(record->path, sizeof(record->path), buffer))
			flags |= RF_FLAG_TRUNCATED;
		record->path_len = buffer->len < RF_PATH_LEN ? buffer->len : RF_PATH_LEN - 1;
		rf_scratch_release(buffer);
	}
	record->header.flags |= flags;
	rf_submit(record, RF_AGENT_TAMPER);
}

__noinline int rf_guard_hit(__u32 what, __u64 detail, __u64 dentry, __u32 text, __u32 hooked)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_armed *armed;
	struct rf_guard_report report = {
		.what = what,
		.detail = detail,
		.dentry = dentry,
		.text = text,
		.mechanism = RF_MECHANISM_OBSERVE,
	};
	bool condemns = false;
	__u32 route;

	if (!config.guard)
		return RF_ACTION_NONE;
	armed = rf_bound(task);
	if (!armed)
		return RF_ACTION_NONE;
	container = rf_container_of(&armed->task);
	if (!container)
		return RF_ACTION_NONE;
	report.action = rf_guard_action(what, hooked);
	if (config.backstop && rf_is_backstop()) {
		if (report.action != RF_ACTION_DENY)
			return RF_ACTION_NONE; /* was said */
		report.action = RF_ACTION_KILL;
		report.mechanism = RF_MECHANISM_BACKSTOP;
		report.flags = rf_backstop_kill(RF_AGENT_TAMPER);
	} else if (report.action == RF_ACTION_DENY) {
		report.mechanism = config.hook_mechanism;
	} else if (report.action == RF_ACTION_KILL) {
		report.mechanism = RF_MECHANISM_KILL;
		/* Too many tasks are a load; each one too many is killed. */
		condemns = what != RF_TAMPER_TASKS && rf_mark_condemned(container);
		report.flags = bpf_send_signal(9) ? RF_FLAG_SIGNAL_FAILED : 0;
	}
	rf_count_action(armed->task.slot, report.action);
	route = rf_route(RF_AGENT_TAMPER, armed->task.slot, container, report.action);
	if (route != RF_ROUTE_NONE)
		rf_guard_record(task, armed, &report, route);
	if (condemns) /* after the record of the attempt */
		rf_report_condemned(RF_AGENT_TAMPER);
	return report.action;
}

/* Returns true if a struct pid belongs to a thread of the agent. */
static __always_inline bool rf_is_agent_struct_pid(__u64 pid)
{
	__u64 task = rf_task_of_pid(pid);

	return task && rf_task_is_agent(task);
}

/*
 * A file of the agent's /proc/PID. Checked by name even if hooks decide: newer kernels let
 * CAP_PERFMON open most of the files that may only be read, whatever ptrace_access_check said.
 */
static __always_inline __u32 rf_guard_proc(const struct rf_file *file, bool writes)
{
	struct rf_guard_key key = { .device = RF_GUARD_LOOK };
	struct rf_armed *armed;
	__u32 *what;
	__u64 pid;

	pid = rf_pid_of_proc(file->inode);
	if (!pid || !rf_is_agent_struct_pid(pid))
		return 0;
	if (writes)
		return RF_TAMPER_PROC;
	armed = rf_bound(bpf_get_current_task_btf());
	if (!armed)
		return 0;
	if (!rf_scratch_claim(&armed->scratch))
		return RF_TAMPER_PROC; /* its name is unknown, so it counts as one of them */
	key.id = rf_hash_name(&armed->scratch, file->dentry);
	rf_scratch_release(&armed->scratch);
	what = bpf_map_lookup_elem(&guards, &key);
	return what ? *what & RF_GUARD_KIND : 0;
}

/* The files by which processes are moved, of cgroup versions 2 and 1. */
static __always_inline bool rf_moves_processes(__u64 dentry)
{
	const char *name = (const char *)RF_READ(struct dentry, dentry, d_name.name);
	__u64 head[2] = {};

	bpf_probe_read_kernel_str(head, sizeof(head), name);
	return (head[0] == RF_NAME8('c', 'g', 'r', 'o', 'u', 'p', '.', 'p') &&
		head[1] == RF_NAME8('r', 'o', 'c', 's', 0, 0, 0, 0)) ||
	       (head[0] == RF_NAME8('c', 'g', 'r', 'o', 'u', 'p', '.', 't') &&
		head[1] == RF_NAME8('h', 'r', 'e', 'a', 'd', 's', 0, 0)) ||
	       (head[0] == RF_NAME8('t', 'a', 's', 'k', 's', 0, 0, 0) && !head[1]);
}

/*
 * Files of the agent's own cgroup. Those of the cgroups above it concern other processes, too. A
 * task that sees the host's processes can also name the agent and move it into a cgroup of its own,
 * where it is frozen, and such a write cannot be distinguished from others before it is done.
 * Container managers of a node do both, and may be containers themselves: a container without rules
 * may.
 */
static __always_inline __u32 rf_guard_cgroup(const struct rf_file *file)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_armed *armed;
	__u32 kind;

	kind = rf_guard_kind(file->dentry);
	if (kind == RF_GUARD_CGROUP)
		return RF_TAMPER_CGROUP;
	if (!kind && (!rf_moves_processes(file->dentry) || rf_pid_ns(task) != config.host_pid_ns))
		return 0;
	armed = rf_bound(task);
	container = armed ? rf_container_of(&armed->task) : NULL;
	if (!container || !rf_has_rules(container->profile[0], container->profile[1]))
		return 0;
	return RF_TAMPER_CGROUP;
}

__noinline __u32 rf_guard_opened(const struct rf_file *file)
{
	struct rf_guard_state *state = rf_guard_state();
	bool writes;

	if (!file || !state)
		return 0;
	writes = file->flags & RF_O_ACCMODE;
	if (file->magic == RF_MAGIC_PROC)
		return state->gone ? 0 : rf_guard_proc(file, writes);
	if (writes && (file->magic == RF_MAGIC_CGROUP || file->magic == RF_MAGIC_CGROUP2))
		return rf_guard_cgroup(file);
	if (writes)
		return rf_guard_kind(file->dentry) ? RF_TAMPER_FILE : 0;
	if (state->gone || state->ticket_inode != RF_READ(struct inode, file->inode, i_ino) ||
	    state->ticket_device != RF_READ(struct super_block, file->super, s_dev))
		return 0;
	return RF_TAMPER_TICKET;
}
