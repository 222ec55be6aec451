// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The namespace that setns enters, as the kernel has it. setns(2) reads a descriptor, and another
 * thread can put a different file there before a hook looks. Each kind of namespace has a function
 * that installs it, which is called once for each namespace, whether it comes from a file of nsfs
 * or from a pidfd. That function asks for capabilities: the hook `capable`, which follows on the
 * same task, decides by what is stored here (lsm_call.bpf.c).
 *
 * Unlike hooks, these programs may be skipped (docs/reference/kernel-compat.md), and what is stored
 * is then that of an earlier call: one that failed, perhaps. So where the kernel may skip them, a
 * kprobe behind the function's entry stores the same; where there are no kprobes, nothing that is
 * stored counts (RF_ENTRIES_UNSURE).
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/backstop.h"
#include "include/namespaces.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline int rf_note_entry(__u64 ns)
{
	struct rf_armed *armed = rf_bound(bpf_get_current_task_btf());

	if (armed)
		armed->entering_ns = ns;
	return 0;
}

#define RF_NOTES_ENTRY(kind)                                                \
	SEC("fentry/" #kind "ns_install")                                   \
	int BPF_PROG(setns_##kind, struct nsset *set, struct ns_common *ns) \
	{                                                                   \
		return rf_note_entry(rf_address(ns));                       \
	}                                                                   \
	SEC("kprobe")                                                       \
	int backstop_setns_##kind(struct pt_regs *regs)                     \
	{                                                                   \
		return rf_note_entry(PT_REGS_PARM2(regs));                  \
	}

RF_NOTES_ENTRY(mnt)
RF_NOTES_ENTRY(pid)
RF_NOTES_ENTRY(net)
RF_NOTES_ENTRY(user)
RF_NOTES_ENTRY(uts)
RF_NOTES_ENTRY(ipc)
RF_NOTES_ENTRY(cgroup)
RF_NOTES_ENTRY(time)

/*
 * Namespaces that the task has made are claimed at once, as another process of its container may
 * enter them before the task reaches a checkpoint. Also called by setns, and, with none, by a task
 * that ends.
 */
SEC("fentry/switch_task_namespaces")
int BPF_PROG(setns_switched, struct task_struct *task, struct nsproxy *next)
{
	struct task_struct *current = bpf_get_current_task_btf();
	struct rf_armed *armed;

	if (!next || task != current)
		return 0;
	armed = rf_bound(current);
	if (armed && !armed->entering)
		rf_claim_made(rf_address(next), rf_address(BPF_CORE_READ(current, nsproxy)),
			      &armed->task);
	return 0;
}
