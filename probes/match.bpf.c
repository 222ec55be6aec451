// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Matching. A global function, so that the verifier checks it once per program, whatever calls it.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/bits.h"
#include "include/borrowed.h"
#include "include/match.h"
#include "include/scratch.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline const struct rf_ruleset *rf_set(__u32 half, __u32 id)
{
	__u32 index = RF_IN_HALF(id, half);

	return bpf_map_lookup_elem(&rule_sets, &index);
}

/* The rules of a container. */
static __always_inline const struct rf_ruleset *rf_active_set(__u32 half, __u32 profile)
{
	return rf_set(half, profile ? profile : RF_SET_AT_BIRTH);
}

/* The number of the generation in force; 0: none yet. */
static __always_inline __u64 rf_generation(void)
{
	__u32 zero = 0;
	__u64 *now = bpf_map_lookup_elem(&generation, &zero);

	return now ? *now : 0;
}

static __always_inline struct rf_event_rules *rf_rules_of(__u32 event, __u32 half)
{
	__u32 index = RF_IN_HALF(event, half);

	return bpf_map_lookup_elem(&rule_events, &index);
}

/* The verdict on a container that was condemned (condemn.h), and on an event without a table. */
static __always_inline int rf_match_worst(struct rf_query *query)
{
	query->action = RF_ACTION_KILL;
	query->rule = RF_NO_RULE;
	query->need = 0;
	return RF_MATCH_RULE;
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
				__set = rf_set(half, by.set[d]);    \
				if (!__set) {                       \
					query->worst_case = 1;      \
				} else {                            \
					summary &= __set->summary;  \
					hits &= __set->word[first]; \
				}                                   \
				if (!summary || (single && !hits))  \
					return RF_MATCH_NOTHING;    \
			}                                           \
		}                                                   \
	} while (0)

#define RF_SET_OF_VALUE(d)                                                                   \
	({                                                                                   \
		struct rf_operand_key __key = { .event = event,                              \
						.dim = d,                                    \
						.half = half,                                \
						.value = query->value[d] & rules->mask[d] }; \
		__u32 *__id = bpf_map_lookup_elem(&rule_operands, &__key);                   \
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
	__u32 *found = NULL;
	__u16 dim = half ? RF_DIM_OBJECT | RF_KEY_HALF : RF_DIM_OBJECT;

	if (!query)
		return other;
	if (kind == RF_DIM_TEXT && query->text) {
		buffer = rf_scratch_numbered(query->text - 1);
		if (buffer) {
			buffer->text.dim = dim;
			found = bpf_map_lookup_elem(&rule_texts, &buffer->text);
		}
	} else if (kind == RF_DIM_ADDRESS && address) {
		__builtin_memcpy(&key, address, sizeof(key));
		key.dim = dim;
		found = bpf_map_lookup_elem(&rule_addresses, &key);
	}
	return found ? *found : other;
}

/*
 * The same for a text in the buffer of the current task. Not a global function: 6.1 verifies those
 * in cgroup programs, too, which never get here before 6.2.
 */
static __noinline __u32 rf_set_of_own_text(__u32 half, __u32 other)
{
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());
	__u32 *found;

	if (!armed)
		return other;
	armed->scratch.text.dim = half ? RF_DIM_OBJECT | RF_KEY_HALF : RF_DIM_OBJECT;
	found = bpf_map_lookup_elem(&rule_texts, &armed->scratch.text);
	return found ? *found : other;
}

__noinline int rf_event_has_rules(__u32 event)
{
	struct rf_event_rules *rules;
	__u64 now = rf_generation();

	if (!now)
		return 0;
	rules = rf_rules_of(event, now & (RF_GENERATIONS - 1));
	return !rules || rules->rules;
}

__noinline int rf_has_rules(__u32 first, __u32 second)
{
	__u64 now = rf_generation();
	const struct rf_ruleset *active;
	__u32 half;

	if (!now)
		return 0;
	half = now & (RF_GENERATIONS - 1);
	active = rf_active_set(half, half ? second : first);
	return !active || active->summary;
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
static __always_inline __u64 rf_word_of(__u32 half, __u32 id, __u64 word)
{
	const struct rf_ruleset *set = rf_set(half, id);

	return set ? set->word[word] : -1;
}

/* The AND of all dims. On a stack of its own, which the evaluation after it does not need. */
__noinline __u64 rf_narrowed_word(const struct rf_narrowed *by, __u32 half, __u64 word)
{
	__u64 hits = -1;
	__u32 i;

	if (!by || word >= RF_RULE_WORDS)
		return 0;
	for (i = 0; i < RF_NARROWED; i++)
		hits &= rf_word_of(half, by->set[i], word);
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
	struct rf_actions *act = bpf_map_lookup_elem(&rule_actions, &half);
	__u64 hits;

	if (!query || !by || word >= RF_RULE_WORDS)
		return 0;
	if (!act)
		return rf_match_worst(query);
	hits = rf_narrowed_word(by, half, word);
	barrier_var(word);
	word &= RF_RULE_WORDS - 1; /* the verifier of 6.12 has lost the bound by now */
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
	__u64 summary, hits, now;
	__u32 event, half, profile, first, word, step;
	struct rf_event_rules *rules;
	struct rf_narrowed by;
	bool single;

	if (!query)
		return RF_MATCH_NOTHING;
	now = rf_generation();
	query->generation = (__u32)now;
	query->action = RF_ACTION_NONE;
	query->need = 0;
	half = now & (RF_GENERATIONS - 1);
	profile = half ? query->profile[1] : query->profile[0];
	if (profile == RF_PROFILE_CONDEMNED)
		return rf_match_worst(query);
	if (!now)
		return RF_MATCH_NOTHING;

	event = query->event;
	rules = rf_rules_of(event, half);
	if (!rules)
		return rf_match_worst(query);
	if (!rules->rules)
		return RF_MATCH_NOTHING;
	of_event = rf_set(half, rules->rules);
	if (!of_event)
		return rf_match_worst(query);
	active = rf_active_set(half, profile);
	if (!active) { /* a set that is missing narrows nothing, and no exception applies */
		query->worst_case = 1;
		active = of_event;
	}
	summary = of_event->summary & active->summary;
	if (!summary)
		return RF_MATCH_NOTHING;
	first = rf_lowest(summary) & (RF_RULE_WORDS - 1);
	single = !(summary & (summary - 1));
	hits = of_event->word[first] & active->word[first];
	if (single && !hits)
		return RF_MATCH_NOTHING;

	for (step = 0; step < RF_DIMS; step++)
		by.set[step] = rules->rules; /* a dim that no rule tests narrows nothing */
	by.set[RF_DIMS] = profile ? profile : RF_SET_AT_BIRTH;
	RF_NARROW(0, RF_SET_OF_VALUE(0));
	RF_NARROW(1, RF_SET_OF_VALUE(1));
	RF_NARROW(2, RF_SET_OF_VALUE(2));
	/* Of an exec, the program is the next one, which nobody has driven yet. */
	if (rules->dim[RF_DIM_EXE] && query->known & RF_KNOWN_EXE &&
	    !(query->known & RF_KNOWN_CHANGED) && event != RF_PROCESS_EXEC) {
		query->known |= RF_KNOWN_CHANGED;
		if (rf_is_borrowed())
			query->value[RF_DIM_EXE] ^= RF_EXE_CHANGED;
	}
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
