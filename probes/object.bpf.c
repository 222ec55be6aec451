// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Objects of the current task. Global functions, because from 6.2 on each pointer that is followed
 * directly costs the verifier up to 1 ms (task_facts.h), in each place of a program once. They are
 * followed directly, as these are hot paths.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "include/object.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__noinline __u64 rf_file_of_fd(__u32 fd)
{
	struct files_struct *files = bpf_get_current_task_btf()->files;
	struct fdtable *table;
	__u64 file = 0;

	if (!files)
		return 0;
	table = files->fdt;
	if (!table || fd >= table->max_fds)
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file),
			      (void *)((__u64)table->fd + (__u64)fd * sizeof(file)));
	return file;
}

__noinline int rf_is_own_mnt_ns(__u64 ns)
{
	struct nsproxy *proxy = bpf_get_current_task_btf()->nsproxy;

	return proxy && ns == (__u64)proxy->mnt_ns;
}
