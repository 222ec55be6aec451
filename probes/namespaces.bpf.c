// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The namespaces of containers: see namespaces.h. Each slot has a table of its own, which exists
 * from the start, so no container takes places from another one, and none needs memory to claim.
 * Entries of a former owner of the slot do not count, as they name its container.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/emit.h"
#include "include/namespaces.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_CLAIM_MASK (RF_CLAIMS - 1)

/* The verifier of 6.1 has lost the bound of a number by the time at which it is used. */
static __always_inline __u64 rf_claim_at(__u64 at)
{
	barrier_var(at);
	return at & RF_CLAIM_MASK;
}

static __always_inline bool rf_is_claim(const struct rf_claim *claim, __u64 container, __u64 ns,
					__u64 number)
{
	return claim->ns == ns && claim->container == container && claim->number == number;
}

#define RF_CLAIMS_AT_ONCE 8 /* in functions of their own, which are verified once */

/* Returns true if one of the claims from `first` on is that one. */
__noinline int rf_claims_have(__u32 slot, __u64 container, __u64 ns, __u64 number, __u64 first)
{
	struct rf_claims *claims = bpf_map_lookup_elem(&namespace_claims, &slot);
	__u64 i;

	if (!claims || first > RF_CLAIMS - RF_CLAIMS_AT_ONCE)
		return 0;
	RF_ROLLED
	for (i = 0; i < RF_CLAIMS_AT_ONCE; i++) {
		if (rf_is_claim(&claims->claim[rf_claim_at(first + i)], container, ns, number))
			return 1;
	}
	return 0;
}

static __always_inline int rf_has_claim(__u32 slot, __u64 container, __u64 ns)
{
	__u64 number, first;

	if (!container || !ns)
		return 0;
	number = rf_ns_number(ns);
	RF_ROLLED
	for (first = 0; first < RF_CLAIMS; first += RF_CLAIMS_AT_ONCE) {
		if (rf_claims_have(slot, container, ns, number, first))
			return 1;
	}
	return 0;
}

__noinline int rf_owns_ns(__u32 slot, __u64 container, __u64 ns)
{
	return rf_has_claim(slot, container, ns);
}

__noinline __u32 rf_ns_relation(__u32 slot, __u64 container, __u64 ns)
{
	struct rf_claim_key key = {};
	struct rf_container *other;
	struct rf_claimant *owner;

	if (rf_is_initial_ns(ns))
		return RF_RELATION_HOST;
	if (rf_has_claim(slot, container, ns))
		return RF_RELATION_CONTAINER;
	key.ns = ns;
	key.number = rf_ns_number(ns);
	owner = bpf_map_lookup_elem(&namespace_owners, &key);
	if (!owner)
		return RF_RELATION_HOST;
	slot = owner->slot;
	other = bpf_map_lookup_elem(&slots, &slot);
	if (!other || other->cgroup != owner->container ||
	    !rf_has_claim(slot, owner->container, ns))
		return RF_RELATION_HOST;
	return RF_RELATION_OTHER;
}

/* Freed memory may be anything: what is no longer that namespace, or has no reference, is gone. */
__noinline int rf_is_gone(__u64 ns, __u64 number)
{
	return !rf_ns_references(ns) || rf_ns_number(ns) != number;
}

/*
 * The first place from `first` on that is of no claim of the container; with `gone`, that is of a
 * namespace that is gone. RF_CLAIMS: there is none.
 */
__noinline __u32 rf_free_among(__u32 slot, __u64 container, __u64 first, __u32 gone)
{
	struct rf_claims *claims = bpf_map_lookup_elem(&namespace_claims, &slot);
	__u64 i;

	if (!claims || first > RF_CLAIMS - RF_CLAIMS_AT_ONCE)
		return RF_CLAIMS;
	RF_ROLLED
	for (i = 0; i < RF_CLAIMS_AT_ONCE; i++) {
		const struct rf_claim *claim = &claims->claim[rf_claim_at(first + i)];

		if (gone ? rf_is_gone(claim->ns, claim->number) : claim->container != container)
			return first + i;
	}
	return RF_CLAIMS;
}

/* The place for a further claim: one that is not in use, or of a namespace that is gone. */
static __always_inline __u32 rf_free_claim(__u32 slot, __u64 container, __u32 start)
{
	__u32 gone, step, at;

	RF_ROLLED
	for (gone = 0; gone < 2; gone++) {
		RF_ROLLED
		for (step = 0; step < RF_CLAIMS; step += RF_CLAIMS_AT_ONCE) {
			at = (start * RF_CLAIMS_AT_ONCE + step) & RF_CLAIM_MASK;
			at = rf_free_among(slot, container, at, gone);
			if (at < RF_CLAIMS)
				return at;
		}
	}
	return RF_CLAIMS;
}

/* Forgets the container of which a claim was, if it was the one that others know as the owner. */
static __always_inline void rf_forget_claim(const struct rf_claim *claim)
{
	struct rf_claim_key key = { .ns = claim->ns, .number = claim->number };
	struct rf_claimant *owner = bpf_map_lookup_elem(&namespace_owners, &key);

	if (owner && owner->container == claim->container)
		bpf_map_delete_elem(&namespace_owners, &key);
}

static __always_inline void rf_name_owner(__u32 slot, __u64 container, __u64 ns, __u64 number)
{
	struct rf_claim_key key = { .ns = ns, .number = number };
	struct rf_claimant claimant = { .container = container, .slot = slot };
	struct rf_claimant *owner = bpf_map_lookup_elem(&namespace_owners, &key);
	struct rf_container *other;

	if (owner) {
		slot = owner->slot;
		other = bpf_map_lookup_elem(&slots, &slot);
		if (other && other->cgroup == owner->container)
			return;
	}
	bpf_map_update_elem(&namespace_owners, &key, &claimant, BPF_ANY);
}

__noinline int rf_claim_ns(__u32 slot, __u64 container, __u64 ns)
{
	struct rf_claims *claims = bpf_map_lookup_elem(&namespace_claims, &slot);
	struct rf_claim *claim;
	__u64 number, was;
	__u32 at;

	if (!claims || !container || !ns || rf_is_initial_ns(ns) ||
	    rf_has_claim(slot, container, ns))
		return 0;
	number = rf_ns_number(ns);
	/* By address: tasks that claim at the same time begin at different places. */
	at = rf_free_claim(slot, container, ns >> 8);
	if (at >= RF_CLAIMS) {
		rf_drop(RF_SYS_SETNS, RF_DROP_TABLE_FULL, slot);
		return 0;
	}
	claim = &claims->claim[at];
	rf_forget_claim(claim);
	was = claim->ns;
	/* Another task of the container may have taken the place: its own namespace is claimed. */
	if (__sync_val_compare_and_swap(&claim->ns, was, ns) != was)
		return 0;
	claim->number = number;
	claim->container = container;
	rf_name_owner(slot, container, ns, number);
	return 1;
}

#define RF_CLAIM(kind, type, address) \
	if (kinds & (kind))           \
	rf_claim_ns(bound->slot, bound->container, RF_NS_COMMON(type, address))

__noinline int rf_claim_namespaces(__u64 address, const struct rf_task *bound, __u64 kinds)
{
	struct task_struct *task = (struct task_struct *)address;
	struct nsproxy *proxy = BPF_CORE_READ(task, nsproxy);
	struct rf_pid_numbers numbers;

	if (!bound || !proxy)
		return 0;
	RF_CLAIM(RF_CLONE_NEWNS, mnt_namespace, BPF_CORE_READ(proxy, mnt_ns));
	RF_CLAIM(RF_CLONE_NEWNET, net, BPF_CORE_READ(proxy, net_ns));
	RF_CLAIM(RF_CLONE_NEWIPC, ipc_namespace, BPF_CORE_READ(proxy, ipc_ns));
	RF_CLAIM(RF_CLONE_NEWUTS, uts_namespace, BPF_CORE_READ(proxy, uts_ns));
	RF_CLAIM(RF_CLONE_NEWCGROUP, cgroup_namespace, BPF_CORE_READ(proxy, cgroup_ns));
	RF_CLAIM(RF_CLONE_NEWTIME, time_namespace, BPF_CORE_READ(proxy, time_ns));
	RF_CLAIM(RF_CLONE_NEWUSER, user_namespace, BPF_CORE_READ(task, real_cred, user_ns));
	RF_CLAIM(RF_CLONE_NEWPID, pid_namespace, BPF_CORE_READ(proxy, pid_ns_for_children));
	rf_pid_numbers(task, &numbers);
	RF_CLAIM(RF_CLONE_NEWPID, pid_namespace, numbers.ns);
	return 0;
}

#define RF_CLAIM_MADE(type, field)                                                            \
	do {                                                                                  \
		made = (__u64)RF_READ(struct nsproxy, next, field);                           \
		if (made != (__u64)RF_READ(struct nsproxy, was, field))                       \
			rf_claim_ns(bound->slot, bound->container, RF_NS_COMMON(type, made)); \
	} while (0)

__noinline int rf_claim_made(__u64 next, __u64 was, const struct rf_task *bound)
{
	__u64 made;

	if (!bound)
		return 0;
	RF_CLAIM_MADE(mnt_namespace, mnt_ns);
	RF_CLAIM_MADE(net, net_ns);
	RF_CLAIM_MADE(ipc_namespace, ipc_ns);
	RF_CLAIM_MADE(uts_namespace, uts_ns);
	RF_CLAIM_MADE(cgroup_namespace, cgroup_ns);
	RF_CLAIM_MADE(pid_namespace, pid_ns_for_children);
	return 0;
}
