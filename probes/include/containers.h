/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Containers: their slots, the free slots, and the names by which cgroups are enrolled. */
#ifndef RINGFENCE_CONTAINERS_H
#define RINGFENCE_CONTAINERS_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "rules.h"

enum rf_slot_number {
	RF_NO_SLOT = 0xffffffff,
	RF_NEVER_SLOT = 0xfffffffe, /* neither this cgroup nor one below is a container */
	RF_SKIP_SLOT = 0xfffffffd,  /* not a container; those below may be */
};
enum rf_container_limit {
	RF_REPORTED_WORDS = 8,
	RF_REPORTED_EVENTS = 256, /* where the bits of events begin, after those of rules */
	RF_PATTERNS = 32,
	RF_PATTERN_LEN = 48,
	RF_LEVELS = 16, /* below the root, at most, of a container's own cgroup */
	RF_TICKET_LEN = 64,
};

/* rf_container.state */
enum rf_state {
	RF_STATE_USED = 1,
	RF_STATE_STARTED = 2,
	RF_STATE_REMOVED = 4, /* its cgroup is gone; the slot is freed when tasks is 0 */
	RF_STATE_ADOPTED = 8,
	RF_STATE_SHARES = 32,	    /* processes of it may share memory (condemn.bpf.c) */
	RF_STATE_SHARES_FILES = 64, /* the same of their descriptors */
	RF_STATE_CONDEMNED = 16,    /* condemn.h; until the slot is cleared */
};

struct rf_container {
	__u64 cgroup;
	__u64 created_ns;
	__u32 profile[RF_GENERATIONS]; /* in each half: the set of its rules; 0: not assigned yet */
	__u32 state;
	__s32 tasks;	       /* armed tasks alive */
	__u32 facts;	       /* of its first armed task */
	__s32 processes;       /* entries in `processes` */
	__u64 bucket;	       /* activity ring: tokens left */
	__u64 bucket_ns;       /* when they were last refilled */
	__u64 alert_bucket;    /* the same for the alerts ring */
	__u64 alert_bucket_ns; /* (container events take no token) */
	__u64 reported_second;
	/* rules, and events without one, that were reported in this second */
	__u64 reported[RF_REPORTED_WORDS];
	__u64 maker_mnt_ns; /* mount namespace of the task that made its cgroup; 0: unknown */
};

/*
 * The agent maps it for reading. It writes `profile`, and whole slots that are free (write.bpf.c);
 * the probes write the rest.
 */
struct map_slots {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4096); /* (agent) */
	__type(key, __u32);
	__type(value, struct rf_container);
};
extern struct map_slots slots SEC(".maps");

/*
 * Free slots. The agent fills the stack at the start and returns slots to it. Without a heartbeat,
 * the kernel returns them. Before a slot is returned, its owner is deleted from `containers`, which
 * succeeds only once.
 */
struct map_free_slots {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 4096); /* (agent) */
	__type(value, __u32);
};
extern struct map_free_slots free_slots SEC(".maps");

/* CLOCK_BOOTTIME of the agent's last heartbeat. */
#define RF_STALE_NS 5000000000
struct map_heartbeat {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct map_heartbeat heartbeat SEC(".maps");

/*
 * Id of a container's own cgroup -> slot, until the slot is free again. Cgroups below are found by
 * their ancestors (rf_slot_of), so a container may make any number of them.
 */
struct map_containers {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096 + 64); /* (agent): slots, and cgroups that are never containers */
	__type(key, __u64);
	__type(value, __u32);
};
extern struct map_containers containers SEC(".maps");

/*
 * The namespaces of each container: see namespaces.h. `ns` is the address of the ns_common, and
 * `number` distinguishes it from an earlier one at that address.
 */
#define RF_CLAIMS 128 /* of one container; a power of two */
struct rf_claim {
	__u64 container;
	__u64 ns;
	__u64 number;
};
struct rf_claims {
	struct rf_claim claim[RF_CLAIMS];
};

struct map_namespace_claims {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096); /* (agent): slots */
	__type(key, __u32);
	__type(value, struct rf_claims);
};
extern struct map_namespace_claims namespace_claims SEC(".maps");

/*
 * Namespace -> the first container that claimed it, to distinguish other containers' namespaces
 * from the host's. An entry counts only as long as the claim does, and a container has as many as
 * claims.
 */
struct rf_claim_key {
	__u64 ns;
	__u64 number;
};
struct rf_claimant {
	__u64 container;
	__u32 slot;
	__u32 pad;
};

struct map_namespace_owners {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536); /* (agent) */
	__type(key, struct rf_claim_key);
	__type(value, struct rf_claimant);
};
extern struct map_namespace_owners namespace_owners SEC(".maps");

/* Names of cgroups that are containers: a prefix, then digits or anything; ".scope" may follow. */
enum rf_pattern_kind {
	RF_PATTERN_HEX64 = 1,
	RF_PATTERN_ANY = 2,
	/* 25 base-36 digits; without a prefix, only in a cgroup named buildkit */
	RF_PATTERN_BUILD = 3,
};
struct rf_pattern {
	__u8 kind; /* 0: end of the list */
	__u8 len;
	char prefix[RF_PATTERN_LEN - 2];
};

struct map_patterns {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_PATTERNS);
	__type(key, __u32);
	__type(value, struct rf_pattern);
};
extern struct map_patterns patterns SEC(".maps");

/*
 * Tickets are names of cgroups. A task that makes a cgroup of such a name inside its container is
 * exempted, once per ticket. Only the next agent, in its own pod, can know the name
 * (agent/ringfence/daemon/startup/handover.py).
 */
struct map_tickets {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__uint(key_size, RF_TICKET_LEN);
	__type(value, __u32);
};
extern struct map_tickets tickets SEC(".maps");

static __always_inline bool rf_is_condemned(const struct rf_container *container)
{
	return container->state & RF_STATE_CONDEMNED;
}

static __always_inline bool rf_is_slot(__u32 slot)
{
	return slot < RF_SKIP_SLOT;
}

#endif
