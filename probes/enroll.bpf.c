// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * How a cgroup becomes a container, and how its slot is freed. Global functions: see
 * task_facts.bpf.c.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/condemn.h"
#include "include/enroll.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_CGROUP_NAME 128 /* fits the longest name that a pattern can match */
#define RF_HEX_DIGITS 64
#define RF_BUILD_DIGITS 25

struct rf_cgroup_name {
	char text[RF_CGROUP_NAME] __attribute__((aligned(8)));
};

/* In functions, so that the verifier follows each once and not in each round. */
__noinline int rf_is_digit(const struct rf_cgroup_name *name, __u32 at, __u32 last)
{
	char c = name ? name->text[at & (RF_CGROUP_NAME - 1)] : 0;

	return (c >= '0' && c <= '9') || (c >= 'a' && c <= (char)last);
}

/* The bound is a constant for the same reason. */
static __always_inline bool rf_all_digits(const struct rf_cgroup_name *name, __u32 begin,
					  const __u32 digits, const char last)
{
	__u32 i;

	for (i = 0; i < digits; i++) {
		if (!rf_is_digit(name, begin + i, last))
			return false;
	}
	return true;
}

/* Matches a prefix, then the digits of the kind (and nothing or .scope), or anything. */
__noinline int rf_name_matches(const struct rf_pattern *pattern, const struct rf_cgroup_name *name)
{
	__u32 i, at, len, digits;

	if (!pattern || !name)
		return 0;
	len = pattern->len;
	if (len > sizeof(pattern->prefix))
		return 0;
	for (i = 0; i < sizeof(pattern->prefix); i++) {
		if (i >= len)
			break;
		if (name->text[i] != pattern->prefix[i])
			return 0;
	}
	if (pattern->kind == RF_PATTERN_ANY)
		return 1;
	/*
	 * Read again: else the verifier continues from each place where the loop could have ended.
	 */
	len = *(const volatile __u8 *)&pattern->len;
	if (len > sizeof(pattern->prefix))
		return 0;
	if (pattern->kind == RF_PATTERN_BUILD) {
		if (!rf_all_digits(name, len, RF_BUILD_DIGITS, 'z'))
			return 0;
	} else if (!rf_all_digits(name, len, RF_HEX_DIGITS, 'f')) {
		return 0;
	}
	/* Read again, for the same reason. */
	digits = *(const volatile __u8 *)&pattern->kind == RF_PATTERN_BUILD ? RF_BUILD_DIGITS
									    : RF_HEX_DIGITS;
	at = len + digits; /* at most 46 + 64: .scope fits after it */
	if (at > RF_CGROUP_NAME - 8)
		return 0;
	if (!name->text[at])
		return 1;
	return name->text[at] == '.' && name->text[at + 1] == 's' && name->text[at + 2] == 'c' &&
	       name->text[at + 3] == 'o' && name->text[at + 4] == 'p' &&
	       name->text[at + 5] == 'e' && !name->text[at + 6];
}

#define RF_BUILDKIT RF_NAME8('b', 'u', 'i', 'l', 'd', 'k', 'i', 't')

static __always_inline void rf_name_of(struct rf_cgroup_name *name, __u64 cgroup)
{
	bpf_probe_read_kernel_str(name->text, sizeof(name->text),
				  RF_READ(struct cgroup, cgroup, kn, name));
}

__noinline int rf_is_container_name(__u64 cgroup)
{
	struct rf_cgroup_name name = {};
	bool steps;
	__u32 i;

	/* In the same buffer: what is behind the end of a name is not read. */
	rf_name_of(&name, rf_parent_address(cgroup));
	steps = *(__u64 *)name.text == RF_BUILDKIT && !name.text[8];
	rf_name_of(&name, cgroup);
	for (i = 0; i < RF_PATTERNS; i++) {
		__u32 index = i;
		struct rf_pattern *pattern = bpf_map_lookup_elem(&patterns, &index);

		if (!pattern || !pattern->kind)
			return 0;
		if (rf_name_matches(pattern, &name) &&
		    (pattern->kind != RF_PATTERN_BUILD || pattern->len || steps))
			return 1;
	}
	return 0;
}

__noinline __u32 rf_enroll(__u64 cgroup, __u64 path)
{
	struct rf_container *container;
	__u64 id = RF_READ(struct cgroup, cgroup, kn, id);
	__u32 slot;

	if (bpf_map_pop_elem(&free_slots, &slot)) {
		rf_drop(RF_CONTAINER_CREATE, RF_DROP_TABLE_FULL, RF_NO_SLOT);
		return RF_NO_SLOT;
	}
	container = bpf_map_lookup_elem(&slots, &slot);
	if (!container)
		return RF_NO_SLOT;
	/* The slot was returned empty. The owner is written before anything can find the slot. */
	container->created_ns = bpf_ktime_get_boot_ns();
	container->state = RF_STATE_USED;
	container->cgroup = id;
	if (bpf_map_update_elem(&containers, &id, &slot, BPF_NOEXIST)) {
		container->cgroup = 0;
		container->state = 0;
		bpf_map_push_elem(&free_slots, &slot, BPF_ANY);
		slot = rf_slot_of(cgroup); /* the agent, or another CPU, was first */
		if (slot == RF_NO_SLOT)
			rf_drop(RF_CONTAINER_CREATE, RF_DROP_TABLE_FULL, RF_NO_SLOT);
		return slot;
	}
	rf_container_record(RF_CONTAINER_CREATE, id, rf_parent_id(cgroup), slot, path);
	return slot;
}

__noinline __u32 rf_enroll_late(__u64 cgroup)
{
	__u64 at = cgroup, named = 0;
	__u32 i;

	for (i = 0; i < RF_LEVELS; i++) {
		__u64 id = at ? RF_READ(struct cgroup, at, kn, id) : 0;

		if (!id || id == config.root_cgroup)
			break;
		if (!bpf_map_lookup_elem(&containers, &id) && rf_is_container_name(at))
			named = at; /* the topmost */
		at = rf_parent_address(at);
	}
	return named ? rf_enroll(named, 0) : RF_NO_SLOT;
}

static __always_inline bool rf_agent_beats(void)
{
	__u32 zero = 0;
	__u64 *beat = bpf_map_lookup_elem(&heartbeat, &zero);

	return beat && (__s64)(bpf_ktime_get_boot_ns() - *beat) < RF_STALE_NS;
}

__noinline int rf_recycle(__u32 slot)
{
	struct rf_container *container = bpf_map_lookup_elem(&slots, &slot);
	__u64 id;

	if (!container || !(container->state & RF_STATE_REMOVED) || container->tasks > 0 ||
	    rf_agent_beats())
		return 0;
	id = container->cgroup;
	if (bpf_map_delete_elem(&containers, &id))
		return 0; /* another program or the agent returns it */
	rf_forget_condemned(container);
	__builtin_memset(container, 0, sizeof(*container));
	bpf_map_push_elem(&free_slots, &slot, BPF_ANY);
	return 1;
}
