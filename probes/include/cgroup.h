/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the cgroup-BPF programs have in common. They deny before the effect, for the verdicts deny and
 * kill; they cannot raise a signal: for kill, the agent ends the process afterwards.
 */
#ifndef RINGFENCE_CGROUP_H
#define RINGFENCE_CGROUP_H

#include "match.h"

/*
 * Each result is a constant that the compiler cannot fold into an expression: from 6.12 on the verifier
 * wants to see that a program returns 0 or 1.
 */
static __always_inline int rf_allow(void)
{
	int result = 1;

	barrier_var(result);
	return result & 1;
}

static __always_inline int rf_deny(void)
{
	return 0;
}

static __always_inline bool rf_denies(const struct rf_question *question)
{
	return question->action == RF_ACTION_DENY || question->action == RF_ACTION_KILL;
}

/* Asks the rules and counts. Returns where the record goes. */
static __always_inline __u32 rf_answer_cgroup(struct rf_question *question, struct task_struct *task,
					      const struct rf_task *bound, struct rf_container *container,
					      const struct rf_address_key *address)
{
	rf_judge(question, task, bound, address);
	if (rf_denies(question))
		question->mechanism = RF_MECHANISM_CGROUP;
	rf_count_verdict(question);
	return rf_route(question->event, bound->slot, container, question->action);
}

#endif
