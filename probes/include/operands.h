/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The operands of system calls, and how processes relate to the caller. */
#ifndef RINGFENCE_OPERANDS_H
#define RINGFENCE_OPERANDS_H

#include "compat.h"
#include "object.h"
#include "syscalls.h"

/* The operand that a rule tests. A global function, as it is called for each of them. */
__u64 rf_operand(const struct rf_call *call, __u32 source, __u32 arg);

/*
 * Enum rf_tree of the file behind a descriptor of the current task: the operand of RF_FROM_FD_TREE.
 * Apart from rf_operand(), which is called where no stack is left for it.
 */
__u32 rf_tree_of_fd(__u32 fd);

/* Operands of chroot, and the new root. */
#define RF_DIM_CHROOTED 0
#define RF_DIM_NEW_ROOT 1
#define RF_ROOT_UNKNOWN 0
#define RF_ROOT_OTHER 1
#define RF_ROOT_OF_HOST 2

/* Returns 1 if the current task's root differs from that of its mount namespace. */
int rf_is_chrooted(void);

/* The address of the struct pid with that number in a pid namespace; 0: none. */
__u64 rf_pid_numbered(__u64 ns, __u32 nr);

/* The address of the task with that number in a pid namespace; 0: none. */
static __always_inline __u64 rf_task_numbered(__u64 ns, __u32 nr)
{
	__u64 pid = rf_pid_numbered(ns, nr);

	return pid ? rf_task_of_pid(pid) : 0;
}

/* Marks a process (borrowed.h), by a number in the current task's pid namespace. */
int rf_borrow_numbered(__u32 nr);

/* Enum rf_relation of a struct pid, by its address, to the current task. */
__u32 rf_relation_of_struct_pid(__u64 pid);

/* Enum rf_relation of a process, by its number on the host, to the current task. */
__u32 rf_relation_of_process(__u32 tgid);

/* Enum rf_relation of a container, by its slot, or of what is in none. */
static __always_inline __u32 rf_relation_of_slot(const struct rf_task *bound, __u32 slot)
{
	if (!rf_is_slot(slot))
		return RF_RELATION_HOST;
	return slot == bound->slot ? RF_RELATION_CONTAINER : RF_RELATION_OTHER;
}

/* Enum rf_relation of a namespace (its ns_common) to the current task. */
__u32 rf_relation_of_ns(__u64 ns);

#define RF_AF_INET 2
#define RF_AF_INET6 10
#define RF_AF_PACKET 17
#define RF_AF_SMC 43
#define RF_SOCK_TYPE_MASK 0xf
#define RF_SOCK_PACKET 10
#define RF_IPPROTO_SMC 256

/*
 * The family that a socket gets. __sock_create() still accepts packet sockets in the form of Linux
 * 2.0, and from 6.11 on SMC is a protocol of the families of TCP as well (d25a92ccae6b).
 */
static __always_inline __u32 rf_socket_family(__u32 family, __u32 type, __u32 protocol)
{
	if (family == RF_AF_INET && (type & RF_SOCK_TYPE_MASK) == RF_SOCK_PACKET)
		return RF_AF_PACKET;
	if ((family == RF_AF_INET || family == RF_AF_INET6) && protocol == RF_IPPROTO_SMC)
		return RF_AF_SMC;
	return family;
}

#endif
