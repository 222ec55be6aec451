// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The kernel itself: what loads code into it, reads from it, or is mostly known from exploits of
 * it. Some hooks got more arguments over time: their programs read none.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm_call.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_LOADS (RF_EVENT_BIT(RF_SYS_MODULE_LOAD) | RF_EVENT_BIT(RF_SYS_KEXEC))
/* Files of no filesystem with a security context: 215b674b84dd (5.12), 91a9ab7c942a (5.16) */
#define RF_ANONYMOUS (RF_EVENT_BIT(RF_SYS_IO_URING_SETUP) | RF_EVENT_BIT(RF_SYS_USERFAULTFD))

SEC("lsm/bpf")
int RF_HOOK_NO_RESULT(lsm_bpf)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_BPF), 0, 0));
}

SEC("lsm/perf_event_open")
int RF_HOOK_NO_RESULT(lsm_perf_event_open)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_PERF_EVENT_OPEN), 0, 0));
}

SEC("lsm/kernel_read_file")
int RF_HOOK_NO_RESULT(lsm_kernel_read_file)
{
	return rf_lsm_verdict(rf_decide_call(RF_LOADS, 0, 0));
}

SEC("lsm/kernel_load_data")
int RF_HOOK_NO_RESULT(lsm_kernel_load_data)
{
	return rf_lsm_verdict(rf_decide_call(RF_LOADS, 0, 0));
}

/* Before modprobe runs, by the name that it would get: net-pf-38, fs-xfs, crypto-cbc(aes). */
SEC("lsm/kernel_module_request")
int RF_HOOK(lsm_kernel_module_request, char *name, int ret)
{
	struct rf_lsm lsm;

	if (ret)
		return ret;
	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_MODULE_REQUEST);
	return rf_lsm_decide(&lsm, rf_address(name));
}

SEC("lsm/locked_down")
int RF_HOOK_NO_RESULT(lsm_locked_down)
{
	return rf_lsm_verdict(rf_decide_call(RF_LOADS | RF_EVENT_BIT(RF_SYS_IOPL), 0, 0));
}

SEC("lsm/syslog")
int RF_HOOK_NO_RESULT(lsm_syslog)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_SYSLOG), 0, 0));
}

SEC("lsm/quotactl")
int RF_HOOK_NO_RESULT(lsm_quotactl)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_QUOTACTL), 0, 0));
}

/* The heads of "[userfaultfd]" and "[io_uring]" */
#define RF_USERFAULTFD_NAME RF_NAME8('[', 'u', 's', 'e', 'r', 'f', 'a', 'u')
#define RF_IO_URING_NAME RF_NAME8('[', 'i', 'o', '_', 'u', 'r', 'i', 'n')
#define RF_IOCTL_ARGUMENT 2

/* Returns 1 if the task is in a call of that event. */
__noinline int rf_in_call_of(__u32 event)
{
	struct rf_call call;

	return rf_call_in_progress(bpf_get_current_task_btf(), &call) &&
	       rf_call_of_event(&call, event);
}

/* Made by an ioctl of /dev/userfaultfd: the argument is the flags. */
__noinline int rf_decide_anonymous(__u32 event)
{
	struct rf_lsm lsm;

	if (!rf_lsm_armed(&lsm))
		return RF_ACTION_NONE;
	rf_lsm_query(&lsm, event);
	if (event == RF_SYS_USERFAULTFD)
		rf_lsm_operand(&lsm, 0, lsm.call.args[RF_IOCTL_ARGUMENT]);
	rf_lsm_decide(&lsm, 0);
	return lsm.query.action;
}

SEC("lsm/inode_init_security_anon")
int RF_HOOK(lsm_inode_init_security_anon, struct inode *inode, const struct qstr *name,
	    const struct inode *context, int ret)
{
	__u64 text = 0;
	__u32 event;

	if (ret)
		return ret;
	/* The name says what is made. */
	bpf_probe_read_kernel(&text, sizeof(text), BPF_CORE_READ(name, name));
	if (text == RF_USERFAULTFD_NAME)
		event = RF_SYS_USERFAULTFD;
	else if (text == RF_IO_URING_NAME)
		event = RF_SYS_IO_URING_SETUP;
	else
		return 0;
	if (rf_in_call_of(event))
		return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(event), 0, 0));
	return rf_lsm_verdict(rf_decide_anonymous(event));
}

SEC("lsm/uring_allowed")
int RF_HOOK_NO_RESULT(lsm_uring_allowed)
{
	return rf_lsm_verdict(rf_decide_call(RF_ANONYMOUS, 0, 0));
}

SEC("lsm/uring_sqpoll")
int RF_HOOK_NO_RESULT(lsm_uring_sqpoll)
{
	return rf_lsm_verdict(rf_decide_call(RF_ANONYMOUS, 0, 0));
}

SEC("lsm/key_alloc")
int RF_HOOK_NO_RESULT(lsm_key_alloc)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_KEYCTL), 0, 0));
}

SEC("lsm/key_permission")
int RF_HOOK_NO_RESULT(lsm_key_permission)
{
	return rf_lsm_verdict(rf_decide_call(RF_EVENT_BIT(RF_SYS_KEYCTL), 0, 0));
}
