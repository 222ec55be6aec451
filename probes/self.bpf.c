// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The agent's self-defence where nothing can be refused: signals that were sent to it, calls that
 * name it as they begin, objects of BPF as their descriptors are handed out. The caller is killed;
 * its call may still take effect. And what both tiers need: moves of the agent to another cgroup,
 * its end, and what is to be guarded.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/call.h"
#include "include/condemn.h"
#include "include/guard.h"
#include "include/self.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_AT_FDCWD (-100)
#define RF_PRIO_PGRP 1
#define RF_PRIO_USER 2

/*
 * Every way to send a signal comes here, when it is sent. Signals of the kernel have no task of a
 * container as sender.
 */
SEC("tp_btf/signal_generate")
int BPF_PROG(guard_signal_generate, int sig, void *info, struct task_struct *task, int group,
	     int result)
{
	if (rf_is_agent(task))
		rf_guard_hit(RF_TAMPER_SIGNAL, sig, 0, 0, false);
	return 0;
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(guard_cgroup_attach_task, struct cgroup *to, const char *path,
	     struct task_struct *task)
{
	if (rf_is_agent(task))
		rf_guard_hit(RF_TAMPER_CGROUP, BPF_CORE_READ(to, kn, id), 0, 0, false);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(guard_process_exit, struct task_struct *task)
{
	struct rf_guard_state *state;

	if (!rf_is_agent(task) || BPF_CORE_READ(task, signal, live.counter))
		return 0;
	state = rf_guard_state();
	if (state)
		state->gone = 1;
	return 0;
}

/* ---- what is guarded ---------------------------------------------------- */

/* Registers the next descriptor. Returns false after the last one. */
__noinline int rf_guard_file(__u32 index)
{
	struct rf_guard_wanted *wanted = bpf_map_lookup_elem(&guard_wanted, &index);
	struct rf_guard_state *state = rf_guard_state();
	__u64 file, inode, super;
	struct rf_guard_key key = {};
	__u32 on;

	if (!wanted || !wanted->kind || !state)
		return false;
	on = wanted->kind & ~RF_GUARD_KIND;
	file = rf_file_of_fd(wanted->fd);
	if (!file)
		return true;
	inode = (__u64)RF_READ(struct file, file, f_inode);
	super = (__u64)RF_READ(struct inode, inode, i_sb);
	key.device = RF_READ(struct super_block, super, s_dev);
	if ((wanted->kind & RF_GUARD_KIND) == RF_GUARD_TICKET) {
		state->ticket_device = key.device;
		state->ticket_inode = RF_READ(struct inode, inode, i_ino);
		state->ticket_magic = RF_READ(struct super_block, super, s_magic);
		return true;
	}
	on |= RF_READ(struct super_block, super, s_magic) == RF_MAGIC_BPF ? RF_GUARD_PINS
									  : RF_GUARD_DEVICE;
	bpf_map_update_elem(&guards, &key, &on, BPF_ANY);
	key.id = RF_READ(struct inode, inode, i_ino);
	on = wanted->kind;
	bpf_map_update_elem(&guards, &key, &on, BPF_ANY);
	return true;
}

/*
 * The agent reads this iterator when it has filled `guard_wanted`: the reader is the task that has
 * the descriptors.
 */
SEC("iter/task")
int guard_register(struct bpf_iter__task *ctx)
{
	__u32 i;

	if (!ctx->task || BPF_CORE_READ(ctx->meta, seq_num))
		return 0;
	for (i = 0; i < RF_GUARD_WANTED; i++) {
		if (!rf_guard_file(i))
			break;
	}
	return 0;
}

/* ---- calls -------------------------------------------------------------- */

/*
 * Process numbers are the host's if the caller sees the host's; threads are found by the kernel's
 * table.
 */
static __always_inline bool rf_is_agent_pid(struct task_struct *task, __u32 pid)
{
	struct rf_guard_state *state = rf_guard_state();
	struct rf_pid_numbers numbers;
	__u64 other;

	if (!pid || !state || state->gone)
		return false;
	rf_pid_numbers(task, &numbers);
	other = rf_task_numbered(numbers.ns, pid);
	if (other)
		return rf_task_is_agent(other);
	return pid == config.agent_pid && rf_pid_ns(task) == config.host_pid_ns;
}

static __always_inline bool rf_is_agent_pidfd(__u32 fd)
{
	struct rf_guard_state *state = rf_guard_state();
	__u64 pid = rf_pid_of_fd(fd), other;

	if (!pid || !state || state->gone)
		return false;
	other = rf_task_of_pid(pid);
	return other && rf_task_is_agent(other);
}

/*
 * setpriority and ioprio_set; `which` counts from 0. A target given by user is root, as the agent
 * is.
 */
static __always_inline bool rf_priority_hits_agent(struct task_struct *task, __u64 which, __u32 who)
{
	struct rf_guard_key key = { .device = RF_GUARD_GROUP, .id = who };

	if (!which)
		return rf_is_agent_pid(task, who);
	if (rf_pid_ns(task) != config.host_pid_ns)
		return false;
	if (which == RF_PRIO_PGRP)
		return who && bpf_map_lookup_elem(&guards, &key);
	return which == RF_PRIO_USER && !who && !BPF_CORE_READ(task, cred, uid.val);
}

static __always_inline __u64 rf_directory_of(struct task_struct *task, const struct rf_call *call,
					     __u32 arg)
{
	__u64 file;

	if (arg >= RF_SYSCALL_ARGS || (__s32)call->args[arg] == RF_AT_FDCWD)
		return (__u64)BPF_CORE_READ(task, fs, pwd.dentry);
	file = rf_file_of_fd(call->args[arg]);
	return file ? (__u64)RF_READ(struct file, file, f_path.dentry) : 0;
}

#define RF_GUARD_TAIL 96 /* characters at the end of a path that are hashed */
#define RF_GUARD_ENDS 3	 /* components that are hashed */

/*
 * Returns 1 if a number is negative, else 0, without a branch, which the verifier would follow both
 * ways each time.
 */
static __always_inline __u64 rf_if_negative(__u64 value)
{
	barrier_var(value);
	value >>= 63;
	barrier_var(value);
	return value;
}

/*
 * Hashes of the end of a path, read from its last character to the first: of the last component, of
 * the last two, of the last three; and the same of the directory that it leads into. Results in the
 * buffer: `ends`, `above`.
 */
static __always_inline void rf_hash_ends(struct rf_scratch *buffer)
{
	__u64 hash = RF_FNV_OFFSET, above = RF_FNV_OFFSET, slashes = 0;
	__u64 len = buffer->len & (RF_PATH_LEN - 1), i;

	/* One slash at the end of a directory's name has no meaning. */
	len -= rf_if_negative(
		(__u64)((unsigned char)buffer->name[(len - 1) & (RF_PATH_LEN - 1)] ^ '/') - 1);
	for (i = 0; i < RF_GUARD_TAIL; i++) {
		__u64 inside = rf_if_negative(i - len), c, slash, first;

		c = (unsigned char)buffer->name[(len - 1 - i) & (RF_PATH_LEN - 1)] * inside +
		    '/' * (1 - inside);
		slash = rf_if_negative((c ^ '/') - 1);
		buffer->ends[slashes & 7] = hash;
		buffer->above[slashes & 7] = above;
		first = slash & rf_if_negative(slashes - 1);
		slashes += slash & rf_if_negative(slashes - 7);
		hash = (hash ^ c) * RF_FNV_PRIME;
		above = (above ^ c) * RF_FNV_PRIME * (1 - first) + RF_FNV_OFFSET * first;
		if (slashes > RF_GUARD_ENDS)
			break;
	}
}

/* Returns true if a path with this end can hardly be another than a guarded one. */
static __always_inline bool rf_ends_match(const __u64 *ends)
{
	struct rf_guard_key key = { .device = RF_GUARD_NAME };
	__u32 i, *found;

	for (i = 0; i < RF_GUARD_ENDS; i++) {
		key.id = ends[i];
		found = bpf_map_lookup_elem(&guards, &key);
		if (!found)
			return false;
		if ((*found & RF_GUARD_KIND) == RF_GUARD_WHOLE)
			return true;
	}
	return false;
}

/* Compares names, not objects: most paths need only a look-up or two. */
__noinline int rf_path_may_be_guarded(struct rf_scratch *buffer)
{
	if (!buffer || !buffer->len)
		return 0;
	rf_hash_ends(buffer);
	return rf_ends_match(buffer->ends) || rf_ends_match(buffer->above + 1);
}

/*
 * A path is read from the caller's memory, and its target is not known yet. Only what is in the
 * directory where it begins is certain. A path that merely resembles a guarded one is reported,
 * without a kill (header.flags says so). The agent itself sees the effect
 * (daemon/defence/watchdog.py).
 */
__noinline int rf_guard_path(const struct rf_call *call, __u32 directory, __u32 arg, __u32 what)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);
	struct rf_scratch *buffer;
	__u32 kind = 0;
	__u64 from;
	int verdict = RF_ACTION_NONE;

	if (!call || arg >= RF_SYSCALL_ARGS || !armed)
		return RF_ACTION_NONE;
	buffer = rf_scratch_claim(&armed->scratch);
	if (!buffer) /* the path is unknown */
		return rf_guard_hit(what, 0, 0, 0, false);
	rf_call_text(buffer, call, arg, RF_AGENT_TAMPER);
	from = !buffer->len || buffer->name[0] == '/' ? 0 : rf_directory_of(task, call, directory);
	if (from)
		kind = rf_guard_kind(from);
	if (kind == RF_GUARD_TREE)
		verdict = rf_guard_hit(what, 0, 0, 1, false);
	else if (rf_path_may_be_guarded(buffer))
		verdict = rf_guard_hit(what | RF_TAMPER_MAYBE, 0, 0, 1, false);
	rf_scratch_release(buffer);
	return verdict;
}

static __always_inline int rf_guard_paths(const struct rf_call *call,
					  const struct rf_guarded_call *how)
{
	int verdict = rf_guard_path(call, how->arg[0], how->arg[1], how->what);

	return verdict == RF_ACTION_NONE ? rf_guard_path(call, how->arg[2], how->arg[3], how->what)
					 : verdict;
}

static __always_inline bool rf_fd_is_guarded(__u32 fd)
{
	__u64 file = rf_file_of_fd(fd);
	__u32 kind = file ? rf_guard_kind((__u64)RF_READ(struct file, file, f_path.dentry)) : 0;

	return kind == RF_GUARD_TREE || kind == RF_GUARD_FILE;
}

#define RF_BPF_PROG_LOAD 5

/*
 * A program can write a map that is frozen, and a call that opens one has its effect, although its
 * caller is killed for it. So a load that is in flight then could use that map, if its caller has
 * the same descriptors. It is killed before: the verifier refuses to work for a task with a pending
 * signal (c3494801cd17). Threads of one process are killed with the one that opens the map, and
 * need not be: programs that load others have many.
 *
 * Asked first is whether any process of the container ever shared its descriptors with another
 * one: counts of users are one too high while a thread starts or ends.
 */
static __always_inline bool rf_loads_for_others(struct task_struct *task)
{
	struct rf_armed *armed = rf_bound(task);
	struct rf_container *container = armed ? rf_container_of(&armed->task) : NULL;

	return container && container->state & RF_STATE_SHARES_FILES && rf_shares_with_others(0);
}

__noinline int rf_guard_call(const struct rf_call *call)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct rf_guarded_call *how;
	__u64 first, second;
	bool hit = false;
	__u32 index;

	if (!call)
		return RF_ACTION_NONE;
	index = call->index;
	how = bpf_map_lookup_elem(&guarded_calls, &index);
	if (!how || !how->how)
		return RF_ACTION_NONE;
	if (how->needs < RF_SYSCALL_ARGS && !call->args[how->needs])
		return RF_ACTION_NONE;
	if (how->how == RF_GUARDED_PATHS)
		return rf_guard_paths(call, how);
	first = how->arg[0] < RF_SYSCALL_ARGS ? call->args[how->arg[0]] : 0;
	second = how->arg[1] < RF_SYSCALL_ARGS ? call->args[how->arg[1]] : 0;
	switch (how->how) {
	case RF_GUARDED_PROCESS:
		hit = rf_is_agent_pid(task, first);
		break;
	case RF_GUARDED_PIDFD:
		hit = rf_is_agent_pidfd(first);
		break;
	case RF_GUARDED_PRIORITY:
		hit = rf_priority_hits_agent(task, (__u32)first, second);
		break;
	case RF_GUARDED_IO_PRIORITY:
		hit = rf_priority_hits_agent(task, (__u32)first - 1, second);
		break;
	case RF_GUARDED_FILE:
		hit = rf_fd_is_guarded(first);
		break;
	case RF_GUARDED_LOAD:
		hit = (__u32)first == RF_BPF_PROG_LOAD && rf_loads_for_others(task);
		break;
	}
	return hit ? rf_guard_hit(how->what, 0, 0, 0, false) : RF_ACTION_NONE;
}

/* ---- descriptors of BPF ------------------------------------------------- */

/* Names of the files behind descriptors of BPF objects. */
#define RF_BPF_MAP_NAME RF_NAME8('b', 'p', 'f', '-', 'm', 'a', 'p', 0)
#define RF_BPF_PROG_NAME RF_NAME8('b', 'p', 'f', '-', 'p', 'r', 'o', 'g')
#define RF_BPF_LINK_NAME RF_NAME8('b', 'p', 'f', '-', 'l', 'i', 'n', 'k')
#define RF_BPF_LINK_NAME_OLD RF_NAME8('b', 'p', 'f', '_', 'l', 'i', 'n', 'k')

/* Commands of bpf(2) that return a descriptor of an object that exists. */
#define RF_BPF_OBJ_GET 7
#define RF_BPF_PROG_GET_FD_BY_ID 13
#define RF_BPF_MAP_GET_FD_BY_ID 14
#define RF_BPF_LINK_GET_FD_BY_ID 30

/*
 * The descriptor is gone: another thread has closed it, perhaps after it made another one for the
 * same object, which may be the agent's.
 */
static __always_inline bool rf_gets_object(struct pt_regs *regs)
{
	struct rf_call call;
	__u32 command;

	rf_read_call(&call, regs, false);
	command = call.args[0];
	return command == RF_BPF_OBJ_GET || command == RF_BPF_PROG_GET_FD_BY_ID ||
	       command == RF_BPF_MAP_GET_FD_BY_ID || command == RF_BPF_LINK_GET_FD_BY_ID;
}

/* bpf(2) has returned a descriptor; it cannot be used before the call has returned. */
SEC("tracepoint/syscalls/sys_exit")
int guard_bpf_exit(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	__u64 file, dentry, object, name = 0;
	long fd = rf_return_value(regs);

	if (fd < 0 || !rf_bound(task))
		return 0;
	file = rf_file_of_fd(fd);
	if (!file) {
		if (rf_gets_object(regs))
			rf_guard_hit(RF_TAMPER_MAP, 0, 0, 0, false);
		return 0;
	}
	dentry = (__u64)RF_READ(struct file, file, f_path.dentry);
	bpf_probe_read_kernel(&name, sizeof(name), RF_READ(struct dentry, dentry, d_name.name));
	object = (__u64)RF_READ(struct file, file, private_data);
	if (name == RF_BPF_MAP_NAME) {
		if (rf_is_guarded_object(RF_GUARD_MAP, RF_READ(struct bpf_map, object, id)))
			rf_guard_hit(RF_TAMPER_MAP, RF_READ(struct bpf_map, object, id), 0, 0,
				     false);
	} else if (name == RF_BPF_PROG_NAME) {
		__u32 id = RF_READ(struct bpf_prog, object, aux, id);

		if (rf_is_guarded_object(RF_GUARD_PROGRAM, id))
			rf_guard_hit(RF_TAMPER_PROGRAM, id, 0, 0, false);
	} else if (name == RF_BPF_LINK_NAME || name == RF_BPF_LINK_NAME_OLD) {
		__u32 id = RF_READ(struct bpf_link, object, id);

		if (rf_is_guarded_object(RF_GUARD_LINK, id))
			rf_guard_hit(RF_TAMPER_LINK, id, 0, 0, false);
	}
	return 0;
}
