// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Drift, the thorough half. A task's credentials and namespaces are compared with those of the last
 * check. A difference that the task could have made with its own privileges (it had the capability
 * over what it changed, or only gave something up) is accepted. Any other was made by a kernel
 * exploit. So no call needs to be watched, in any ABI, and a legitimate change is accepted whether
 * the agent saw the call or not. exec is the one way to gain privileges: its result is remembered
 * when it is done (exec_binding.bpf.c), and the task is checked before it.
 *
 * The task's own credentials (real_cred) are compared, never those that a kernel function borrows
 * for a while (overlayfs, NFS, io_uring).
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/call.h"
#include "include/drift.h"
#include "include/namespaces.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_CAP_SETUID 7
#define RF_USER_NS_DEPTH 33 /* user namespaces nest 32 deep */
#define RF_EXTENTS 5	    /* of a map of user ids that is stored in the namespace itself */

#define RF_NS(proxy, kind) ((__u64)RF_READ(struct nsproxy, proxy, kind))
#define RF_OWNER(type, ns) ((__u64)RF_READ(struct type, ns, user_ns))

__noinline int rf_drift_remember(struct rf_identity *into, __u64 address)
{
	struct task_struct *task = (struct task_struct *)address;
	const struct cred *cred;
	__u32 ids[8] = {};
	__u64 sets[2] = {};
	__u64 proxy;

	if (!into)
		return 0;
	cred = BPF_CORE_READ(task, real_cred);
	proxy = (__u64)BPF_CORE_READ(task, nsproxy);
	into->nsproxy = proxy;
	into->user_ns = (__u64)BPF_CORE_READ(cred, user_ns);
	into->namespaces[0] = RF_NS(proxy, mnt_ns);
	into->namespaces[1] = RF_NS(proxy, net_ns);
	into->namespaces[2] = RF_NS(proxy, pid_ns_for_children);
	into->namespaces[3] = RF_NS(proxy, ipc_ns);
	into->namespaces[4] = RF_NS(proxy, uts_ns);
	into->namespaces[5] = RF_NS(proxy, cgroup_ns);
	/*
	 * uid, gid, suid, sgid, euid, egid, fsuid, fsgid are adjacent; so are the permitted and the
	 * effective set.
	 */
	bpf_probe_read_kernel(ids, sizeof(ids), &cred->uid);
	bpf_probe_read_kernel(sets, sizeof(sets), &cred->cap_permitted);
	into->uid[0] = ids[0];
	into->uid[1] = ids[2];
	into->uid[2] = ids[4];
	into->uid[3] = ids[6];
	into->permitted = sets[0];
	into->effective = sets[1];
	into->borrowed = 0;
	into->kill_pending = 0;
	into->cred = (__u64)cred;
	return 0;
}

/* Returns 1 if a user namespace is below another one. */
__noinline int rf_is_below_user_ns(__u64 user_ns, __u64 other)
{
	__u32 i;

	for (i = 0; i < RF_USER_NS_DEPTH; i++) {
		if (!user_ns)
			return 0;
		user_ns = (__u64)RF_READ(struct user_namespace, user_ns, parent);
		if (user_ns == other)
			return 1;
	}
	return 0;
}

/*
 * Returns 1 if a user namespace maps a user id of the host. A map of many extents is stored
 * elsewhere and counts as mapped.
 */
__noinline int rf_is_mapped(__u64 user_ns, __u32 uid)
{
	struct uid_gid_extent extent;
	__u32 i, count = RF_READ(struct user_namespace, user_ns, uid_map.nr_extents);
	__u64 at = user_ns + bpf_core_field_offset(struct user_namespace, uid_map.extent);

	if (count > RF_EXTENTS)
		return 1;
	for (i = 0; i < RF_EXTENTS; i++) {
		if (i >= count)
			break;
		bpf_probe_read_kernel(&extent, sizeof(extent), (void *)(at + i * sizeof(extent)));
		if (uid - extent.lower_first < extent.count)
			return 1;
	}
	return 0;
}

/*
 * A task does not own namespaces: it may enter one if it has the capability over the user
 * namespace.
 */
__noinline int rf_may_enter(const struct rf_identity *was, __u64 owner)
{
	if (!was)
		return 0;
	if (owner == was->user_ns)
		return !!(was->permitted & (1ULL << RF_CAP_SYS_ADMIN));
	return rf_is_below_user_ns(owner, was->user_ns);
}

/*
 * A task may take a user id that it has in another place. Any other needs CAP_SETUID and a mapping.
 */
__noinline int rf_may_have_uid(const struct rf_identity *was, __u64 user_ns, __u32 uid, __u32 below)
{
	if (!was)
		return 0;
	if (uid == was->uid[0] || uid == was->uid[1] || uid == was->uid[2] || uid == was->uid[3])
		return 1;
	if (!below && !(was->permitted & (1ULL << RF_CAP_SETUID)))
		return 0;
	return rf_is_mapped(user_ns, uid);
}

#define RF_UNEXPLAINED_NAMESPACE(index, type, bit)                      \
	if (now->namespaces[index] != was->namespaces[index] &&         \
	    !rf_may_enter(was, RF_OWNER(type, now->namespaces[index]))) \
	unexplained |= bit

/* Separate functions: else the verifier multiplies their branches with each other. */
__noinline __u32 rf_unexplained_namespaces(const struct rf_identity *was,
					   const struct rf_identity *now)
{
	__u32 unexplained = 0;

	if (!was || !now)
		return 0;
	RF_UNEXPLAINED_NAMESPACE(0, mnt_namespace, RF_CLONE_NEWNS);
	RF_UNEXPLAINED_NAMESPACE(1, net, RF_CLONE_NEWNET);
	RF_UNEXPLAINED_NAMESPACE(2, pid_namespace, RF_CLONE_NEWPID);
	RF_UNEXPLAINED_NAMESPACE(3, ipc_namespace, RF_CLONE_NEWIPC);
	RF_UNEXPLAINED_NAMESPACE(4, uts_namespace, RF_CLONE_NEWUTS);
	RF_UNEXPLAINED_NAMESPACE(5, cgroup_namespace, RF_CLONE_NEWCGROUP);
	return unexplained;
}

/*
 * The part of the difference that the task could not have made itself: RF_DRIFT_* and CLONE_NEW*.
 */
__noinline __u32 rf_unexplained(const struct rf_identity *was, const struct rf_identity *now)
{
	__u32 unexplained, below = 0;

	if (!was || !now)
		return 0;
	unexplained = rf_unexplained_namespaces(was, now);
	if (now->user_ns != was->user_ns) {
		below = rf_is_below_user_ns(now->user_ns,
					    was->user_ns); /* a task has every capability there */
		if (!below)
			unexplained |= RF_CLONE_NEWUSER;
	}
	if (!below && ((now->permitted | now->effective) & ~was->permitted))
		unexplained |= RF_DRIFT_CAPABILITIES;
	if (!rf_may_have_uid(was, now->user_ns, now->uid[0], below) ||
	    !rf_may_have_uid(was, now->user_ns, now->uid[1], below) ||
	    !rf_may_have_uid(was, now->user_ns, now->uid[2], below) ||
	    !rf_may_have_uid(was, now->user_ns, now->uid[3], below))
		unexplained |= RF_DRIFT_USER;
	return unexplained;
}

static __always_inline void rf_drift_record(struct task_struct *task, const struct rf_task *bound,
					    struct rf_query *query, const struct rf_identity *was,
					    const struct rf_identity *now, __u32 at, __u32 route,
					    __u8 flags)
{
	struct rf_drift_event *record =
		RF_RECORD(rf_drift_event, RF_TASK_DRIFT, bound->slot, route);

	if (!record)
		return;
	rf_header(&record->header, RF_TASK_DRIFT, task, bound);
	rf_header_verdict(&record->header, query, task, bound);
	record->header.flags = flags;
	record->changed = query->value[0];
	record->at = at;
	record->uid[0] = was->uid[2];
	record->uid[1] = now->uid[2];
	record->permitted[0] = was->permitted;
	record->permitted[1] = now->permitted;
	record->user_ns[0] = RF_READ(struct user_namespace, was->user_ns, ns.inum);
	record->user_ns[1] = RF_READ(struct user_namespace, now->user_ns, ns.inum);
	rf_submit(record, RF_TASK_DRIFT);
}

/*
 * Not on the stack: the programs that check are deep already. Stored with the task, so it needs no
 * lock.
 */
struct rf_drift_storage {
	struct rf_identity now;
	struct rf_query query;
};
_Static_assert(sizeof(struct rf_drift_storage) <= RF_QUERY_STORAGE_WORDS * sizeof(__u64),
	       "fits the storage");

/* Decides and reports drift. Returns the verdict. */
static __always_inline __u32 rf_report_drift(struct task_struct *task, const struct rf_task *bound,
					     const struct rf_identity *was,
					     struct rf_drift_storage *storage, __u32 unexplained,
					     __u32 at)
{
	struct rf_container *container = rf_container_of(bound);
	struct rf_query *query = &storage->query;
	__u32 route;
	__u8 flags = 0;

	if (!container)
		return RF_ACTION_NONE;
	rf_query_init(query, RF_TASK_DRIFT, bound, container);
	query->value[0] = unexplained;
	rf_evaluate(query, task, bound, NULL);
	route = rf_conclude(query, container,
			    at & RF_AT_HOOK ? RF_MECHANISM_LSM : RF_MECHANISM_KILL, &flags);
	if (route != RF_ROUTE_NONE)
		rf_drift_record(task, bound, query, was, &storage->now, at & 0xffff, route, flags);
	return query->action;
}

/*
 * `kind`, CLONE_NEW*, if a task may not simply be in a namespace that it was not in before: as it
 * is, for the host's; in the upper half, for another container's; 0 for the container's own. A
 * namespace that nobody knows is the host's if the task has called setns. Else the task has made
 * it, and it is the container's from here on.
 */
__noinline __u64 rf_judge_entry(const struct rf_task *bound, __u64 ns, __u32 entering, __u64 kind)
{
	__u32 relation;

	if (!bound)
		return 0;
	relation = rf_ns_relation(bound->slot, bound->container, ns);
	if (relation == RF_RELATION_OTHER)
		return kind << 32;
	if (relation != RF_RELATION_HOST)
		return 0;
	if (entering || rf_is_initial_ns(ns))
		return kind;
	rf_claim_ns(bound->slot, bound->container, ns);
	return 0;
}

#define RF_ENTERED(index, type, bit)                          \
	if (now->namespaces[index] != was->namespaces[index]) \
	entered |= rf_judge_entry(bound, RF_NS_COMMON(type, now->namespaces[index]), entering, bit)

/* CLONE_NEW* of the namespaces that the task was not in before, as rf_judge_entry has them. */
__noinline __u64 rf_entered(const struct rf_identity *was, const struct rf_identity *now,
			    const struct rf_task *bound, __u32 entering)
{
	__u64 entered = 0;

	if (!was || !now)
		return 0;
	RF_ENTERED(0, mnt_namespace, RF_CLONE_NEWNS);
	RF_ENTERED(1, net, RF_CLONE_NEWNET);
	RF_ENTERED(2, pid_namespace, RF_CLONE_NEWPID);
	RF_ENTERED(3, ipc_namespace, RF_CLONE_NEWIPC);
	RF_ENTERED(4, uts_namespace, RF_CLONE_NEWUTS);
	RF_ENTERED(5, cgroup_namespace, RF_CLONE_NEWCGROUP);
	if (now->user_ns != was->user_ns)
		entered |= rf_judge_entry(bound, RF_NS_COMMON(user_namespace, now->user_ns),
					  entering, RF_CLONE_NEWUSER);
	return entered;
}

/*
 * What setns does is decided before it, by the namespace (setns.bpf.c), or in weaker tiers by its
 * descriptor, which another thread may change between the kernel's look and this one. The outcome
 * is decided as well: a task in a namespace that no rule would have let it enter is killed. Alerts
 * were reported at the call. The facts are those of the task before it entered.
 */
static __always_inline __u32 rf_check_entry(struct task_struct *task, const struct rf_task *bound,
					    struct rf_drift_storage *storage, __u32 entered,
					    __u32 relation)
{
	struct rf_container *container = rf_container_of(bound);
	struct rf_query *query = &storage->query;
	struct rf_syscall_event *record;

	if (!container)
		return RF_ACTION_NONE;
	rf_query_init(query, RF_SYS_SETNS, bound, container);
	query->value[0] = entered;
	query->value[1] = relation;
	rf_query_facts(query, task, bound);
	query->value[RF_DIM_FACTS] &= ~rf_facts_of_host(entered);
	query->value[RF_DIM_FACTS] |= rf_setns_facts(container);
	rf_evaluate(query, task, bound, NULL);
	if (query->action <= RF_ACTION_ALERT)
		return RF_ACTION_NONE;
	rf_enforce(query);
	rf_count_verdict(query);
	record = RF_RECORD(rf_syscall_event, RF_SYS_SETNS, bound->slot, RF_ROUTE_ALERTS);
	if (record) {
		rf_header(&record->header, RF_SYS_SETNS, task, bound);
		rf_header_verdict(&record->header, query, task, bound);
		record->nr = RF_NO_CALL;
		__builtin_memcpy(record->operand, query->value, sizeof(record->operand));
		rf_submit(record, RF_SYS_SETNS);
	}
	return query->action;
}

/* The same for all that a task has entered since the last check. */
static __always_inline __u32 rf_check_entries(struct task_struct *task, struct rf_armed *armed,
					      struct rf_drift_storage *storage)
{
	__u64 entered = rf_entered(&armed->identity, &storage->now, &armed->task, armed->entering);
	__u32 relation = RF_RELATION_HOST, verdict = RF_ACTION_NONE, i;

	for (i = 0; i < 2; i++) {
		if ((__u32)entered && verdict <= RF_ACTION_ALERT)
			verdict = rf_check_entry(task, &armed->task, storage, entered, relation);
		entered >>= 32;
		relation = RF_RELATION_OTHER;
	}
	return verdict;
}

__noinline int rf_drift_examine(__u32 at)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);
	struct rf_identity *was, *now;
	struct rf_drift_storage *storage;
	__u32 unexplained, verdict = RF_ACTION_NONE;

	if (!armed || !BPF_CORE_READ(task, nsproxy)) /* it is ending */
		return RF_ACTION_NONE;
	was = &armed->identity;
	if (was->kill_pending) { /* reported when it was made */
		bpf_send_signal(9);
		return RF_ACTION_KILL;
	}
	if (!was->cred) {
		armed->entering = 0;
		return RF_ACTION_NONE;
	}
	storage = (struct rf_drift_storage *)armed->query_storage;
	now = &storage->now;
	rf_drift_remember(now, rf_address(task));
	unexplained = rf_unexplained(was, now);
	now->borrowed =
		at & RF_AT_ENTRY && BPF_CORE_READ(task, cred) != BPF_CORE_READ(task, real_cred);
	if (now->borrowed && !was->borrowed)
		unexplained |= RF_DRIFT_BORROWED;
	if (unexplained)
		verdict = rf_report_drift(task, &armed->task, was, storage, unexplained, at);
	if (verdict <= RF_ACTION_ALERT)
		verdict = rf_check_entries(task, armed, storage);
	if (verdict <= RF_ACTION_ALERT) { /* it stays alive: reported once */
		__builtin_memcpy(was, now, sizeof(*was));
		armed->entering = 0;
	} else { /* reported: it only has to end, and what it starts meanwhile */
		was->kill_pending = 1;
	}
	return verdict;
}

/*
 * The checkpoint with a program of its own: attached only if a rule needs drift, and on a stack
 * that no other program has filled. System calls and forks check in passing.
 */
SEC("tracepoint/syscalls/sys_exit")
int drift_open_exit(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);

	if (armed)
		rf_drift_check(task, armed, RF_FILE_OPEN);
	return 0;
}

/*
 * Where calls are not decided by hooks: the outcome of setns and unshare, before the task can do
 * anything with it. What the one entered is judged, what the other made is claimed.
 */
SEC("tracepoint/syscalls/sys_exit_setns")
int setns_exit(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);

	if (!armed)
		return 0;
	armed->entering = 1;
	rf_drift_check(task, armed, RF_SYS_SETNS);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_unshare")
int unshare_exit(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_armed *armed = rf_bound(task);

	if (armed)
		rf_drift_check(task, armed, RF_SYS_UNSHARE);
	return 0;
}
