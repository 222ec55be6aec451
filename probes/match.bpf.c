// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Matching. A global function, so that the verifier checks it once per program, whatever calls it.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/bits.h"
#include "include/match.h"
#include "include/scratch.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline const struct rf_ruleset *rf_set(void *sets, __u32 id)
{
	return bpf_map_lookup_elem(sets, &id);
}

/*
 * ANDs the set of one dim in, and leaves the function when nothing is left. Missing dims are noted
 * in memory, not in a variable: the verifier would follow each of its 128 values to the end.
 */
#define RF_NARROW(d, is)                                            \
	do {                                                        \
		if (rules->dim[d]) {                                \
			if (!(query->known & RF_KNOWN(d))) {        \
				if (!query->worst_case)             \
					query->need |= RF_KNOWN(d); \
			} else {                                    \
				const struct rf_ruleset *__set;     \
                                                                    \
				by.set[d] = is;                     \
				__set = rf_set(sets, by.set[d]);    \
				if (!__set)                         \
					return RF_MATCH_NOTHING;    \
				summary &= __set->summary;          \
				hits &= __set->word[first];         \
				if (!summary || (single && !hits))  \
					return RF_MATCH_NOTHING;    \
			}                                           \
		}                                                   \
	} while (0)

#define RF_SET_OF_VALUE(d)                                                                   \
	({                                                                                   \
		struct rf_operand_key __key = { .event = event,                              \
						.dim = d,                                    \
						.value = query->value[d] & rules->mask[d] }; \
		__u32 *__id = bpf_map_lookup_elem(operands, &__key);                         \
                                                                                             \
		__id ? *__id : rules->other[d];                                              \
	})

/*
 * The key is read again from its own memory: before 6.3, memory that was passed to a global
 * function cannot be a map's key (map_key_value_types without PTR_TO_MEM).
 */
__noinline __u32 rf_set_of_object(const struct rf_query *query,
				  const struct rf_address_key *address, __u32 half, __u32 kind,
				  __u32 other)
{
	struct rf_address_key key;
	struct rf_scratch *buffer;
	void *texts, *addresses;
	__u32 *found = NULL;

	if (!query)
		return other;
	if (kind == RF_DIM_TEXT && query->text) {
		texts = bpf_map_lookup_elem(&rule_texts, &half);
		buffer = rf_scratch_numbered(query->text - 1);
		found = texts && buffer ? bpf_map_lookup_elem(texts, &buffer->text) : NULL;
	} else if (kind == RF_DIM_ADDRESS && address) {
		addresses = bpf_map_lookup_elem(&rule_addresses, &half);
		__builtin_memcpy(&key, address, sizeof(key));
		found = addresses ? bpf_map_lookup_elem(addresses, &key) : NULL;
	}
	return found ? *found : other;
}

/* The same for a text in the buffer of the current task. */
__noinline __u32 rf_set_of_own_text(__u32 half, __u32 other)
{
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());
	void *texts = bpf_map_lookup_elem(&rule_texts, &half);
	__u32 *found = texts && armed ? bpf_map_lookup_elem(texts, &armed->scratch.text) : NULL;

	return found ? *found : other;
}

__noinline int rf_event_has_rules(__u32 event)
{
	struct rf_event_rules *rules;
	__u32 zero = 0, half;
	__u64 *now = bpf_map_lookup_elem(&generation, &zero);
	void *events;

	if (!now || !*now)
		return 0;
	half = *now & (RF_GENERATIONS - 1);
	events = bpf_map_lookup_elem(&rule_events, &half);
	if (!events)
		return 0;
	rules = bpf_map_lookup_elem(events, &event);
	return rules && rules->rules;
}

__noinline int rf_has_rules(__u32 first, __u32 second)
{
	__u32 zero = 0, half, profile, *id;
	__u64 *now = bpf_map_lookup_elem(&generation, &zero);
	const struct rf_ruleset *active;
	void *profiles, *sets;

	if (!now || !*now)
		return 0;
	half = *now & (RF_GENERATIONS - 1);
	profiles = bpf_map_lookup_elem(&rule_profiles, &half);
	sets = bpf_map_lookup_elem(&rule_sets, &half);
	if (!profiles || !sets)
		return 0;
	profile = half ? second : first;
	id = bpf_map_lookup_elem(profiles, &profile);
	active = id ? rf_set(sets, *id) : NULL;
	return active && active->summary;
}

#define RF_CLEARS 8 /* exceptions at a time */

/*
 * The rules of a word that the lowest of these exceptions clear. A loop of its own: see rf_lowest.
 */
__noinline __u64 rf_exception_mask(const struct rf_actions *act, __u32 word, __u64 exceptions)
{
	__u64 cleared = 0;
	__u32 i;

	if (!act)
		return 0;
	for (i = 0; i < RF_CLEARS; i++) {
		__u64 at;

		if (!exceptions)
			break;
		at = word * 64 + rf_lowest(exceptions);
		barrier_var(
			at); /* a mask after it: 6.1 does not follow bounds through a 32-bit or */
		exceptions &= exceptions - 1;
		cleared |= 1ULL << (act->clears[at & (RF_MAX_RULES - 1)] & 63);
	}
	return cleared;
}

/* Clears the rules that have an exception among the hits, and the exceptions. */
static __always_inline __u64 rf_apply_exceptions(const struct rf_actions *act, __u64 word,
						 __u64 hits)
{
	__u64 exceptions = hits & act->except[word];
	__u32 i, done;

	hits &= ~exceptions;
	for (i = 0; i < 64 / RF_CLEARS; i++) {
		if (!exceptions)
			break;
		hits &= ~rf_exception_mask(act, word, exceptions);
		for (done = 0; done < RF_CLEARS; done++)
			exceptions &= exceptions - 1;
	}
	return hits;
}

/* deny before kill before alert; the lowest rule number of these. */
static __always_inline void rf_strongest(struct rf_query *query, const struct rf_actions *act,
					 __u64 word, __u64 hits)
{
	__u32 strength = RF_ACTION_ALERT;
	__u64 chosen = hits & act->deny[word];

	if (chosen) {
		strength = RF_ACTION_DENY;
	} else {
		chosen = hits & act->kill[word];
		if (chosen)
			strength = RF_ACTION_KILL;
		else
			chosen = hits;
	}
	if (strength <= query->action)
		return;
	query->action = strength;
	query->rule = word * 64 + rf_lowest(chosen);
}

/*
 * Numbers of the sets that narrow an event's rules: one per dim, each a part of the event's set,
 * and the container's.
 */
#define RF_NARROWED (RF_DIMS + 1)
struct rf_narrowed {
	__u32 set[RF_NARROWED];
};

/* A word of a set of rules. `word` is below RF_RULE_WORDS. */
static __always_inline __u64 rf_word_of(void *sets, __u32 id, __u64 word)
{
	const struct rf_ruleset *set = rf_set(sets, id);

	return set ? set->word[word] : 0;
}

/* The AND of all dims. On a stack of its own, which the evaluation after it does not need. */
__noinline __u64 rf_narrowed_word(const struct rf_narrowed *by, __u32 half, __u64 word)
{
	void *sets = bpf_map_lookup_elem(&rule_sets, &half);
	__u64 hits = -1;
	__u32 i;

	if (!by || !sets || word >= RF_RULE_WORDS)
		return 0;
	for (i = 0; i < RF_NARROWED; i++)
		hits &= rf_word_of(sets, by->set[i], word);
	return hits;
}

/*
 * Evaluates one word of 64 rules: the AND of all dims, minus exceptions. `word` is __u64 because
 * the verifier of 6.1 does not track 32-bit bounds here. A global function, verified once: else its
 * branches would be followed in each round of the loop below, in every program.
 */
__noinline int rf_evaluate_word(struct rf_query *query, const struct rf_narrowed *by, __u32 half,
				__u64 word)
{
	struct rf_actions *act;
	__u32 zero = 0;
	void *actions = bpf_map_lookup_elem(&rule_actions, &half);
	__u64 hits;

	if (!query || !by || !actions || word >= RF_RULE_WORDS)
		return 0;
	act = bpf_map_lookup_elem(actions, &zero);
	if (!act)
		return 0;
	hits = rf_narrowed_word(by, half, word);
	if (hits & act->except[word])
		hits = query->worst_case ? hits & ~act->except[word]
					 : rf_apply_exceptions(act, word, hits);
	if (hits)
		rf_strongest(query, act, word, hits);
	return 0;
}

/*
 * `own`: the text may be in the buffer of a task. A constant, because cgroup programs have no task
 * storage before 6.2.
 */
static __always_inline int rf_match_by(struct rf_query *query, const struct rf_address_key *address,
				       bool own)
{
	const struct rf_ruleset *of_event, *active;
	void *events, *profiles, *sets, *operands;
	__u64 summary, hits, *now;
	__u32 event, half, profile, zero = 0, first, word, step, *active_id;
	struct rf_event_rules *rules;
	struct rf_narrowed by;
	bool single;

	if (!query)
		return RF_MATCH_NOTHING;
	now = bpf_map_lookup_elem(&generation, &zero);
	if (!now || !*now)
		return RF_MATCH_NOTHING;
	half = *now & (RF_GENERATIONS - 1);
	query->generation = (__u32)*now;
	query->action = RF_ACTION_NONE;
	query->need = 0;

	events = bpf_map_lookup_elem(&rule_events, &half);
	profiles = bpf_map_lookup_elem(&rule_profiles, &half);
	sets = bpf_map_lookup_elem(&rule_sets, &half);
	if (!events || !profiles || !sets)
		return RF_MATCH_NOTHING;
	event = query->event;
	rules = bpf_map_lookup_elem(events, &event);
	if (!rules || !rules->rules)
		return RF_MATCH_NOTHING;
	profile = half ? query->profile[1] : query->profile[0];
	active_id = bpf_map_lookup_elem(profiles, &profile);
	if (!active_id)
		return RF_MATCH_NOTHING;
	of_event = rf_set(sets, rules->rules);
	active = rf_set(sets, *active_id);
	if (!of_event || !active)
		return RF_MATCH_NOTHING;
	summary = of_event->summary & active->summary;
	if (!summary)
		return RF_MATCH_NOTHING;
	first = rf_lowest(summary) & (RF_RULE_WORDS - 1);
	single = !(summary & (summary - 1));
	hits = of_event->word[first] & active->word[first];
	if (single && !hits)
		return RF_MATCH_NOTHING;

	operands = bpf_map_lookup_elem(&rule_operands, &half);
	if (!operands)
		return RF_MATCH_NOTHING;
	for (step = 0; step < RF_DIMS; step++)
		by.set[step] = rules->rules; /* a dim that no rule tests narrows nothing */
	by.set[RF_DIMS] = *active_id;
	RF_NARROW(0, RF_SET_OF_VALUE(0));
	RF_NARROW(1, RF_SET_OF_VALUE(1));
	RF_NARROW(2, RF_SET_OF_VALUE(2));
	RF_NARROW(RF_DIM_EXE, RF_SET_OF_VALUE(RF_DIM_EXE));
	RF_NARROW(RF_DIM_FACTS, RF_SET_OF_VALUE(RF_DIM_FACTS));
	RF_NARROW(3, RF_SET_OF_VALUE(3));
	RF_NARROW(RF_DIM_OBJECT,
		  own && query->text == RF_SCRATCH_OWN + 1 &&
				  rules->dim[RF_DIM_OBJECT] == RF_DIM_TEXT
			  ? rf_set_of_own_text(half, rules->other[RF_DIM_OBJECT])
			  : rf_set_of_object(query, address, half, rules->dim[RF_DIM_OBJECT],
					     rules->other[RF_DIM_OBJECT]));
	if (query->need)
		return RF_MATCH_NEED_MORE;

	/*
	 * Some rule may match. The sets are looked up again, by number: that is all the verifier
	 * knows in a function.
	 */
	for (step = 0; step < RF_RULE_WORDS; step++) {
		if (!summary)
			break;
		word = rf_lowest(summary) & (RF_RULE_WORDS - 1);
		summary &= summary - 1;
		rf_evaluate_word(query, &by, half, word);
	}
	return query->action != RF_ACTION_NONE ? RF_MATCH_RULE : RF_MATCH_NOTHING;
}

__noinline int rf_match(struct rf_query *query, const struct rf_address_key *address)
{
	return rf_match_by(query, address, true);
}

__noinline int rf_match_at_cgroup(struct rf_query *query, const struct rf_address_key *address)
{
	return rf_match_by(query, address, config.cgroup_storage);
}

__noinline int rf_conclude_no_scratch(struct rf_query *query, __u32 by)
{
	if (!query)
		return 0;
	rf_drop(query->event, RF_DROP_TABLE_FULL, query->slot);
	if (by == RF_MECHANISM_LSM)
		rf_lsm_enforce(query);
	else
		rf_enforce(query);
	rf_count_verdict(query);
	return 0;
}
