/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How the agent changes maps that are frozen for bpf(2): it runs a program (BPF_PROG_RUN) that
 * writes for the agent alone. The contract with agent/ringfence/bpf/writer.py.
 */
#ifndef RINGFENCE_WRITE_H
#define RINGFENCE_WRITE_H

#include "vmlinux.h"

/* The arguments: words of the program's context. Keys and values are in the agent's memory. */
enum rf_write_argument {
	/* enum rf_write_map | enum rf_write_op << 8 | size of a key << 16 | of a value << 32 */
	RF_WRITE_WHAT = 0,
	RF_WRITE_KEYS = 1,   /* address */
	RF_WRITE_VALUES = 2, /* address */
	RF_WRITE_COUNT = 3,
	RF_WRITE_FLAGS = 4, /* BPF_ANY, BPF_NOEXIST */
	RF_WRITE_ARGUMENTS = 5,
};

enum rf_write_op {
	RF_WRITE_SET = 0,
	RF_WRITE_DELETE = 1,
	RF_WRITE_POP = 2, /* of a stack; the result is the value */
};

enum rf_write_limit {
	RF_WRITE_BATCH = 256, /* entries of one run */
};

/* The maps that can be written. A profile is a word of a slot, by slot * 2 + half. */
enum rf_write_map {
	RF_WRITE_GENERATION = 1,
	RF_WRITE_RULE_SETS = 2,
	RF_WRITE_RULE_EVENTS = 3,
	RF_WRITE_RULE_OPERANDS = 4,
	RF_WRITE_RULE_TEXTS = 5,
	RF_WRITE_RULE_ADDRESSES = 6,
	RF_WRITE_RULE_ACTIONS = 7,
	RF_WRITE_SLOTS = 8,
	RF_WRITE_PROFILES = 9,
	RF_WRITE_FREE_SLOTS = 10,
	RF_WRITE_HEARTBEAT = 11,
	RF_WRITE_CONTAINERS = 12,
	RF_WRITE_PATTERNS = 13,
	RF_WRITE_TICKETS = 14,
	RF_WRITE_SYSCALLS = 16,
	RF_WRITE_OBSERVE = 17,
	RF_WRITE_HALVINGS = 18,
	RF_WRITE_HELPERS = 19,
	RF_WRITE_GUARDS = 20,
	RF_WRITE_GUARD_WANTED = 21,
	RF_WRITE_GUARDED_CALLS = 22,
	RF_WRITE_HOST_TREES = 24,
	RF_WRITE_CONDEMNED = 23, /* keys are slots: an earlier agent condemned these containers */
};

#endif
