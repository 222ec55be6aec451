/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which system calls are events, and where their operands come from. */
#ifndef RINGFENCE_SYSCALLS_H
#define RINGFENCE_SYSCALLS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "events.h"

enum rf_syscall_limit {
	RF_SYSCALL_NRS = 1024, /* native numbers from 0, 32-bit ones from 512 */
	RF_COMPAT_BASE = 512,
};

enum rf_operand_source {
	RF_FROM_NOTHING = 0,
	RF_FROM_ARG = 1,	/* args[arg], 64 bits */
	RF_FROM_ARG32 = 2,	/* args[arg], low 32 bits */
	RF_FROM_USER_U64 = 3,	/* u64 at the user address args[arg] (clone3) */
	RF_FROM_SETNS_TYPE = 4, /* CLONE_NEW* that setns(fd = args[arg], args[arg+1]) would enter */
	RF_FROM_SETNS_TARGET = 5, /* enum rf_relation of that namespace */
	RF_FROM_PID_TARGET = 6,	  /* enum rf_relation of the process args[arg] */
	RF_FROM_DEV_TYPE = 7,	  /* S_IFMT of the mode args[arg] */
	RF_FROM_CONST = 8,	  /* the number in `arg`: which call of the family it is */
	RF_FROM_PIDFD_TARGET = 9, /* enum rf_relation of the process behind the pidfd args[arg] */
	/* args[arg] without the magic number that the kernel removes from mount's flags */
	RF_FROM_MOUNT_FLAGS = 10,
	RF_FROM_SOCKET_FAMILY = 11, /* args[arg], corrected by type and protocol, which follow */
	/* 1: the task's root is not that of its mount namespace; args are not read */
	RF_FROM_CHROOTED = 12,
	RF_FROM_FD_SETUID = 13, /* 1: descriptor args[arg] is of a set-id program */
	/* enum rf_relation of the target of perf_event_open(attr, args[arg], ...) */
	RF_FROM_PERF_TARGET = 14,
	RF_FROM_ARG_SET = 15, /* 1: args[arg] is not 0 */
	/* 1: the u32 at the user address args[arg] is not 0, or cannot be read (adjtimex) */
	RF_FROM_USER_U32_SET = 16,
	/* enum rf_relation of what kill(args[arg], ...) signals: a process, a group, or all */
	RF_FROM_SIGNAL_TARGET = 17,
	/* enum rf_relation of the processes args[arg] and args[arg + 1]: the most foreign */
	RF_FROM_PIDS_TARGET = 18,
	/* the same of the processes that setpriority(which, who), or ioprio_set, means */
	RF_FROM_PRIORITY_TARGET = 19,
	RF_FROM_IOPRIORITY_TARGET = 20,
	/* enum rf_tree of the file behind the descriptor args[arg]: by rf_tree_of_fd() */
	RF_FROM_FD_TREE = 21,
};

enum rf_relation {
	RF_RELATION_UNKNOWN = 0,
	RF_RELATION_SELF = 1,	   /* the caller's own process, its own namespace */
	RF_RELATION_CONTAINER = 2, /* the caller's container */
	RF_RELATION_OTHER = 3,	   /* of neither the container nor the host */
	RF_RELATION_HOST = 4,
};

/* in rf_syscall.event: an LSM hook decides it, not the call's entry */
enum rf_syscall_flag {
	RF_SYSCALL_HOOKED = 0x8000,
	/* in rf_syscall.event: the self-defence inspects it first (self.bpf.c) */
	RF_SYSCALL_GUARDED = 0x4000,
	RF_SYSCALL_EVENT_MASK = 0x0fff,
};

struct rf_syscall {
	__u16 event;		  /* enum rf_event; 0: not an event */
	__u8 counter;		  /* enum rf_counter */
	__s8 text_arg;		  /* argument that is a user string; -1: none */
	__u8 source[RF_OPERANDS]; /* enum rf_operand_source */
	__u8 arg[RF_OPERANDS];
	__s8 more_arg[2]; /* more arguments that are user strings, for alerts alone; -1: none */
};

struct map_syscalls {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_SYSCALL_NRS);
	__type(key, __u32);
	__type(value, struct rf_syscall);
};
extern struct map_syscalls syscalls SEC(".maps");

#endif
