/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The policies: sets of rules, and the tables from operands to sets. Each table has two halves: the
 * generation in force is in one of them, and the next is written into the other. The maps are
 * frozen: only write.bpf.c writes them, for the agent.
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
	RF_GENERATIONS = 2, /* halves that policy generations alternate between */
	/* entries of the tables in both halves; tables without preallocation cost what they hold */
	RF_RULE_OPERANDS = 1 << 16,
	RF_RULE_TEXTS = 1 << 18,
	RF_RULE_ADDRESSES = 1 << 18,
	RF_RULE_SETS = 2 * 8192, /* (agent): with one set for each slot */
	RF_KEY_HALF = 0x80,	 /* or'ed to the `dim` of a key of the second half */
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
	__u32 half;
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

/* Index of an entry in a table that has one of each number in both halves. */
#define RF_IN_HALF(number, half) ((number) << 1 | (half))

/* Numbers of sets that every generation has. */
enum rf_set_number {
	RF_SET_EMPTY = 0,
	RF_SET_AT_BIRTH = 1, /* of a container without a policy yet: its profile is 0 */
};

struct map_rule_sets {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_RULE_SETS);
	__type(key, __u32); /* RF_IN_HALF */
	__type(value, struct rf_ruleset);
};
extern struct map_rule_sets rule_sets SEC(".maps");

struct map_rule_events {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_GENERATIONS *RF_EVENT_MAX);
	__type(key, __u32); /* RF_IN_HALF */
	__type(value, struct rf_event_rules);
};
extern struct map_rule_events rule_events SEC(".maps");

struct map_rule_operands {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, RF_RULE_OPERANDS);
	__type(key, struct rf_operand_key);
	__type(value, __u32); /* number of a set */
};
extern struct map_rule_operands rule_operands SEC(".maps");

struct map_rule_texts {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, RF_RULE_TEXTS);
	__type(key, struct rf_text_key);
	__type(value, __u32);
};
extern struct map_rule_texts rule_texts SEC(".maps");

struct map_rule_addresses {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, RF_RULE_ADDRESSES);
	__type(key, struct rf_address_key);
	__type(value, __u32);
};
extern struct map_rule_addresses rule_addresses SEC(".maps");

struct map_rule_actions {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_GENERATIONS);
	__type(key, __u32);
	__type(value, struct rf_actions);
};
extern struct map_rule_actions rule_actions SEC(".maps");

/* The word that activates a generation: generation % 2 is its half of the tables. 0: none yet. */
struct map_generation {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};
extern struct map_generation generation SEC(".maps");

#endif
