/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every difference between kernels, each with the change that made it. The code tests the kernel's
 * BTF (field, type, enum value), never its version. Differences between architectures are in arch/.
 * The floor is 5.15: BPF_MAP_TYPE_RINGBUF (5.8), task storage in tracing programs (5.13),
 * bpf_task_pt_regs and links to perf events (5.15). agent/ringfence/bpf/syscalls.py has the same
 * for system calls.
 */
#ifndef RINGFENCE_COMPAT_H
#define RINGFENCE_COMPAT_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* A function with its own stack frame: its stack does not add to that of the caller's next call. */
#define rf_subprogram static __noinline __attribute__((unused))

/*
 * A loop with one place of its calls, not one a round. The verifier of 7.3 follows a function again
 * at each place that passes it an address on the caller's stack, and so what it calls.
 */
#define RF_ROLLED _Pragma("clang loop unroll(disable)")

/*
 * Reads through kernel pointers that are held as numbers. The address is a variable of its own:
 * inside BPF_CORE_READ, an access to a struct of the probes would be relocated, too.
 */
#define RF_READ(type, address, ...)               \
	({                                        \
		type *__at = (type *)(address);   \
		BPF_CORE_READ(__at, __VA_ARGS__); \
	})

/*
 * A pointer as a number. Global functions take no pointer to a kernel object on most kernels, and
 * the verifier refuses to turn one into a number, but it permits reading the place where it is
 * stored.
 */
static __always_inline __u64 rf_address(const void *pointer)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &pointer);
	return address;
}

/* Up to eight characters as the kernel has them in memory, little endian; unused ones are 0. */
#define RF_NAME8(a, b, c, d, e, f, g, h)                                                         \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 | (__u64)(e) << 32 | \
	 (__u64)(f) << 40 | (__u64)(g) << 48 | (__u64)(h) << 56)

/* ---- system calls: registers, numbers, calling ABI --------------------- */

struct rf_call {
	__u64 args[6];
	__u32 nr;    /* as the calling ABI numbers it */
	__u32 index; /* into `syscalls` */
	__u32 compat;
	__u32 pad;
};

/* The same number on every architecture, and for 32-bit callers. */
#define RF_NR_IO_URING_ENTER 426
#define RF_NR_CLONE3 435

#if defined(__TARGET_ARCH_x86)
#include "arch/x86.h"
#elif defined(__TARGET_ARCH_arm64)
#include "arch/arm64.h"
#endif

#define RF_HASH_FACTOR 0x9e3779b97f4a7c15ULL

/* Distinguishes the calls of a task, by their place and their registers. */
static __always_inline __u64 rf_call_hash(const struct rf_call *call, struct pt_regs *regs)
{
	__u64 hash = rf_call_site(regs) ^ (__u64)call->nr << 48;
	__u32 i;

	for (i = 0; i < sizeof(call->args) / sizeof(call->args[0]); i++)
		hash = (hash ^ call->args[i]) * RF_HASH_FACTOR;
	return hash;
}

/* ---- credentials ------------------------------------------------------- */

#define RF_CAP_SYS_PTRACE 19
#define RF_CAP_SYS_ADMIN 21
#define RF_CAP_ALL ((1ULL << 41) - 1) /* CAP_LAST_CAP is CAP_CHECKPOINT_RESTORE since 5.9 */

/*
 * kernel_cap_t is u32[2] up to 6.2 and a u64 from 6.3 (f122a08b197d). On little-endian machines,
 * which all supported ones are, the eight bytes are the same.
 */
#define rf_capability(cred, field)                                            \
	({                                                                    \
		__u64 __set = 0;                                              \
		bpf_probe_read_kernel(&__set, sizeof(__set), &(cred)->field); \
		__set;                                                        \
	})

#define RF_PFA_NO_NEW_PRIVS 1UL /* bit 0 of task->atomic_flags */

/* task_struct.flags: include/linux/sched.h */
#define RF_PF_IO_WORKER 0x00000010
#define RF_PF_KTHREAD 0x00200000

/* ---- namespaces -------------------------------------------------------- */

#define RF_CLONE_NEWTIME 0x80
#define RF_CLONE_VM 0x100
#define RF_CLONE_FILES 0x400
#define RF_CLONE_VFORK 0x4000
#define RF_CLONE_THREAD 0x10000
#define RF_CLONE_NEWNS 0x20000
#define RF_CLONE_NEWCGROUP 0x2000000
#define RF_CLONE_NEWUTS 0x4000000
#define RF_CLONE_NEWIPC 0x8000000
#define RF_CLONE_NEWUSER 0x10000000
#define RF_CLONE_NEWPID 0x20000000
#define RF_CLONE_NEWNET 0x40000000
/* Those that clone(2) makes; its lowest byte is a signal, so a new time namespace is not seen. */
#define RF_CLONE_NEW_ANY                                                           \
	(RF_CLONE_NEWNS | RF_CLONE_NEWCGROUP | RF_CLONE_NEWUTS | RF_CLONE_NEWIPC | \
	 RF_CLONE_NEWUSER | RF_CLONE_NEWPID | RF_CLONE_NEWNET)

/*
 * The type of a namespace is a field of its operations up to 6.17, and its own field from 6.18
 * (ns_common.ns_type).
 */
struct proc_ns_operations___old {
	int type;
} __attribute__((preserve_access_index));
struct ns_common___old {
	const struct proc_ns_operations___old *ops;
	unsigned int inum;
} __attribute__((preserve_access_index));
struct ns_common___new {
	u32 ns_type;
	unsigned int inum;
} __attribute__((preserve_access_index));

static __always_inline __u32 rf_ns_type(__u64 ns)
{
	const struct ns_common___new *new = (void *)ns;
	const struct ns_common___old *old = (void *)ns;

	if (bpf_core_field_exists(new->ns_type))
		return BPF_CORE_READ(new, ns_type);
	return BPF_CORE_READ(old, ops, type);
}

/*
 * Numbers of mount namespaces that are never reused: of mount namespaces up to 6.17, of all
 * namespaces from 6.18. A mount made by fsmount or open_tree is in an anonymous namespace, which no
 * task can enter: its number is 0, or it has a flag (7.x).
 */
struct mnt_namespace___numbered {
	u64 seq;
} __attribute__((preserve_access_index));
struct mnt_namespace___anonymous {
	bool is_anon;
} __attribute__((preserve_access_index));
struct ns_common___numbered {
	u64 ns_id;
} __attribute__((preserve_access_index));

static __always_inline __u64 rf_mnt_ns_number(__u64 ns)
{
	const struct mnt_namespace___numbered *own = (void *)ns;
	const struct ns_common___numbered *common =
		(void *)(ns + bpf_core_field_offset(struct mnt_namespace, ns));

	if (bpf_core_field_exists(own->seq))
		return BPF_CORE_READ(own, seq);
	return BPF_CORE_READ(common, ns_id);
}

struct net___numbered {
	u64 net_cookie;
} __attribute__((preserve_access_index));

/*
 * What distinguishes a namespace (its ns_common) from an earlier one at the same address: the
 * number that is never used again, where there is one (network namespaces have a cookie since
 * 5.12), else the inode number.
 */
static __always_inline __u64 rf_ns_number(__u64 ns)
{
	const struct ns_common___numbered *common = (void *)ns;
	const struct net___numbered *net = (void *)(ns - bpf_core_field_offset(struct net, ns));
	__u32 type;

	if (bpf_core_field_exists(common->ns_id))
		return BPF_CORE_READ(common, ns_id);
	type = rf_ns_type(ns);
	if (type == RF_CLONE_NEWNS)
		return rf_mnt_ns_number(ns - bpf_core_field_offset(struct mnt_namespace, ns));
	if (type == RF_CLONE_NEWNET && bpf_core_field_exists(net->net_cookie))
		return BPF_CORE_READ(net, net_cookie);
	return RF_READ(struct ns_common, ns, inum);
}

/* References to a namespace; 0: it is gone. `__ns_ref` since 6.18 (and refcount_t is an int). */
struct ns_common___counted {
	struct {
		int refs;
	} count;
} __attribute__((preserve_access_index));
struct ns_common___referenced {
	struct {
		int refs;
	} __ns_ref;
} __attribute__((preserve_access_index));

static __always_inline __u32 rf_ns_references(__u64 ns)
{
	const struct ns_common___referenced *now = (void *)ns;
	__u32 offset, count = 0;

	if (bpf_core_field_exists(now->__ns_ref))
		offset = bpf_core_field_offset(struct ns_common___referenced, __ns_ref);
	else
		offset = bpf_core_field_offset(struct ns_common___counted, count);
	bpf_probe_read_kernel(&count, sizeof(count), (void *)(ns + offset));
	return count;
}

static __always_inline bool rf_mnt_ns_is_anonymous(__u64 ns)
{
	const struct mnt_namespace___anonymous *flagged = (void *)ns;

	if (bpf_core_field_exists(flagged->is_anon))
		return BPF_CORE_READ(flagged, is_anon);
	return !rf_mnt_ns_number(ns);
}

/* A failed or internal mount namespace is an error pointer (MNT_NS_INTERNAL is -EINVAL). */
static __always_inline bool rf_is_error(__u64 pointer)
{
	return pointer >= (__u64)-4095;
}

/* ---- cgroups ----------------------------------------------------------- */

/*
 * The kernel's configuration numbers the controllers. The name of a cgroup is in kernfs_node.name
 * on all kernels (RCU protected from 6.15, 741c10b096bc). The parent is taken from the css, as
 * kernfs_node.parent became __parent (633488947ef6).
 */
#define rf_subsys(id) bpf_core_enum_value(enum cgroup_subsys_id, id)

/*
 * The id of a cgroup's ancestor at a level, or of the cgroup itself. Each cgroup has a list of its
 * ancestors: ids up to 6.0, cgroups from 6.1 (7f203bc89eb6).
 */
static __always_inline __u64 rf_ancestor_id(__u64 cgroup, __u32 level)
{
	const struct cgroup___array *now = (void *)cgroup;
	__u64 found = 0;

	if (!bpf_core_field_exists(now->ancestors)) {
		bpf_probe_read_kernel(
			&found, sizeof(found),
			(void *)(cgroup + bpf_core_field_offset(struct cgroup___ids, ancestor_ids) +
				 level * sizeof(__u64)));
		return found;
	}
	bpf_probe_read_kernel(&found, sizeof(found),
			      (void *)(cgroup +
				       bpf_core_field_offset(struct cgroup___array, ancestors) +
				       level * sizeof(void *)));
	return RF_READ(struct cgroup, found, kn, id);
}

/*
 * sched_process_exit has a second argument from 6.16, and fires before exit_mm, so the mm is still
 * there. The argument is not read: a thread group has ended when signal->live is 0, which every
 * kernel decrements before the tracepoint.
 */

/* ---- filesystems ------------------------------------------------------- */

#define RF_MAGIC_OVERLAY 0x794c7630
#define RF_MAGIC_NSFS 0x6e736673
#define RF_MAGIC_CGROUP 0x27e0eb
#define RF_MAGIC_CGROUP2 0x63677270
#define RF_MAGIC_DEVPTS 0x1cd1
#define RF_MAGIC_PROC 0x9fa0
#define RF_MAGIC_PIDFS 0x50494446
#define RF_MAGIC_ANON_INODE 0x09041934

/*
 * Up to 6.8, a pidfd is an anonymous inode named [pidfd], and its file's private_data is the struct
 * pid. From 6.9 it is a file of pidfs, and its inode's i_private is the struct pid (cb12fd8e0dab).
 * The old form stays without CONFIG_FS_PID (until 6.14).
 */
#define RF_PIDFD_NAME RF_NAME8('[', 'p', 'i', 'd', 'f', 'd', ']', 0)

/*
 * Behind a file of overlayfs or fuse is another file, private to the kernel. A mapping knows only
 * that one. From 6.8 its path is the one on the disk, and the opened path is kept beside it
 * (def3ae83da02).
 */
#define RF_FMODE_NOACCOUNT 0x20000000
struct backing_file___user_path {
	struct path user_path;
} __attribute__((preserve_access_index));

/* The address of the struct path with which the file in front was opened. */
static __always_inline __u64 rf_path_of_backing(__u64 file)
{
	const struct backing_file___user_path *backing = (void *)file;

	if (bpf_core_field_exists(backing->user_path))
		return file + bpf_core_field_offset(struct backing_file___user_path, user_path);
	return file + bpf_core_field_offset(struct file, f_path);
}

/*
 * struct ovl_inode belongs to a module, so its BTF is not available on every node. From 4.13 on,
 * __upperdentry follows vfs_inode directly.
 */
static __always_inline bool rf_is_overlay_upper(__u64 inode)
{
	__u64 upper = 0;

	bpf_probe_read_kernel(&upper, sizeof(upper),
			      (void *)(inode + bpf_core_type_size(struct inode)));
	return upper != 0;
}

/*
 * When an inode last changed, in nanoseconds since 1970: i_ctime up to 6.5, __i_ctime up to 6.10
 * (13bc24457850), two fields from 6.11 (3aa63a569c64). From 6.13, bit 31 of the nanoseconds is a
 * flag (4e40eff0b573).
 */
struct rf_timespec {
	s64 tv_sec;
	s64 tv_nsec;
};
struct inode___first {
	struct rf_timespec i_ctime;
} __attribute__((preserve_access_index));
struct inode___second {
	struct rf_timespec __i_ctime;
} __attribute__((preserve_access_index));
struct inode___third {
	s64 i_ctime_sec;
	u32 i_ctime_nsec;
} __attribute__((preserve_access_index));

static __always_inline __u64 rf_changed_ns(__u64 inode)
{
	const struct inode___first *first = (void *)inode;
	const struct inode___second *second = (void *)inode;
	const struct inode___third *third = (void *)inode;
	struct rf_timespec at = {};

	if (bpf_core_field_exists(third->i_ctime_nsec)) {
		at.tv_sec = BPF_CORE_READ(third, i_ctime_sec);
		at.tv_nsec = BPF_CORE_READ(third, i_ctime_nsec) & ~(1U << 31);
	} else if (bpf_core_field_exists(second->__i_ctime)) {
		bpf_core_read(&at, sizeof(at), &second->__i_ctime);
	} else {
		bpf_core_read(&at, sizeof(at), &first->i_ctime);
	}
	return at.tv_sec * 1000000000ULL + at.tv_nsec;
}

#endif
