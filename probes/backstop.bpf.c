// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What backstops and the programs that they share code with call: see backstop.h. */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/backstop.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__noinline int rf_is_backstop(void)
{
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());

	return armed && armed->backstop;
}

/* What more a kill needs is done by rf_backstop_end(): here is no stack left for it. */
__noinline __u8 rf_backstop_kill(__u32 event)
{
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());

	if (armed)
		armed->backstop_event = event;
	return bpf_send_signal(9) ? RF_FLAG_SIGNAL_FAILED : 0;
}
