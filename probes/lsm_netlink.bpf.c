// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * uevent.send: messages about devices. The kernel repeats those that it gets from a task with
 * CAP_SYS_ADMIN to all listeners of the network namespace, as if they were its own, and listeners
 * believe root's. In the host's network namespace, udev then runs programs for devices that do not
 * exist. Monitors only listen.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/lsm.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_NETLINK_KOBJECT_UEVENT 15
#define RF_DIM_NETWORK 0
#define RF_NETWORK_OWN 1
#define RF_NETWORK_HOST 2

SEC("lsm/netlink_send")
int RF_HOOK(lsm_netlink_send, struct sock *sk, void *message, int ret)
{
	struct rf_lsm lsm;
	bool host;

	if (ret)
		return ret;
	if (BPF_CORE_READ(sk, sk_protocol) != RF_NETLINK_KOBJECT_UEVENT || !rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_UEVENT_SEND);
	host = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum) == config.host_net_ns;
	rf_lsm_operand(&lsm, RF_DIM_NETWORK, host ? RF_NETWORK_HOST : RF_NETWORK_OWN);
	return rf_lsm_decide(&lsm, 0);
}
