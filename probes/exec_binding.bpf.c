// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The binding of a task that executes a program. */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/exec_binding.h"
#include "include/drift.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * A global function: it does the same with and without a buffer for the program's path, and the
 * verifier would follow both cases to the end.
 */
__noinline int rf_bind_exec(const struct rf_exec_binding *binding)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_armed *armed;
	struct rf_task like;
	__u32 slot;

	if (!binding)
		return 0;
	like = binding->like;
	slot = like.slot;
	container = bpf_map_lookup_elem(&slots, &slot);
	if (!container)
		return 0;
	armed = binding->newly_armed ? rf_bind(task, container, &like) : rf_bound(task);
	if (!armed) {
		/* Without memory, the program does not start. */
		if (binding->newly_armed && !rf_bound(task)) {
			rf_drop(RF_PROCESS_EXEC, RF_DROP_TABLE_FULL, slot);
			rf_refuse_current(slot);
		}
		return 0;
	}
	armed->container_root = binding->container_root;
	armed->task.exe_hash = like.exe_hash;
	armed->task.facts = like.facts;
	__builtin_memset(armed->memo, 0, sizeof(armed->memo));
	if (armed->identity.kill_pending)
		bpf_send_signal(9);
	rf_drift_watch(task, armed);
	rf_publish(task, &armed->task, container);
	return 1;
}
