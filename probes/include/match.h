/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Operands -> sets of rules -> verdict. The sets are bitsets: the result is their AND with the
 * rules that are active for the container, so the cost does not grow with the number of rules.
 * Matching is one global function (match.bpf.c), which the verifier checks once per program.
 */
#ifndef RINGFENCE_MATCH_H
#define RINGFENCE_MATCH_H

#include "backstop.h"
#include "condemn.h"
#include "emit.h"
#include "rules.h"

#define RF_KNOWN(dim) (1U << (dim))
#define RF_KNOWN_FACTS RF_KNOWN(RF_DIM_FACTS)
#define RF_KNOWN_EXE RF_KNOWN(RF_DIM_EXE)
#define RF_KNOWN_OBJECT RF_KNOWN(RF_DIM_OBJECT)
/* It is known whether the program counts as changed: value[] has the bit if it does. */
#define RF_KNOWN_CHANGED (1U << 31)
#define RF_KNOWN_OPERANDS ((1U << RF_OPERANDS) - 1)

struct rf_query {
	__u32 event;
	__u32 slot;
	__u32 profile[RF_GENERATIONS];
	__u32 known; /* RF_KNOWN(dim): the operand is in value[] (object: in a key) */
	__u32 text;  /* 1 + number of the scratch buffer that holds the text key; 0: no text */
	/* the result */
	__u32 need; /* dims that decide and are not known yet: fill them in and evaluate again */
	__u32 generation;
	__u16 rule;
	__u8 action;
	__u8 mechanism;
	/* unknown operands may have any value, and no exception applies: there is no buffer */
	__u32 worst_case;
	__u64 value[RF_OPERANDS + 2]; /* operands, facts, exe */
};

/* In the place of a profile: the container was condemned. No set has that number. */
#define RF_PROFILE_CONDEMNED 0xffffffff

/* Results of rf_match. */
#define RF_MATCH_NOTHING 0
#define RF_MATCH_RULE 1	     /* action and rule are in the query */
#define RF_MATCH_NEED_MORE 2 /* a rule may match: fill in what `need` names and evaluate again */

int rf_match(struct rf_query *query, const struct rf_address_key *address);

/* The same for cgroup programs. */
int rf_match_at_cgroup(struct rf_query *query, const struct rf_address_key *address);

/* Returns true if a rule of the generation in force is about that event. */
int rf_event_has_rules(__u32 event);

/* Returns true if some rule applies to a container, by its profiles, whatever its action. */
int rf_has_rules(__u32 first, __u32 second);

/*
 * Set in the operand of a program that may differ from the image's: it was changed, is on another
 * mount than the root, or was reached from another root. A container may have put another program
 * in its place. Rules on that path apply; exceptions for the path do not
 * (ringfence/policy/lower.py).
 */
#define RF_EXE_CHANGED (1ULL << 63)

/* Returns true for the actions that a program with a return value refuses for. */
static __always_inline bool rf_refuses(__u32 action)
{
	return action == RF_ACTION_DENY || action == RF_ACTION_KILL;
}

static __always_inline void rf_query_init(struct rf_query *query, __u32 event,
					  const struct rf_task *bound,
					  const struct rf_container *container)
{
	__builtin_memset(query, 0, sizeof(*query));
	query->event = event;
	query->slot = bound->slot;
	query->rule = RF_NO_RULE;
	if (rf_is_condemned(container)) {
		query->profile[0] = query->profile[1] = RF_PROFILE_CONDEMNED;
	} else {
		query->profile[0] = container->profile[0];
		query->profile[1] = container->profile[1];
	}
	query->value[RF_DIM_EXE] = bound->exe_hash;
	query->known = RF_KNOWN_EXE;
	if (bound->facts & (RF_FACTS_OF_PROGRAM | RF_PROGRAM_ELSEWHERE)) {
		query->value[RF_DIM_EXE] ^= RF_EXE_CHANGED;
		query->known |= RF_KNOWN_CHANGED;
	}
}

/* The facts need many reads, so they are read only when a rule or a record needs them. */
static __always_inline void rf_query_facts(struct rf_query *query, struct task_struct *task,
					   const struct rf_task *bound)
{
	if (query->known & RF_KNOWN_FACTS)
		return;
	query->value[RF_DIM_FACTS] |= rf_facts(rf_address(task), bound->facts);
	query->known |= RF_KNOWN_FACTS;
}

static __always_inline int rf_match_where(struct rf_query *query,
					  const struct rf_address_key *address, const bool cgroup)
{
	return cgroup ? rf_match_at_cgroup(query, address) : rf_match(query, address);
}

static __always_inline void rf_evaluate_where(struct rf_query *query, struct task_struct *task,
					      const struct rf_task *bound,
					      const struct rf_address_key *address,
					      const bool cgroup)
{
	query->known |= RF_KNOWN_OPERANDS;
	if (query->worst_case)
		rf_query_facts(query, task, bound);
	else
		query->known |= RF_KNOWN_OBJECT;
	if (rf_match_where(query, address, cgroup) != RF_MATCH_NEED_MORE)
		return;
	rf_query_facts(query, task, bound);
	rf_match_where(query, address, cgroup);
}

/*
 * Evaluates the rules; everything but the facts is known. In the worst case (query.worst_case), the
 * text is not known, either.
 */
static __always_inline void rf_evaluate(struct rf_query *query, struct task_struct *task,
					const struct rf_task *bound,
					const struct rf_address_key *address)
{
	rf_evaluate_where(query, task, bound, address, false);
}

/*
 * Evaluates the rules of an event without its text. RF_MATCH_NEED_MORE: the text decides.
 */
static __always_inline int rf_evaluate_no_text(struct rf_query *query, struct task_struct *task,
					       const struct rf_task *bound)
{
	int answer;

	query->known |= RF_KNOWN_OPERANDS;
	answer = rf_match(query, NULL);
	if (answer == RF_MATCH_NEED_MORE && query->need & RF_KNOWN_FACTS) {
		rf_query_facts(query, task, bound);
		answer = rf_match(query, NULL);
	}
	return answer;
}

/*
 * Without a scratch buffer neither text nor name can be read. Takes the strongest action that a
 * rule could have for any of them. Only a refusal is enforced, by the mechanism `by`, and the lost
 * record is counted. Returns true if the program has to refuse.
 */
static __always_inline bool rf_fail_no_scratch(struct rf_query *query, const __u32 by)
{
	rf_drop(query->event, RF_DROP_TABLE_FULL, query->slot);
	query->worst_case = 1;
	rf_match_where(query, NULL, by == RF_MECHANISM_CGROUP);
	if (!rf_refuses(query->action)) {
		query->action = RF_ACTION_NONE;
		return false;
	}
	query->action = by == RF_MECHANISM_KILL ? RF_ACTION_KILL : RF_ACTION_DENY;
	if (by == RF_MECHANISM_KILL)
		rf_kill(query->event);
	rf_count_action(query->slot, query->action);
	return true;
}

/* The same for an event of which only the text is unknown. */
static __always_inline bool rf_fail_no_text(struct rf_query *query, struct task_struct *task,
					    const struct rf_task *bound, const __u32 by)
{
	query->known |= RF_KNOWN_OPERANDS;
	rf_query_facts(query, task, bound);
	return rf_fail_no_scratch(query, by);
}

/* Returns true if an event is reported without a rule. */
static __always_inline bool rf_is_observed(__u32 event)
{
	__u32 *level = bpf_map_lookup_elem(&observe, &event);

	return level && *level != RF_OBSERVE_OFF;
}

/*
 * Sends SIGKILL to the calling thread group if the verdict is kill. Returns flags for the header.
 */
static __always_inline __u8 rf_enforce(struct rf_query *query)
{
	if (query->action != RF_ACTION_KILL && query->action != RF_ACTION_DENY)
		return 0;
	/* The policy compiler turned denials into kills where the program cannot deny. */
	query->action = RF_ACTION_KILL;
	query->mechanism = RF_MECHANISM_KILL;
	return rf_kill(query->event);
}

/* The same for a program that can refuse: a kill refuses, too. See lsm.h. */
static __always_inline __u8 rf_lsm_enforce(struct rf_query *query)
{
	/* Written out: with rf_refuses() clang 14 spills more, and some hooks lack stack. */
	bool refuses = query->action == RF_ACTION_KILL || query->action == RF_ACTION_DENY;

	if (config.backstop && rf_is_backstop()) {
		query->action = refuses ? RF_ACTION_KILL : RF_ACTION_NONE;
		query->mechanism = RF_MECHANISM_BACKSTOP;
		return refuses ? rf_backstop_kill(query->event) : 0;
	}
	if (!refuses)
		return 0;
	query->mechanism = config.hook_mechanism;
	if (query->action != RF_ACTION_KILL)
		return 0;
	return bpf_send_signal(9) ? RF_FLAG_SIGNAL_FAILED : 0;
}

static __always_inline void rf_count_verdict(const struct rf_query *query)
{
	if (query->action != RF_ACTION_NONE)
		rf_count_action(query->slot, query->action);
}

/* Where the record of a verdict goes. */
static __always_inline __u32 rf_route_verdict(const struct rf_query *query,
					      struct rf_container *container)
{
	/* What a backstop lets pass was reported by the first program. */
	if (query->mechanism == RF_MECHANISM_BACKSTOP && query->action == RF_ACTION_NONE)
		return RF_ROUTE_NONE;
	return rf_route_rule(query->event, query->slot, container, query->action, query->rule);
}

/*
 * The epilogue of a program: enforces an evaluated query by that mechanism, adds to the header's
 * flags, and counts the verdict. Returns where the record goes.
 */
static __always_inline __u32 rf_conclude(struct rf_query *query, struct rf_container *container,
					 const __u32 mechanism, __u8 *flags)
{
	*flags |= mechanism == RF_MECHANISM_LSM ? rf_lsm_enforce(query) : rf_enforce(query);
	rf_count_verdict(query);
	return rf_route_verdict(query, container);
}

/*
 * A verdict that needed no text is enforced and counted although there is no buffer; its record is
 * lost.
 */
int rf_conclude_no_scratch(struct rf_query *query, __u32 by);

/* Ends an evaluation with this answer, without a buffer for the text and the record. */
static __always_inline void rf_end_no_scratch(struct rf_query *query, int answer, const __u32 by)
{
	if (answer == RF_MATCH_NEED_MORE)
		rf_fail_no_scratch(query, by);
	else
		rf_conclude_no_scratch(query, by);
}

/* The second half of a header: the verdict, and the facts, which may be read only now. */
static __always_inline void rf_header_verdict(struct rf_header *header, struct rf_query *query,
					      struct task_struct *task, const struct rf_task *bound)
{
	rf_query_facts(query, task, bound);
	header->facts = query->value[RF_DIM_FACTS];
	header->action = query->action;
	header->mechanism = query->mechanism;
	header->rule = query->rule;
	header->generation = query->generation;
}

#endif
