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
 * What narrows an event's rules: the numbers of sets, one per dim, each a part of the event's set,
 * and that of the container; and what they leave.
 */
#define RF_NARROWED (RF_DIMS + 1)
struct rf_narrowed {
	__u64 summary; /* words that may have rules left */
	__u64 hits;    /* what is left of the word `first` */
	__u32 first;
	__u32 single; /* from the beginning, only that word had any */
	__u32 half;
	__u32 set[RF_NARROWED];
};

/* A number that no set has. */
#define RF_NO_SET 0xffffffff

/*
 * ANDs a set of that dim in. Returns 1 when nothing is left. A function, as are those below: the
 * verifier would follow their branches for each dim.
 */
__noinline int rf_narrow(struct rf_query *query, struct rf_narrowed *by, __u64 dim, __u32 id)
{
	const struct rf_ruleset *set;
	__u64 first;

	if (!query || !by || dim >= RF_DIMS)
		return 0;
	by->set[dim] = id;
	set = rf_set(by->half, id);
	if (!set) {
		query->worst_case = 1;
		return 0;
	}
	first = by->first;
	barrier_var(first);
	first &= RF_RULE_WORDS - 1;
	by->summary &= set->summary;
	by->hits &= set->word[first];
	return !by->summary || (by->single && !by->hits);
}

/* The same by the value of an operand. One that is not known is noted as missing. */
__noinline int rf_narrow_by_value(struct rf_query *query, struct rf_narrowed *by, __u64 dim)
{
	struct rf_operand_key key = { .dim = dim };
	struct rf_event_rules *rules;
	__u32 *id;

	if (!query || !by || dim >= RF_DIM_OBJECT)
		return 0;
	if (!(query->known & RF_KNOWN(dim))) {
		if (!query->worst_case)
			query->need |= RF_KNOWN(dim);
		return 0;
	}
	key.half = by->half;
	key.event = query->event;
	rules = rf_rules_of(query->event, by->half);
	if (!rules)
		return rf_narrow(query, by, dim, RF_NO_SET);
	key.value = query->value[dim] & rules->mask[dim];
	id = bpf_map_lookup_elem(&rule_operands, &key);
	return rf_narrow(query, by, dim, id ? *id : rules->other[dim]);
}

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

/* A word of a set of rules. `word` is below RF_RULE_WORDS. */
static __always_inline __u64 rf_word_of(__u32 half, __u32 id, __u64 word)
{
	const struct rf_ruleset *set = rf_set(half, id);

	return set ? set->word[word] : -1;
}

/* The AND of all dims. On a stack of its own, which the evaluation after it does not need. */
__noinline __u64 rf_narrowed_word(const struct rf_narrowed *by, __u64 word)
{
	__u64 hits = -1;
	__u32 i;

	if (!by || word >= RF_RULE_WORDS)
		return 0;
	for (i = 0; i < RF_NARROWED; i++)
		hits &= rf_word_of(by->half, by->set[i], word);
	return hits;
}

/*
 * Evaluates one word of 64 rules: the AND of all dims, minus exceptions. `word` is __u64 because
 * the verifier of 6.1 does not track 32-bit bounds here. A global function, verified once: else its
 * branches would be followed in each round of the loop below, in every program.
 */
__noinline int rf_evaluate_word(struct rf_query *query, const struct rf_narrowed *by, __u64 word)
{
	struct rf_actions *act;
	__u64 hits;
	__u32 half;

	if (!query || !by || word >= RF_RULE_WORDS)
		return 0;
	half = by->half;
	act = bpf_map_lookup_elem(&rule_actions, &half);
	if (!act)
		return rf_match_worst(query);
	hits = rf_narrowed_word(by, word);
	barrier_var(word);
	word &= RF_RULE_WORDS - 1; /* the verifier of 6.12 has lost the bound by now */
	if (hits & act->except[word])
		hits = query->worst_case ? hits & ~act->except[word]
					 : rf_apply_exceptions(act, word, hits);
	if (hits)
		rf_strongest(query, act, word, hits);
	return 0;
}

#define RF_WORDS 8 /* at a time */

/*
 * Evaluates the lowest of these words. The sets are looked up again, by number: that is all the
 * verifier knows in a function. Returns the words that are left.
 */
__noinline __u64 rf_evaluate_words(struct rf_query *query, const struct rf_narrowed *by,
				   __u64 words)
{
	__u32 i;

	for (i = 0; i < RF_WORDS; i++) {
		if (!words)
			break;
		rf_evaluate_word(query, by, rf_lowest(words) & (RF_RULE_WORDS - 1));
		words &= words - 1;
	}
	return words;
}

/* By the event's text or address. */
static __always_inline int rf_narrow_by_object(struct rf_query *query, struct rf_narrowed *by,
					       const struct rf_event_rules *rules,
					       const struct rf_address_key *address, bool own)
{
	__u32 kind = rules->dim[RF_DIM_OBJECT], other = rules->other[RF_DIM_OBJECT], id;

	if (!(query->known & RF_KNOWN_OBJECT)) {
		if (!query->worst_case)
			query->need |= RF_KNOWN_OBJECT;
		return 0;
	}
	if (own && query->text == RF_SCRATCH_OWN + 1 && kind == RF_DIM_TEXT)
		id = rf_set_of_own_text(by->half, other);
	else
		id = rf_set_of_object(query, address, by->half, kind, other);
	return rf_narrow(query, by, RF_DIM_OBJECT, id);
}

/*
 * `own`: the text may be in the buffer of a task. A constant, because cgroup programs have no task
 * storage before 6.2.
 */
static __always_inline int rf_match_by(struct rf_query *query, const struct rf_address_key *address,
				       bool own)
{
	const struct rf_ruleset *of_event, *active;
	__u32 event, half, profile, step;
	struct rf_event_rules *rules;
	struct rf_narrowed by;
	__u64 now, left;

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
	by.summary = of_event->summary & active->summary;
	if (!by.summary)
		return RF_MATCH_NOTHING;
	by.half = half;
	by.first = rf_lowest(by.summary) & (RF_RULE_WORDS - 1);
	by.single = !(by.summary & (by.summary - 1));
	by.hits = of_event->word[by.first] & active->word[by.first];
	if (by.single && !by.hits)
		return RF_MATCH_NOTHING;

	for (step = 0; step < RF_DIMS; step++)
		by.set[step] = rules->rules; /* a dim that no rule tests narrows nothing */
	by.set[RF_DIMS] = profile ? profile : RF_SET_AT_BIRTH;
	RF_ROLLED
	for (step = 0; step <= RF_DIM_FACTS; step++) {
		if (rules->dim[step] && rf_narrow_by_value(query, &by, step))
			return RF_MATCH_NOTHING;
	}
	/* Of an exec, the program is the next one, which nobody has driven yet. */
	if (rules->dim[RF_DIM_EXE] && query->known & RF_KNOWN_EXE &&
	    !(query->known & RF_KNOWN_CHANGED) && event != RF_PROCESS_EXEC) {
		query->known |= RF_KNOWN_CHANGED;
		if (rf_is_borrowed())
			query->value[RF_DIM_EXE] ^= RF_EXE_CHANGED;
	}
	if (rules->dim[RF_DIM_EXE] && rf_narrow_by_value(query, &by, RF_DIM_EXE))
		return RF_MATCH_NOTHING;
	if (rules->dim[RF_DIM_OBJECT] && rf_narrow_by_object(query, &by, rules, address, own))
		return RF_MATCH_NOTHING;
	if (query->need)
		return RF_MATCH_NEED_MORE;

	left = by.summary; /* some rule may match */
	for (step = 0; step < RF_RULE_WORDS / RF_WORDS; step++) {
		if (!left)
			break;
		left = rf_evaluate_words(query, &by, left);
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
