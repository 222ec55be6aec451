// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Mounts. sb_mount is asked with the kernel's copies of what mount(2) was given, before anything of it is
 * looked at.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("lsm/sb_mount")
int BPF_PROG(lsm_sb_mount, const char *device, const struct path *path, const char *type, unsigned long flags,
	     void *data, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_ask(&lsm, RF_SYS_MOUNT);
	rf_lsm_operand(&lsm, 0, flags);
	return rf_lsm_decide(&lsm, (__u64)type);
}
