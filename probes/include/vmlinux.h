/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's types, as far as the probes read them. Every struct of the kernel has
 * preserve_access_index: offsets come from the running kernel's BTF, so a field that is left out
 * costs nothing, and one that moved is found. Contexts of BPF programs are UAPI: they never change,
 * and need no relocation.
 */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
typedef int pid_t;
typedef u32 dev_t;
typedef unsigned short umode_t;

#define NULL ((void *)0)
#define true 1
#define false 0

#include "uapi.h"

/* ---- the kernel's own -------------------------------------------------- */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct hlist_node {
	struct hlist_node *next;
};
struct list_head {
	struct list_head *next;
};
struct qstr {
	u32 len;
	const unsigned char *name;
};
typedef struct {
	int counter;
} atomic_t;
typedef struct {
	u32 val;
} kuid_t;
typedef struct {
	u32 val;
} kgid_t;

/* Only read as eight bytes: see rf_capability in compat.h. */
typedef struct {
	u64 val;
} kernel_cap_t;

struct ns_common {
	unsigned int inum;
};

struct uid_gid_extent {
	u32 first;
	u32 lower_first;
	u32 count;
};
struct uid_gid_map {
	u32 nr_extents;
	struct uid_gid_extent extent[5];
};
struct user_namespace {
	struct uid_gid_map uid_map;
	struct user_namespace *parent;
	int level;
	struct ns_common ns;
};
struct uts_namespace {
	struct user_namespace *user_ns;
	struct ns_common ns;
};
struct ipc_namespace {
	struct user_namespace *user_ns;
	struct ns_common ns;
};
struct mnt_namespace {
	struct ns_common ns;
	struct user_namespace *user_ns;
};
struct xarray {
	void *xa_head;
};
struct xa_node {
	unsigned char shift;
	void *slots[64]; /* 16 with CONFIG_BASE_SMALL */
};
struct idr {
	struct xarray idr_rt;
};
struct pid_namespace {
	struct idr idr;
	unsigned int level;
	struct user_namespace *user_ns;
	struct ns_common ns;
};
struct time_namespace {
	struct ns_common ns;
};
struct cgroup_namespace {
	struct ns_common ns;
	struct user_namespace *user_ns;
};
struct net {
	struct user_namespace *user_ns;
	struct ns_common ns;
};

struct nsproxy {
	struct uts_namespace *uts_ns;
	struct ipc_namespace *ipc_ns;
	struct mnt_namespace *mnt_ns;
	struct pid_namespace *pid_ns_for_children;
	struct net *net_ns;
	struct time_namespace *time_ns;
	struct cgroup_namespace *cgroup_ns;
};

struct nsset;

struct hlist_head {
	struct hlist_node *first;
};
struct upid {
	int nr;
	struct pid_namespace *ns;
};
struct pid {
	unsigned int level;
	struct hlist_head tasks[4]; /* by enum pid_type: PIDTYPE_PID is 0 */
	struct upid numbers[1];
};

struct cred {
	kuid_t uid;
	kgid_t gid;
	kuid_t euid;
	kernel_cap_t cap_permitted;
	kernel_cap_t cap_effective;
	kernel_cap_t cap_bset;
	struct user_namespace *user_ns;
};

struct kernfs_node {
	const char *name;
	u64 id;
	void *priv; /* of a directory of a cgroup filesystem: the cgroup */
};
struct cgroup;
struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};
struct cgroup_root {
	unsigned int subsys_mask;
	int hierarchy_id;
};
struct cgroup {
	struct cgroup_subsys_state self;
	int level;
	struct kernfs_node *kn;
	struct cgroup_root *root;
};
struct cgroup___array {
	struct cgroup *ancestors[0];
};
struct cgroup___ids {
	u64 ancestor_ids[0];
};
/* The kernel's configuration numbers the controllers: the numbers are looked up. */
enum cgroup_subsys_id {
	cpu_cgrp_id,
	memory_cgrp_id,
	devices_cgrp_id,
	freezer_cgrp_id,
	pids_cgrp_id,
	CGROUP_SUBSYS_COUNT = 16,
};
struct css_set {
	struct cgroup_subsys_state *subsys[CGROUP_SUBSYS_COUNT];
	struct cgroup *dfl_cgrp;
	struct list_head cgrp_links;
};
struct cgrp_cset_link { /* kernel/cgroup/cgroup-internal.h: in its BTF */
	struct cgroup *cgrp;
	struct list_head cgrp_link; /* the next of the same css_set */
};

struct dentry;
struct file_system_type {
	const char *name;
};
struct super_block {
	dev_t s_dev;
	struct file_system_type *s_type;
	unsigned long s_magic;
	unsigned long s_iflags;
	struct dentry *s_root;
};
struct inode {
	umode_t i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	unsigned int i_nlink;
	dev_t i_rdev;
	void *i_private;
	char *i_link; /* of a symbolic link; NULL: its text is elsewhere */
};
struct iattr {
	unsigned int ia_valid;
};
union security_list_options { /* of which hooks there are */
	void *inode_post_setattr;
};
struct proc_inode { /* fs/proc/internal.h: private to the kernel, but in its BTF */
	struct pid *pid;
	struct inode vfs_inode;
};
struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
	void *d_fsdata; /* devpts: the terminal */
};
struct tty_struct___ctrl { /* since 5.13 */
	struct {
		struct pid *session;
	} ctrl;
};
struct tty_struct___flat {
	struct pid *session;
};
struct vfsmount {
	struct dentry *mnt_root;
	struct super_block *mnt_sb;
	int mnt_flags;
};
struct mount { /* fs/mount.h: private to the kernel, but in its BTF */
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct fown_struct {
	struct pid *pid;
};
struct file {
	struct path f_path;
	struct fown_struct f_owner;
	struct inode *f_inode;
	unsigned int f_flags;
	unsigned int f_mode;
	void *private_data;
};
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};
struct files_struct {
	atomic_t count;
	struct fdtable *fdt;
};
struct fs_struct {
	int users;
	struct path root;
	struct path pwd;
};
struct mm_struct {
	atomic_t mm_users;
	unsigned long arg_start;
	unsigned long arg_end;
	unsigned long env_start;
	unsigned long env_end;
	struct file *exe_file;
};
struct vm_area_struct {
	struct file *vm_file;
};
struct fs_parameter {
	const char *key;
};
struct fs_context;
struct linux_binprm {
	struct file *file;
	const char *filename; /* as requested */
	const char *interp;   /* what runs it: another file for scripts */
};

/* of the trace event task/task_newtask */
struct trace_event_raw_task_newtask {
	pid_t pid;
};

struct rlimit {
	unsigned long rlim_cur;
	unsigned long rlim_max;
};
struct signal_struct {
	atomic_t live;
	struct list_head thread_head;
	struct rlimit rlim[16];
};
struct seccomp {
	int mode;
};
struct thread_info {
	unsigned long flags;
	u32 status; /* x86 */
};
struct task_struct {
	struct thread_info thread_info;
	pid_t pid;
	pid_t tgid;
	int exit_code;
	unsigned int flags;
	unsigned int ptrace;
	unsigned int personality;
	struct mm_struct *mm;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct list_head thread_node;
	void *vfork_done; /* of a vfork's child, until it execs */
	struct pid *thread_pid;
	struct hlist_node pid_links[4]; /* as pid.tasks */
	u64 start_boottime;
	u64 self_exec_id; /* how often it has executed a program */
	const struct cred *real_cred;
	const struct cred *cred;
	char comm[16];
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	unsigned long atomic_flags;
	struct seccomp seccomp;
	struct css_set *cgroups;
	struct io_uring_task *io_uring; /* once it has used a ring; CONFIG_IO_URING */
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long bp;
	unsigned long bx;
	unsigned long r10;
	unsigned long r9;
	unsigned long r8;
	unsigned long ax;
	unsigned long cx;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
	unsigned long ip;
	unsigned long sp;
};
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	u64 regs[31];
	u64 sp;
	u64 pc;
	u64 orig_x0;
	s32 syscallno;
};
struct user_pt_regs { /* the context of a kprobe, as PT_REGS_PARM1 reads it */
	u64 regs[31];
};
#else
#error "unknown architecture: teach vmlinux.h and compat.h its registers"
#endif

struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
	u64 seq_num;
};
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct sock;
struct bpf_sock_addr_kern { /* 6.7: also of unix sockets */
	struct sock *sk;
	void *uaddr;
	u32 uaddrlen;
};
struct sockaddr_un {
	u16 sun_family;
	char sun_path[108];
};
typedef struct {
	struct net *net;
} possible_net_t;
struct sock_common {
	unsigned short skc_family;
	possible_net_t skc_net;
};
struct sock_cgroup_data {
	struct cgroup *cgroup;
};
struct sock {
	struct sock_common __sk_common;
	struct sock_cgroup_data sk_cgrp_data;
	u16 sk_protocol;
	struct pid *sk_peer_pid;
	unsigned int sk_kern_sock : 1;
};
struct tcp_sock {
	bool is_mptcp; /* only with CONFIG_MPTCP */
};
struct socket {
	struct sock *sk;
};
struct unix_address {
	int len;
	struct sockaddr_un name[0];
};
struct unix_sock {
	struct unix_address *addr;
	struct path path; /* of the file that it is bound to */
	struct sock *peer;
};

#pragma clang attribute pop

#endif
