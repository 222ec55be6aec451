/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The policies: sets of rules, and the tables from operands to sets. Each generation brings a set
 * of inner maps.
 */
#ifndef RINGFENCE_RULES_H
#define RINGFENCE_RULES_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "events.h"

enum rf_rule_limit {
	RF_RULE_WORDS = 64,
	RF_MAX_RULES = RF_RULE_WORDS * 64,
	RF_NO_RULE = 0xffff,
	RF_GENERATIONS = 2, /* slots that policy generations alternate between */
	RF_MATCH_TEXT = 128,
};

/* Operands of an event, then the two that every event has, then its string or address. */
enum rf_dim {
	RF_DIM_FACTS = RF_OPERANDS,
	RF_DIM_EXE = RF_OPERANDS + 1,
	RF_DIM_OBJECT = RF_OPERANDS + 2,
	RF_DIMS = RF_OPERANDS + 3,
};

/* A set of rules. Bit i of summary: word[i] is not 0. */
struct rf_ruleset {
	__u64 summary;
	__u64 word[RF_RULE_WORDS];
};

enum rf_dim_kind {
	RF_DIM_USED = 1,    /* a rule of this event tests this operand */
	RF_DIM_TEXT = 2,    /* look up the event's string in rule_texts */
	RF_DIM_ADDRESS = 3, /* look up the event's address in rule_addresses */
};

struct rf_event_rules {
	__u32 rules;	      /* id of the set of rules on this event; 0: none */
	__u8 dim[8];	      /* RF_DIM_*; 0: no rule tests it */
	__u32 other[RF_DIMS]; /* the set if no table has the operand: rules that do not test it */
	__u64 mask[RF_DIMS];  /* RF_DIM_USED: the bits of the operand that are looked up */
};

struct rf_operand_key {
	__u16 event;
	__u16 dim;
	__u32 pad;
	__u64 value;
};

/*
 * The text of file.open is the path inside its filesystem, that of process.exec the path as the
 * container sees it; both begin with '/'. Of a sysctl: kernel/core_pattern. Of a unix socket: as
 * given; abstract names begin with NUL.
 */
struct rf_text_key {
	__u32 prefixlen; /* bits: 32 + 8 * bytes */
	__u16 event;
	__u16 dim;
	char text[RF_MATCH_TEXT]; /* exact names are stored with their NUL */
};

struct rf_address_key {
	__u32 prefixlen; /* bits: 32 + prefix */
	__u16 event;
	__u8 dim;
	__u8 family; /* 4 or 6 */
	__u8 address[16];
};

/*
 * Every rule has one bit in a generation. An exception has one, too, in the same word as its rule,
 * below it.
 */
struct rf_actions {
	__u64 deny[RF_RULE_WORDS];
	__u64 kill[RF_RULE_WORDS];
	__u64 except[RF_RULE_WORDS];
	__u8 clears[RF_MAX_RULES]; /* of an exception: the bit (0-63) in its word that it clears */
};

/*
 * Sizes and not types: up to 6.1, an inner map with BTF does not match one without
 * (bpf_map_meta_equal compares timer_off, -ENOENT and -EINVAL), and those of the agent have none.
 */
struct rf_generation_sets {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct rf_ruleset));
};
struct rf_generation_events {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_EVENT_MAX);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct rf_event_rules));
};
struct rf_generation_profiles {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	/* id of the set of active rules; profile 0: a container without a policy yet */
	__uint(value_size, sizeof(__u32));
};
struct rf_generation_operands {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct rf_operand_key));
	__uint(value_size, sizeof(__u32)); /* id of a set */
};
struct rf_generation_texts {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct rf_text_key));
	__uint(value_size, sizeof(__u32));
};
struct rf_generation_addresses {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct rf_address_key));
	__uint(value_size, sizeof(__u32));
};
struct rf_generation_actions {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct rf_actions));
};

#define RF_OUTER(name, inner)                             \
	struct map_##name {                               \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); \
		__uint(max_entries, RF_GENERATIONS);      \
		__type(key, __u32);                       \
		__array(values, struct inner);            \
	};                                                \
	extern struct map_##name name SEC(".maps")

RF_OUTER(rule_sets, rf_generation_sets);
RF_OUTER(rule_events, rf_generation_events);
RF_OUTER(rule_profiles, rf_generation_profiles);
RF_OUTER(rule_operands, rf_generation_operands);
RF_OUTER(rule_texts, rf_generation_texts);
RF_OUTER(rule_addresses, rf_generation_addresses);
RF_OUTER(rule_actions, rf_generation_actions);

/*
 * The word that activates a generation: generation % 2 is its slot in the outer maps. 0: none yet.
 */
struct map_generation {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct map_generation generation SEC(".maps");

#endif
