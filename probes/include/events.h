/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * THE ABI between the probes and the agent: the enum of event kinds, the header that opens every
 * record, and one struct per event. tests/abi compares the Python mirror (agent/ringfence/wire.py)
 * with the BTF of abi_check.bpf.o.
 *
 * Rules: natural alignment only, no unnamed hole, every struct a multiple of 8 bytes, fixed sizes
 * (a constant bpf_ringbuf_reserve). Strings are bytes chosen by the observed process.
 */
#ifndef RINGFENCE_EVENTS_H
#define RINGFENCE_EVENTS_H

#include "vmlinux.h"

enum rf_limit {
	RF_ABI_VERSION = 1,
	RF_COMM_LEN = 16,
	RF_PATH_LEN = 256,
	RF_ARGS_LEN = 256,
	RF_SYSCTL_LEN = 128,
	RF_UNIX_PATH_LEN = 112,
	RF_SYSCALL_ARGS = 6,
	/* Operands that rules can test on one event; see match.h. */
	RF_OPERANDS = 4,
};

enum rf_event {
	RF_EVENT_NONE = 0,

	/* life of containers, tasks and cgroups (container.bpf.c, process.bpf.c) */
	RF_CONTAINER_CREATE = 1, /* its cgroup was made and enrolled */
	RF_CONTAINER_START = 2,	 /* its first task was armed */
	RF_CONTAINER_STOP = 3,	 /* its last armed task ended */
	RF_CONTAINER_REMOVE = 4, /* its cgroup is gone */
	RF_PROCESS_FORK = 5,
	RF_PROCESS_EXEC = 6,
	RF_PROCESS_EXIT = 7,
	RF_CGROUP_MKDIR = 8, /* a cgroup below a container's */
	RF_CGROUP_RMDIR = 9,
	RF_CGROUP_ATTACH = 10, /* an armed task left its container's cgroup */
	RF_CGROUP_RELEASE = 11,

	/* kernel objects (files.bpf.c, cgroup_*.bpf.c) */
	RF_FILE_OPEN = 16,
	RF_DEVICE_ACCESS = 17,
	RF_SYSCTL_ACCESS = 18,
	RF_NET_CONNECT = 19,
	RF_NET_BIND = 20,
	RF_NET_SENDMSG = 21,
	RF_UNIX_CONNECT = 22,
	RF_FILE_MAP = 23,     /* mapped for execution; LSM hooks alone */
	RF_FILE_RECEIVE = 24, /* received as a descriptor; LSM hooks alone */
	/* the kernel is about to request a module from modprobe for the task */
	RF_MODULE_REQUEST = 25,
	RF_SETSOCKOPT = 26,
	RF_FILE_LINK = 27, /* a symbolic link is made; LSM hooks alone. open_flags: RF_LEADS_* */

	/*
	 * properties of every container, without a list of names (drift.bpf.c,
	 * usermode_helper.bpf.c)
	 */
	/* the kernel runs a program of the host: modprobe, core_pattern, release_agent ... */
	RF_KERNEL_HELPER = 28,
	/* credentials or namespaces that no call of the task could have given it */
	RF_TASK_DRIFT = 29,
	/* a program of the host maps a file of a container for execution; LSM hooks alone */
	RF_HOST_MAP = 30,
	/* an attempt on an object that the agent depends on; no rule applies (guard.bpf.c) */
	RF_AGENT_TAMPER = 31,

	/* system calls (syscalls.bpf.c); several calls may share one event */
	RF_SYS_CLONE = 32, /* clone, clone3, fork, vfork */
	RF_SYS_UNSHARE = 33,
	RF_SYS_SETNS = 34,
	RF_SYS_MOUNT = 35,
	RF_SYS_UMOUNT = 36,
	RF_SYS_PIVOT_ROOT = 37,
	RF_SYS_CHROOT = 38,
	RF_SYS_FSOPEN = 39,
	RF_SYS_FSCONFIG = 40,
	RF_SYS_FSMOUNT = 41,
	RF_SYS_FSPICK = 42,
	RF_SYS_OPEN_TREE = 43,
	RF_SYS_MOVE_MOUNT = 44,
	RF_SYS_MOUNT_SETATTR = 45, /* mount_setattr, open_tree_attr */
	RF_SYS_PTRACE = 46,
	RF_SYS_PROCESS_VM = 47, /* process_vm_readv, process_vm_writev, process_madvise */
	RF_SYS_PIDFD_GETFD = 48,
	RF_SYS_BPF = 49,
	RF_SYS_PERF_EVENT_OPEN = 50,
	RF_SYS_MODULE_LOAD = 51, /* init_module, finit_module */
	RF_SYS_MODULE_UNLOAD = 52,
	RF_SYS_KEXEC = 53, /* kexec_load, kexec_file_load */
	RF_SYS_CAPSET = 54,
	RF_SYS_SETUID = 55, /* setuid, setreuid, setresuid, setfsuid */
	RF_SYS_SETGID = 56, /* setgid, setregid, setresgid, setfsgid, setgroups */
	RF_SYS_OPEN_BY_HANDLE_AT = 57,
	RF_SYS_MEMFD_CREATE = 58, /* memfd_create, memfd_secret */
	RF_SYS_USERFAULTFD = 59,
	RF_SYS_IO_URING_SETUP = 60,
	RF_SYS_KEYCTL = 61, /* keyctl, add_key, request_key */
	RF_SYS_MKNOD = 62,  /* mknod, mknodat */
	RF_SYS_SOCKET = 63, /* socket, socketpair; socketcall of 32-bit callers */
	RF_SYS_IOPL = 64,   /* iopl, ioperm */
	RF_SYS_SYSLOG = 65,
	RF_SYS_REBOOT = 66,
	RF_SYS_SWAP = 67,    /* swapon, swapoff */
	RF_SYS_SETTIME = 68, /* settimeofday, clock_settime, adjtimex, clock_adjtime */
	RF_SYS_CHMOD = 69,   /* chmod, fchmod, fchmodat, fchmodat2 */
	RF_SYS_IOCTL = 70,   /* hot: attached only if a loaded rule needs it */
	RF_SYS_SPLICE = 71,  /* splice, vmsplice, tee; attached only if a loaded rule needs it */
	RF_SYS_SYMLINK = 72, /* symlink, symlinkat; attached only if a loaded rule needs it */
	RF_SYS_PERSONALITY = 73,
	RF_SYS_SECCOMP = 74,
	RF_SYS_ACCT = 75,
	RF_SYS_QUOTACTL = 76,  /* quotactl, quotactl_fd */
	RF_SYS_SETDOMAIN = 77, /* sethostname, setdomainname */
	RF_SYS_RENAME = 78,    /* renameat2: the only one with flags */
	RF_SYS_SETXATTR = 79,  /* setxattr, lsetxattr, fsetxattr, setxattrat */
	RF_SYS_FANOTIFY_INIT = 80,
	/* kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal */
	RF_SYS_SIGNAL = 81,
	/* a look into another process that is no event of its own: lsm_look.bpf.c; kcmp */
	RF_PROCESS_LOOK = 82,
	/* a message about devices to udev, or to the kernel; LSM hooks alone */
	RF_UEVENT_SEND = 83,

	RF_EVENT_MAX = 96,
};

enum rf_action {
	RF_ACTION_NONE = 0, /* no rule matched: observation only */
	RF_ACTION_ALERT = 1,
	RF_ACTION_KILL = 2,
	RF_ACTION_DENY = 3,
};

enum rf_mechanism {
	RF_MECHANISM_OBSERVE = 0,
	RF_MECHANISM_KILL = 1,
	RF_MECHANISM_CGROUP = 2,
	RF_MECHANISM_LSM = 3,
	RF_MECHANISM_HOOK = 4,	   /* the same programs at the functions that call the hooks */
	RF_MECHANISM_BACKSTOP = 5, /* a kill behind such a function: backstop.h */
};

enum rf_call_number {
	RF_NO_CALL = 0xffffffff,
};

/* header.flags */
enum rf_flag {
	RF_FLAG_COMPAT = 0x01,	      /* made by a 32-bit system call */
	RF_FLAG_TRUNCATED = 0x02,     /* a string did not fit */
	RF_FLAG_UNREADABLE = 0x04,    /* a user string was not resident: empty here */
	RF_FLAG_ADOPTED = 0x08,	      /* the task or container existed before the agent */
	RF_FLAG_SIGNAL_FAILED = 0x10, /* SIGKILL could not be sent */
};

/* rf_header.facts and rf_container.facts: what rules call `task:` */
enum rf_fact {
	RF_FACT_USER_NAMESPACE = 1 << 0,   /* in a user namespace of its own */
	RF_FACT_CAP_SYS_ADMIN = 1 << 1,	   /* effective CAP_SYS_ADMIN (in its user namespace) */
	RF_FACT_ALL_CAPABILITIES = 1 << 2, /* effective set holds every capability */
	RF_FACT_ROOT = 1 << 3,		   /* euid 0 as the host sees it */
	RF_FACT_NO_SECCOMP = 1 << 4,
	RF_FACT_NO_NEW_PRIVS = 1 << 5,
	RF_FACT_HOST_PID = 1 << 6,
	RF_FACT_HOST_NETWORK = 1 << 7,
	RF_FACT_HOST_IPC = 1 << 8,
	RF_FACT_HOST_UTS = 1 << 9,
	RF_FACT_HOST_CGROUP = 1 << 10,
	RF_FACT_MEMFD_EXE = 1 << 11, /* its program is a memfd or another unlinked file */
	RF_FACT_UPPER_EXE = 1 << 12, /* its program was written after the container's image */
	RF_FACT_COMPAT = 1 << 13,    /* in a 32-bit system call */
	/* a 64-bit program in a 32-bit (or x32) system call: hardly ever legitimate */
	RF_FACT_FOREIGN_ABI = 1 << 14,
};

struct rf_header {
	__u16 event;  /* enum rf_event */
	__u8 version; /* RF_ABI_VERSION */
	__u8 flags;
	__u8 action;	  /* enum rf_action: the verdict that was enforced */
	__u8 mechanism;	  /* enum rf_mechanism */
	__u16 rule;	  /* number of the rule in its generation; 0xffff: none */
	__u32 generation; /* policy generation that the rule number belongs to */
	__u32 slot;	  /* index of the container; 0xffffffff: none */
	__u64 time_ns;	  /* CLOCK_BOOTTIME */
	__u64 container;  /* id of the container's own cgroup; 0: none */
	__u64 start_ns;	  /* CLOCK_BOOTTIME start of the thread group: with pid, its identity */
	__u32 pid;	  /* thread group, as the host numbers it */
	__u32 tid;
	__u32 ppid;
	__u32 vpid; /* thread group, as its own pid namespace numbers it */
	__u32 uid;
	__u32 gid;
	__u32 facts; /* RF_FACT_* of the task */
	__u32 pad;
	char comm[RF_COMM_LEN];
};

struct rf_object {
	__u64 device; /* st_dev as the kernel packs it: major << 20 | minor */
	__u64 inode;
	__u64 fs_magic; /* super_block.s_magic */
};

struct rf_container_event { /* CONTAINER_* */
	struct rf_header header;
	__u64 cgroup;
	__u64 parent;
	__u64 cap_effective; /* of the first armed task (START) */
	__u64 cap_permitted;
	__u64 cap_bounding;
	__u32 seccomp;		 /* 0 disabled, 1 strict, 2 filter */
	__u32 user_ns_level;	 /* 0: the initial user namespace */
	__u32 shared_namespaces; /* CLONE_NEW* bits of the namespaces shared with the host */
	__u32 exit_code;	 /* STOP: of the last task */
	__u32 path_len;
	__u32 pad;
	char path[RF_PATH_LEN]; /* cgroup path in its hierarchy (CREATE, REMOVE) */
};

struct rf_task_event { /* PROCESS_FORK, PROCESS_EXIT */
	struct rf_header header;
	__u64 clone_flags;
	__u64 child_start_ns;
	__u32 child_pid;
	__u32 child_tid;
	__u32 exit_code; /* wait status as the kernel packs it */
	__u32 pad;
};

struct rf_exec_event { /* PROCESS_EXEC */
	struct rf_header header;
	struct rf_object object;
	__u64 exe_hash; /* FNV-1a of path, what `exe:` operands hold */
	__u32 path_len;
	__u32 args_len;
	char path[RF_PATH_LEN]; /* of the program, inside its filesystem's tree as mounted */
	char args[RF_ARGS_LEN]; /* argv, NUL separated */
};

struct rf_cgroup_event { /* CGROUP_* */
	struct rf_header header;
	__u64 cgroup; /* made, removed, or moved to */
	__u64 parent;
	__u32 path_len;
	__u32 pad;
	char path[RF_PATH_LEN];
};

struct rf_file_event { /* FILE_* */
	struct rf_header header;
	struct rf_object object;
	__u32 mode;	  /* i_mode */
	__u32 open_flags; /* f_flags */
	__u32 rdev;	  /* of a device node, major << 20 | minor */
	__u32 mnt_ns;	  /* inum of the mount's namespace; 0: none */
	__s32 fd;
	__u32 path_len;
	char path[RF_PATH_LEN]; /* inside its filesystem */
};

struct rf_device_event { /* DEVICE_ACCESS */
	struct rf_header header;
	__u32 type;   /* 1 block, 2 char: BPF_DEVCG_DEV_* */
	__u32 access; /* 1 mknod, 2 read, 4 write: BPF_DEVCG_ACC_* */
	__u32 major;
	__u32 minor;
};

struct rf_sysctl_event { /* SYSCTL_ACCESS */
	struct rf_header header;
	__u32 write;
	__u32 name_len;
	char name[RF_SYSCTL_LEN]; /* kernel/core_pattern */
};

struct rf_net_event { /* NET_* */
	struct rf_header header;
	__u16 family; /* AF_INET, AF_INET6 */
	__u16 port;   /* host byte order */
	__u8 protocol;
	__u8 type;
	__u16 pad;
	__u8 address[16]; /* IPv4 in the first four bytes */
};

struct rf_unix_event { /* UNIX_CONNECT */
	struct rf_header header;
	__u32 path_len;
	__u32 pad;
	char path[RF_UNIX_PATH_LEN]; /* an abstract name begins with NUL */
};

/* rf_drift_event.changed: these, and CLONE_NEW* of the namespaces */
enum rf_drift {
	RF_DRIFT_USER = 1,
	RF_DRIFT_CAPABILITIES = 2,
	RF_DRIFT_BORROWED = 4, /* it uses other credentials than its own outside of any call */
};

struct rf_drift_event { /* TASK_DRIFT */
	struct rf_header header;
	__u32 changed;
	__u32 at;     /* enum rf_event: where it was noticed */
	__u32 uid[2]; /* effective, of the host: before, now */
	__u64 permitted[2];
	__u32 user_ns[2]; /* inums */
};

struct rf_syscall_event { /* SYS_*, MODULE_REQUEST, SETSOCKOPT */
	struct rf_header header;
	/* of the call in progress, as the calling ABI numbers it; RF_NO_CALL: not known  */
	__u32 nr;
	__u32 text_len;
	__u64 args[RF_SYSCALL_ARGS];
	__u64 operand[RF_OPERANDS]; /* what the rules were evaluated with */
	char text[RF_PATH_LEN]; /* of a call's entry: a best effort copy of its string argument */
};

/*
 * The record of the same events, if a rule matched and the call has more strings, on which no rule
 * decides. Copies of the caller's memory, which another thread can change.
 */
struct rf_strings_event {
	struct rf_syscall_event call;
	__u32 second_len;
	__u32 third_len;
	char second[RF_PATH_LEN];
	char third[RF_PATH_LEN];
};

/* What is attacked, and how: rf_tamper_event.what. From RF_TAMPER_LOOK on, it is only read. */
enum rf_tamper {
	RF_TAMPER_SIGNAL = 1, /* detail: the signal */
	RF_TAMPER_TRACE = 2, /* its memory, its registers, its descriptors; detail: PTRACE_MODE_* */
	RF_TAMPER_LIMIT = 3, /* detail: RLIMIT_*, if a hook provides it */
	RF_TAMPER_PRIORITY = 4, /* nice, scheduler, CPUs, I/O; where its memory is placed */
	RF_TAMPER_PROC = 5,	/* a file of /proc/PID is opened for writing */
	RF_TAMPER_MAP = 6,	/* detail: its id */
	RF_TAMPER_PROGRAM = 7,
	RF_TAMPER_LINK = 8,
	/* of its pins, state, configuration: opened for writing, or its name is changed */
	RF_TAMPER_FILE = 9,
	/* the next agent's ticket is read (agent/ringfence/daemon/startup/handover.py) */
	RF_TAMPER_TICKET = 10,
	/* a file of its cgroup, or its move to another; detail: the cgroup's id */
	RF_TAMPER_CGROUP = 11,
	RF_TAMPER_MOUNT = 12, /* the pins' filesystem is unmounted or remounted */
	RF_TAMPER_SOCKET = 13,
	RF_TAMPER_TASKS = 14, /* more tasks than the share of one container; detail: their number */
	/* the container was condemned (condemn.h); detail: the event of the killed call */
	RF_TAMPER_CONDEMNED = 15,
	/* a program is loaded by a task whose descriptors another process shares */
	RF_TAMPER_LOAD = 16,
	RF_TAMPER_MAYBE = 0x100, /* or'ed to it: only the end of a path matches */
	/* detail: PTRACE_MODE_*: files of /proc/PID that only a tracer may read */
	RF_TAMPER_LOOK = 32,
};

struct rf_tamper_event { /* AGENT_TAMPER */
	struct rf_header header;
	__u32 what; /* enum rf_tamper */
	__u32 nr;   /* the system call, as the calling ABI numbers it; 0xffffffff: none */
	__u64 detail;
	/* with agent_pid: the agent that is attacked, which loaded the program */
	__u64 agent_start_ns;
	__u32 agent_pid;
	__u32 path_len;
	/* of a file: inside its filesystem; of a call that names one: as it was written */
	char path[RF_PATH_LEN];
};

/* Why a record was not delivered: the key of the `drops` map. */
enum rf_drop {
	RF_DROP_RING_FULL = 1,
	RF_DROP_RATE_LIMIT = 2,	   /* the container's bucket on the activity ring was empty */
	RF_DROP_TABLE_FULL = 3,	   /* no slot, or no space in task storage: not enrolled */
	RF_DROP_PROCESS_TABLE = 5, /* `processes` was full, or the container's share of it */

	RF_DROP_MAX = 8,
};

/* Holds the size of each struct. abi_check.bpf.c also keeps the struct, so that its BTF has it. */
#ifndef RF_SHARED
#define RF_SHARED(type, size) _Static_assert(sizeof(struct type) == (size), #type)
#endif
RF_SHARED(rf_header, 88);
RF_SHARED(rf_object, 24);
RF_SHARED(rf_container_event, 88 + 64 + RF_PATH_LEN);
RF_SHARED(rf_task_event, 88 + 32);
RF_SHARED(rf_exec_event, 88 + 40 + RF_PATH_LEN + RF_ARGS_LEN);
RF_SHARED(rf_cgroup_event, 88 + 24 + RF_PATH_LEN);
RF_SHARED(rf_file_event, 88 + 24 + 24 + RF_PATH_LEN);
RF_SHARED(rf_device_event, 88 + 16);
RF_SHARED(rf_sysctl_event, 88 + 8 + RF_SYSCTL_LEN);
RF_SHARED(rf_net_event, 88 + 24);
RF_SHARED(rf_unix_event, 88 + 8 + RF_UNIX_PATH_LEN);
RF_SHARED(rf_drift_event, 88 + 16 + 16 + 8);
RF_SHARED(rf_tamper_event, 88 + 32 + RF_PATH_LEN);
RF_SHARED(rf_syscall_event, 88 + 8 + 48 + 32 + RF_PATH_LEN);
RF_SHARED(rf_strings_event, 88 + 8 + 48 + 32 + RF_PATH_LEN + 8 + 2 * RF_PATH_LEN);

#endif
