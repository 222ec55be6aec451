/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Drift: credentials or namespaces that no call of the task could have given it. This is the cheap
 * half, which every checkpoint runs: has anything changed since the last check? drift.bpf.c decides
 * whether the change is legitimate.
 */
#ifndef RINGFENCE_DRIFT_H
#define RINGFENCE_DRIFT_H

#include "match.h"

/* Records the task's identity, against which the next checks compare. */
int rf_drift_remember(struct rf_identity *into, __u64 task);
/* Compares the current task, if it is watched, with its last identity. Returns the verdict. */
int rf_drift_examine(__u32 at);

/*
 * The result of an exec, or of adoption, is legitimate. The task is watched from here on, if a rule
 * needs it.
 */
static __always_inline void rf_drift_watch(struct task_struct *task, struct rf_armed *armed)
{
	if (rf_event_has_rules(RF_TASK_DRIFT) || rf_event_has_rules(RF_SYS_SETNS))
		rf_drift_remember(&armed->identity, rf_address(task));
	else
		armed->identity.cred = 0;
}

/*
 * The head of struct cred in one copy, up to the effective capabilities. Read in 32-bit words:
 * before 6.3, capability sets lie on such boundaries (f122a08b197d). CONFIG_DEBUG_CREDENTIALS
 * (until 6.8) puts 20 bytes before the first user id.
 */
#define RF_CRED_HEAD 88
#define RF_CRED_WORD(head, field, word) \
	(*(__u32 *)((head) + bpf_core_field_offset(struct cred, field) + 4 * (word)))

rf_subprogram bool rf_same_credentials(const struct rf_identity *was, __u64 cred)
{
	char head[RF_CRED_HEAD] __attribute__((aligned(8)));
	__u64 diff;

	if (bpf_probe_read_kernel(head, sizeof(head), (void *)cred))
		return false;
	diff = RF_CRED_WORD(head, uid, 0) ^ was->uid[0];
	diff |= RF_CRED_WORD(head, uid, 2) ^ was->uid[1];
	diff |= RF_CRED_WORD(head, uid, 4) ^ was->uid[2];
	diff |= RF_CRED_WORD(head, uid, 6) ^ was->uid[3];
	diff |= RF_CRED_WORD(head, cap_permitted, 0) ^ (__u32)was->permitted;
	diff |= RF_CRED_WORD(head, cap_permitted, 1) ^ (__u32)(was->permitted >> 32);
	diff |= RF_CRED_WORD(head, cap_effective, 0) ^ (__u32)was->effective;
	diff |= RF_CRED_WORD(head, cap_effective, 1) ^ (__u32)(was->effective >> 32);
	return !diff;
}

/*
 * The head of struct nsproxy. Its address is not enough: the next one may be at the address of one
 * that was freed between two checks, and an exploit may write into the one that is in use.
 */
#define RF_NSPROXY_HEAD 72
#define RF_NSPROXY_FIELD(head, field) \
	(*(__u64 *)((head) + bpf_core_field_offset(struct nsproxy, field)))

rf_subprogram bool rf_same_namespaces(const struct rf_identity *was, __u64 nsproxy)
{
	char head[RF_NSPROXY_HEAD] __attribute__((aligned(8)));
	__u64 diff;

	if (bpf_probe_read_kernel(head, sizeof(head), (void *)nsproxy))
		return false;
	diff = RF_NSPROXY_FIELD(head, mnt_ns) ^ was->namespaces[0];
	diff |= RF_NSPROXY_FIELD(head, net_ns) ^ was->namespaces[1];
	diff |= RF_NSPROXY_FIELD(head, pid_ns_for_children) ^ was->namespaces[2];
	diff |= RF_NSPROXY_FIELD(head, ipc_ns) ^ was->namespaces[3];
	diff |= RF_NSPROXY_FIELD(head, uts_ns) ^ was->namespaces[4];
	diff |= RF_NSPROXY_FIELD(head, cgroup_ns) ^ was->namespaces[5];
	return !diff;
}

/* Or'ed to `at`: a system call begins, so no kernel function can have lent the task credentials. */
#define RF_AT_ENTRY 0x10000
/* Or'ed to `at`: an LSM hook, which can refuse. */
#define RF_AT_HOOK 0x20000

/* Checks the current task. `at` is the event that the check is part of. Returns the verdict. */
static __always_inline int rf_drift_check(struct task_struct *task, const struct rf_armed *armed,
					  __u32 at)
{
	const struct rf_identity *was = &armed->identity;
	const struct cred *cred;

	if (was->kill_pending || armed->entering)
		return rf_drift_examine(at);
	if (!was->cred)
		return RF_ACTION_NONE;
	cred = task->real_cred; /* followed directly: this is a hot path */
	if (at & RF_AT_ENTRY && cred != task->cred)
		return rf_drift_examine(at);
	if ((__u64)cred != was->cred || (__u64)cred->user_ns != was->user_ns ||
	    (__u64)task->nsproxy != was->nsproxy || !rf_same_credentials(was, (__u64)cred) ||
	    !rf_same_namespaces(was, was->nsproxy))
		return rf_drift_examine(at);
	return RF_ACTION_NONE;
}

#endif
