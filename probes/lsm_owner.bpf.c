// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * signal: F_SETOWN and its like. The kernel sends a signal to the owner of a file when it becomes
 * ready, for whichever task made it so. That task may be anyone, so the owner is judged when it is
 * set: at fcntl by its number, before the effect. F_SETOWN_EX, FIOSETOWN and SIOCSPGRP read the
 * number from memory that another thread may change meanwhile. So the owner that the kernel has set
 * is looked at once more: nothing takes it back, so that the container is condemned, and no task of
 * a condemned container makes a file of its own ready for somebody else.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/condemn.h"
#include "include/lsm.h"
#include "include/lsm_look.h"
#include "include/operands.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* include/uapi/asm-generic/fcntl.h */
#define RF_F_SETOWN 8
#define RF_F_SETOWN_EX 15
#define RF_F_OWNER_PGRP 2

#define RF_SIGIO 29
#define RF_OWNER_ARG 2

/* F_SETOWN's argument: a process, or a group by its negative number. */
static __always_inline __u64 rf_owner_number(unsigned int cmd, unsigned long arg)
{
	struct {
		__s32 type;
		__s32 pid;
	} owner = {};

	if (cmd == RF_F_SETOWN)
		return arg;
	bpf_probe_read_user(&owner, sizeof(owner), (void *)arg);
	return owner.type == RF_F_OWNER_PGRP ? -owner.pid : owner.pid;
}

SEC("lsm/file_fcntl")
int RF_HOOK(owner_file_fcntl, struct file *file, unsigned int cmd, unsigned long arg, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if ((cmd != RF_F_SETOWN && cmd != RF_F_SETOWN_EX) || !rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_SIGNAL);
	lsm.call.args[RF_OWNER_ARG] = rf_owner_number(cmd, arg);
	rf_lsm_operand(&lsm, RF_DIM_SIGNAL, RF_SIGIO);
	rf_lsm_operand(&lsm, RF_DIM_SIGNAL_TARGET,
		       rf_operand(&lsm.call, RF_FROM_SIGNAL_TARGET, RF_OWNER_ARG));
	return rf_lsm_decide_once(&lsm);
}

/* 6.12: 1934b212615d. Before, it is a part of the file. */
struct file___owned {
	struct fown_struct *f_owner;
} __attribute__((preserve_access_index));

/* The pid that a file's signals go to; 0: none. */
static __always_inline __u64 rf_owner_of(const struct file *file)
{
	const struct file___owned *owned = (const void *)file;

	if (bpf_core_field_exists(owned->f_owner))
		return (__u64)BPF_CORE_READ(owned, f_owner, pid);
	return (__u64)BPF_CORE_READ(file, f_owner.pid);
}

/*
 * Called when the owner is set: 26f204380a3c (6.12, and in stable kernels). Before that commit it
 * was called just before.
 */
SEC("lsm/file_set_fowner")
int BPF_PROG(owner_file_set_fowner, struct file *file)
{
	struct rf_lsm lsm;

	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_SIGNAL);
	rf_lsm_operand(&lsm, RF_DIM_SIGNAL, RF_SIGIO);
	rf_lsm_operand(&lsm, RF_DIM_SIGNAL_TARGET, rf_relation_of_struct_pid(rf_owner_of(file)));
	rf_evaluate(&lsm.query, lsm.task, &lsm.armed->task, NULL);
	if (!rf_refuses(lsm.query.action))
		return 0;
	if (rf_mark_condemned(lsm.container))
		rf_report_condemned(RF_SYS_SIGNAL);
	bpf_send_signal(9);
	return 0;
}

SEC("lsm/file_send_sigiotask")
int RF_HOOK(owner_file_send_sigiotask, struct task_struct *target, void *owner, int sig, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm) || !rf_is_condemned(lsm.container))
		return 0;
	return rf_lsm_refused();
}
