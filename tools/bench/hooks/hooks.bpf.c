/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ways to observe a system call, each as cheap as possible: hooks_bench.py attaches one at a time and
 * measures the cost for a task that is not observed.
 */
#include "../../../probes/include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "../../../probes/include/compat.h"
#include "../../../probes/include/object.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} armed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} by_cgroup SEC(".maps");

__u64 seen;

SEC("tracepoint/syscalls/sys_enter_unshare")
int unrelated_tracepoint(void *ctx)
{
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(empty_sys_enter, struct pt_regs *regs, long id)
{
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(compat_sys_enter, struct pt_regs *regs, long id)
{
	if (rf_in_compat(bpf_get_current_task_btf()))
		seen++;
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(compat_sys_exit, struct pt_regs *regs, long ret)
{
	if (rf_in_compat(bpf_get_current_task_btf()))
		seen++;
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(storage_sys_enter, struct pt_regs *regs, long id)
{
	if (bpf_task_storage_get(&armed, bpf_get_current_task_btf(), NULL, 0))
		seen++;
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(hash_sys_enter, struct pt_regs *regs, long id)
{
	__u64 cgroup = bpf_get_current_cgroup_id();

	if (bpf_map_lookup_elem(&by_cgroup, &cgroup))
		seen++;
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_openat")
int storage_open_exit(void *ctx)
{
	if (bpf_task_storage_get(&armed, bpf_get_current_task_btf(), NULL, 0))
		seen++;
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_openat")
int file_open_exit(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	long fd = rf_return_value((struct pt_regs *)bpf_task_pt_regs(task));
	struct rf_file file;
	__u64 at;

	if (bpf_task_storage_get(&armed, task, NULL, 0))
		seen++;
	if (fd < 0)
		return 0;
	at = rf_file_of_fd(task, fd);
	if (!at)
		return 0;
	rf_file_read(&file, at);
	seen += file.magic;
	return 0;
}
