// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The kernel itself: what loads code into it, looks into it, or is mostly known from exploits of it. Some hooks have
 * got more arguments over time: none is looked at where that is so.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm_call.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_LOADS (RF_EVENT_BIT(RF_SYS_MODULE_LOAD) | RF_EVENT_BIT(RF_SYS_KEXEC))
/* Files of no filesystem that have a security context: 215b674b84dd (5.12), 91a9ab7c942a (5.16) */
#define RF_ANONYMOUS (RF_EVENT_BIT(RF_SYS_IO_URING_SETUP) | RF_EVENT_BIT(RF_SYS_USERFAULTFD))

SEC("lsm/bpf")
int lsm_bpf(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_BPF), 0, 0));
}

SEC("lsm/perf_event_open")
int lsm_perf_event_open(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_PERF_EVENT_OPEN), 0, 0));
}

SEC("lsm/kernel_read_file")
int lsm_kernel_read_file(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_LOADS, 0, 0));
}

SEC("lsm/kernel_load_data")
int lsm_kernel_load_data(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_LOADS, 0, 0));
}

SEC("lsm/locked_down")
int lsm_locked_down(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_LOADS | RF_EVENT_BIT(RF_SYS_IOPL), 0, 0));
}

SEC("lsm/syslog")
int lsm_syslog(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_SYSLOG), 0, 0));
}

SEC("lsm/quotactl")
int lsm_quotactl(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_QUOTACTL), 0, 0));
}

SEC("lsm/inode_init_security_anon")
int lsm_inode_init_security_anon(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_ANONYMOUS, 0, 0));
}

SEC("lsm/uring_allowed")
int lsm_uring_allowed(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_ANONYMOUS, 0, 0));
}

SEC("lsm/uring_sqpoll")
int lsm_uring_sqpoll(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_ANONYMOUS, 0, 0));
}

SEC("lsm/key_alloc")
int lsm_key_alloc(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_KEYCTL), 0, 0));
}

SEC("lsm/key_permission")
int lsm_key_permission(void *ctx)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_KEYCTL), 0, 0));
}
