// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What rules test of a system call, taken from its registers and from the kernel objects that they
 * name: for the call's entry (syscalls.bpf.c) and for the hooks that the call reaches (lsm.h).
 */
#include "include/borrowed.h"
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/membership.h"
#include "include/namespaces.h"
#include "include/operands.h"
#include "include/own_root.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The namespace that setns(fd, nstype) would enter. */
static __always_inline __u64 rf_ns_of_fd(__u32 fd)
{
	__u64 file = rf_file_of_fd(fd);
	__u64 inode, super;

	if (!file)
		return 0;
	inode = (__u64)RF_READ(struct file, file, f_inode);
	super = (__u64)RF_READ(struct inode, inode, i_sb);
	if (RF_READ(struct super_block, super, s_magic) != RF_MAGIC_NSFS)
		return 0;
	return (__u64)RF_READ(struct inode, inode, i_private);
}

/* The relation of a process, by its number on the host. */
static __always_inline __u32 rf_relation_of_tgid(struct task_struct *task,
						 const struct rf_task *bound, __u32 tgid)
{
	struct rf_task *other;

	if (tgid == (__u32)task->tgid)
		return RF_RELATION_SELF;
	other = bpf_map_lookup_elem(&processes, &tgid);
	if (!other)
		return RF_RELATION_HOST;
	return other->container == bound->container ? RF_RELATION_CONTAINER : RF_RELATION_OTHER;
}

__noinline __u32 rf_relation_of_process(__u32 tgid)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);

	return armed ? rf_relation_of_tgid(task, &armed->task, tgid) : RF_RELATION_UNKNOWN;
}

/*
 * The relation of a task, by its address. A task that has ended is not in `processes` any more, and
 * one beyond its container's share never was: these are attributed by their cgroup.
 */
static __always_inline __u32 rf_relation_of_task(struct task_struct *task,
						 const struct rf_task *bound, __u64 address)
{
	struct task_struct *other = (struct task_struct *)address;
	__u32 relation = rf_relation_of_tgid(task, bound, BPF_CORE_READ(other, tgid));

	if (relation != RF_RELATION_HOST || BPF_CORE_READ(other, flags) & RF_PF_KTHREAD ||
	    (BPF_CORE_READ(other, mm) && !rf_has_unlisted()))
		return relation;
	return rf_relation_of_slot(bound, rf_slot_of(rf_cgroup_of(other)));
}

__noinline __u32 rf_relation_of_struct_pid(__u64 pid)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);
	__u64 other;
	__s32 nr = 0;

	if (!pid || !armed)
		return RF_RELATION_UNKNOWN;
	other = rf_task_of_pid(pid);
	if (other)
		return rf_relation_of_task(task, &armed->task, other);
	/* numbers[0]: on the host. */
	bpf_probe_read_kernel(&nr, sizeof(nr),
			      (void *)(pid + bpf_core_field_offset(struct pid, numbers)));
	return rf_relation_of_tgid(task, &armed->task, nr);
}

static __always_inline __u32 rf_relation_of_pidfd(__u32 fd)
{
	return rf_relation_of_struct_pid(rf_pid_of_fd(fd));
}

/*
 * A pid namespace keeps its numbers in a tree (include/linux/xarray.h). A pointer to a node has
 * this bit and no other.
 */
#define RF_XA_NODE 2
#define RF_XA_BITS 3
#define RF_XA_FIRST_NODE 4096
#define RF_XA_SLOTS (bpf_core_field_size(struct xa_node, slots) / sizeof(void *))
#define RF_PID_LEVELS 6 /* of 22 bits, in nodes of 16 at worst */

/* One step down from a node, which has at most 64 slots. */
static __always_inline __u64 rf_xa_down(__u64 entry, __u32 nr, bool top)
{
	__u64 node = entry - RF_XA_NODE, found = 0;
	__u32 at = nr >> (RF_READ(struct xa_node, node, shift) & 31);

	if (top && at >= RF_XA_SLOTS)
		return 0;
	at &= RF_XA_SLOTS - 1;
	bpf_probe_read_kernel(
		&found, sizeof(found),
		(void *)(node + bpf_core_field_offset(struct xa_node, slots) + at * sizeof(found)));
	return found;
}

/* Returns 0 as well if this kernel stores numbers in another way. */
__noinline __u64 rf_pid_numbered(__u64 ns, __u32 nr)
{
	const struct pid_namespace *at = (void *)ns;
	struct rf_pid_numbers named = {};
	__u32 step, level;
	__u64 entry;

	if (!bpf_core_field_exists(at->idr))
		return 0;
	entry = (__u64)BPF_CORE_READ(at, idr.idr_rt.xa_head);
	level = BPF_CORE_READ(at, level);
	for (step = 0; step < RF_PID_LEVELS; step++) {
		if ((entry & RF_XA_BITS) != RF_XA_NODE || entry < RF_XA_FIRST_NODE)
			break;
		entry = rf_xa_down(entry, nr, !step);
	}
	if (!entry || entry & RF_XA_BITS)
		return 0;
	bpf_probe_read_kernel(&named, sizeof(named),
			      (void *)(entry + bpf_core_field_offset(struct pid, numbers) +
				       (__u64)level * sizeof(named)));
	return named.ns == ns && (__u32)named.nr == nr ? entry : 0;
}

/*
 * A pid argument is a number in the caller's pid namespace, of a process or a thread. Containers
 * may share that namespace, so the relation is that of the task. If none is found, a number in the
 * host's namespace belongs to the host.
 */
static __always_inline __u32 rf_relation_of_pid(struct task_struct *task,
						const struct rf_task *bound, __s32 pid)
{
	struct rf_pid_numbers numbers;
	__u64 other;

	if (pid == 0)
		return RF_RELATION_SELF;
	if (pid < 0)
		return RF_RELATION_HOST; /* all processes (perf_event_open) */
	rf_pid_numbers(task, &numbers);
	if (pid == numbers.nr)
		return RF_RELATION_SELF;
	other = numbers.ns ? rf_task_numbered(numbers.ns, pid) : 0;
	if (other)
		return rf_relation_of_task(task, bound, other);
	if (numbers.ns && RF_READ(struct pid_namespace, numbers.ns, ns.inum) == config.host_pid_ns)
		return rf_relation_of_tgid(task, bound, pid);
	return RF_RELATION_CONTAINER;
}

__noinline int rf_borrow_numbered(__u32 nr)
{
	struct rf_pid_numbers numbers;
	__u64 other;

	rf_pid_numbers(bpf_get_current_task_btf(), &numbers);
	other = numbers.ns ? rf_task_numbered(numbers.ns, nr) : 0;
	return other ? rf_borrow(RF_READ(struct task_struct, other, tgid)) : 0;
}

/* The greater of a relation and that of another task. */
__noinline __u32 rf_greater_relation(__u64 address, __u32 relation)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);
	__u32 one = armed && address ? rf_relation_of_task(task, &armed->task, address)
				     : RF_RELATION_UNKNOWN;

	return one > relation ? one : relation;
}

/* The next process of the same group; 0: this is the last. */
__noinline __u64 rf_next_of_group(__u64 task)
{
	__u64 link = (__u64)RF_READ(struct task_struct, task, pid_links[RF_PIDTYPE_PGID].next);

	return link ? link - bpf_core_field_offset(struct task_struct, pid_links[RF_PIDTYPE_PGID])
		    : 0;
}

/* A longer group counts as one with a process of the host, where there are such processes. */
#define RF_GROUP_MEMBERS 32

/* The pid namespace of the current process. On a stack of its own. */
__noinline __u64 rf_own_pid_ns(void)
{
	struct rf_pid_numbers numbers;

	rf_pid_numbers(bpf_get_current_task_btf(), &numbers);
	return numbers.ns;
}

/*
 * What kill() signals if it is not one process: a group, or (-1) every process in the caller's pid
 * namespace.
 */
__noinline __u32 rf_relation_of_many(__s32 pid)
{
	__u64 ns = rf_own_pid_ns(), group, other;
	__u32 relation = RF_RELATION_CONTAINER, member;
	bool in_host_pid_ns =
		ns && RF_READ(struct pid_namespace, ns, ns.inum) == config.host_pid_ns;

	if (pid == -1)
		return in_host_pid_ns ? RF_RELATION_HOST : RF_RELATION_CONTAINER;
	group = ns ? rf_pid_numbered(ns, -pid) : 0;
	other = group ? rf_task_of_group(group) : 0;
	for (member = 0; member < RF_GROUP_MEMBERS; member++) {
		if (!other)
			return relation;
		relation = rf_greater_relation(other, relation);
		other = rf_next_of_group(other);
	}
	return other && in_host_pid_ns ? RF_RELATION_HOST : relation;
}

static __always_inline __u32 rf_relation_of_signalled(struct task_struct *task,
						      const struct rf_task *bound, __s32 pid)
{
	return pid >= 0 ? rf_relation_of_pid(task, bound, pid) : rf_relation_of_many(pid);
}

/* include/uapi/linux/resource.h; those of ioprio_set begin with 1 */
#define RF_PRIO_PROCESS 0
#define RF_PRIO_PGRP 1

/*
 * The relation of the processes that setpriority() changes: one, a group of processes (0: the
 * caller's own), or all of a user that are in the caller's pid namespace.
 */
static __always_inline __u32 rf_relation_of_changed(struct task_struct *task,
						    const struct rf_task *bound, __u32 which,
						    __s32 who)
{
	if (which == RF_PRIO_PROCESS)
		return rf_relation_of_pid(task, bound, who);
	if (which == RF_PRIO_PGRP && !who)
		return RF_RELATION_SELF;
	return rf_relation_of_signalled(task, bound, which == RF_PRIO_PGRP && who > 1 ? -who : -1);
}

#define RF_OWN_NS(task, kind) BPF_CORE_READ(task, nsproxy, kind, ns.inum)

static __always_inline bool rf_is_in_ns(struct task_struct *task, __u64 ns)
{
	__u32 inum = RF_READ(struct ns_common, ns, inum);

	return inum == rf_mnt_ns(task) || inum == rf_pid_ns(task) ||
	       inum == RF_OWN_NS(task, net_ns) || inum == RF_OWN_NS(task, ipc_ns) ||
	       inum == RF_OWN_NS(task, uts_ns) || inum == RF_OWN_NS(task, cgroup_ns) ||
	       inum == RF_OWN_NS(task, time_ns) ||
	       inum == BPF_CORE_READ(task, cred, user_ns, ns.inum);
}

/* On a stack of its own, which the look-up after it does not need. */
__noinline int rf_current_is_in(__u64 ns)
{
	return rf_is_in_ns(bpf_get_current_task_btf(), ns);
}

__noinline __u32 rf_relation_of_ns(__u64 ns)
{
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());

	if (!armed)
		return RF_RELATION_UNKNOWN;
	if (!rf_is_initial_ns(ns) && rf_current_is_in(ns))
		return RF_RELATION_SELF;
	return rf_ns_relation(armed->task.slot, armed->task.container, ns);
}

#define RF_MS_MGC_VAL 0xc0ed0000U
#define RF_MS_MGC_MSK 0xffff0000U

/*
 * Flags of mount(2) as the kernel uses them. Up to 2.4 callers had to write a magic number into the
 * upper half. path_mount() still removes it, and its bits are those of MS_PRIVATE and others.
 */
static __always_inline __u64 rf_mount_flags(__u64 flags)
{
	return (flags & RF_MS_MGC_MSK) == RF_MS_MGC_VAL ? flags & ~RF_MS_MGC_MSK : flags;
}

#define RF_STACKED_ROOTS 16

/*
 * Roots can be stacked: what pivot_root leaves is on a hidden mount, and so is what was moved to
 * `/`. Like the kernel's own current_chrooted(), from the other end.
 */
__noinline int rf_is_chrooted(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	__u64 dentry = (__u64)BPF_CORE_READ(fs, root.dentry);
	__u64 mount = (__u64)BPF_CORE_READ(fs, root.mnt) - bpf_core_field_offset(struct mount, mnt);
	__u32 depth;

	for (depth = 0; depth < RF_STACKED_ROOTS; depth++) {
		struct mount *m = (struct mount *)mount;
		__u64 above = (__u64)BPF_CORE_READ(m, mnt_parent);

		if (dentry != (__u64)BPF_CORE_READ(m, mnt.mnt_root))
			return 1;
		if (!above || above == mount)
			return 0;
		dentry = (__u64)BPF_CORE_READ(m, mnt_mountpoint);
		mount = above;
	}
	return 1;
}

/* Returns true if a descriptor is of a set-id program. */
static __always_inline bool rf_fd_is_setuid(__u32 fd)
{
	__u64 file = rf_file_of_fd(fd);
	__u32 mode;

	if (!file)
		return false;
	mode = RF_READ(struct file, file, f_inode, i_mode);
	return (mode & RF_S_IFMT) == RF_S_IFREG && mode & RF_S_ISUGID;
}

__noinline __u32 rf_tree_of_fd(__u32 fd)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);
	__u64 file = rf_file_of_fd(fd);

	if (!armed || !file)
		return RF_TREE_NONE;
	return rf_whose_name((__u64)RF_READ(struct file, file, f_path.dentry),
			     armed->container_root);
}

#define RF_PERF_FLAGS 4 /* argument of perf_event_open */
#define RF_PERF_FLAG_PID_CGROUP 4

__noinline __u64 rf_operand(const struct rf_call *call, __u32 source, __u32 arg)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed;
	__u64 value, next, ns;
	__u32 word = 0, other;

	if (!call || source == RF_FROM_NOTHING)
		return 0;
	if (source == RF_FROM_CONST)
		return arg;
	if (arg >= RF_SYSCALL_ARGS)
		return 0;
	value = call->args[arg];
	next = arg + 1 < RF_SYSCALL_ARGS ? call->args[arg + 1] : 0;
	switch (source) {
	case RF_FROM_ARG:
		return value;
	case RF_FROM_ARG32:
		return (__u32)value;
	case RF_FROM_DEV_TYPE:
		return value & RF_S_IFMT;
	case RF_FROM_USER_U64:
		next = 0;
		bpf_probe_read_user(&next, sizeof(next), (void *)value);
		return next;
	case RF_FROM_ARG_SET:
		return value != 0;
	case RF_FROM_USER_U32_SET:
		return bpf_probe_read_user(&word, sizeof(word), (void *)value) || word;
	case RF_FROM_MOUNT_FLAGS:
		return rf_mount_flags(value);
	case RF_FROM_SOCKET_FAMILY:
		return rf_socket_family(value, next,
					arg + 2 < RF_SYSCALL_ARGS ? call->args[arg + 2] : 0);
	case RF_FROM_CHROOTED:
		return rf_is_chrooted();
	case RF_FROM_FD_SETUID:
		return rf_fd_is_setuid(value);
	case RF_FROM_SETNS_TYPE:
		ns = rf_ns_of_fd(value);
		return ns ? rf_ns_type(ns) : (__u32)next;
	}
	armed = rf_bound(task);
	if (!armed)
		return RF_RELATION_UNKNOWN;
	switch (source) {
	case RF_FROM_SETNS_TARGET:
		ns = rf_ns_of_fd(value);
		word = ns ? rf_relation_of_ns(ns) : rf_relation_of_pidfd(value);
		break;
	case RF_FROM_PID_TARGET:
		word = rf_relation_of_pid(task, &armed->task, value);
		break;
	case RF_FROM_SIGNAL_TARGET:
		word = rf_relation_of_signalled(task, &armed->task, value);
		break;
	case RF_FROM_PIDS_TARGET:
		word = rf_relation_of_pid(task, &armed->task, value);
		other = rf_relation_of_pid(task, &armed->task, next);
		word = other > word ? other : word;
		break;
	case RF_FROM_PRIORITY_TARGET:
		word = rf_relation_of_changed(task, &armed->task, value, next);
		break;
	case RF_FROM_IOPRIORITY_TARGET:
		word = rf_relation_of_changed(task, &armed->task, value - 1, next);
		break;
	case RF_FROM_PERF_TARGET:
		/*
		 * With PERF_FLAG_PID_CGROUP the number is a descriptor: every task in that cgroup
		 * is measured.
		 */
		word = call->args[RF_PERF_FLAGS] & RF_PERF_FLAG_PID_CGROUP
			       ? RF_RELATION_HOST
			       : rf_relation_of_pid(task, &armed->task, value);
		break;
	case RF_FROM_PIDFD_TARGET:
		word = rf_relation_of_pidfd(value);
		break;
	}
	return word;
}
