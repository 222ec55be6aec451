// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * host.map: a program of the host takes code from a container. An engine's helper that has entered
 * a container's files and then loads a library from there (docker cp), or a hook that an image gave
 * LD_PRELOAD: the task is in no container, and what it maps for execution is on an overlay that is
 * not its own.
 *
 * Programs of containers are on overlays themselves, and the kernel maps them when the task has
 * become them. So the subject is a task with a program on no overlay, or on that of the host's
 * root. A hook that runs in its container's cgroup and mount namespace counts as armed, but still
 * has the host's root.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/drift.h"
#include "include/lsm.h"
#include "include/mapping.h"
#include "include/open.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline bool rf_is_host_super(__u64 super)
{
	return RF_READ(struct super_block, super, s_dev) == config.host_root_device;
}

static __always_inline bool rf_is_foreign_overlay(__u64 super)
{
	return RF_READ(struct super_block, super, s_magic) == RF_MAGIC_OVERLAY &&
	       !rf_is_host_super(super);
}

/* Returns true if the current task runs a program of the host. */
static __always_inline bool rf_runs_host_program(struct task_struct *task)
{
	__u64 exe = (__u64)BPF_CORE_READ(task, mm, exe_file), root;
	struct rf_armed *armed = rf_bound(task);

	if (!exe || rf_is_foreign_overlay((__u64)RF_READ(struct file, exe, f_inode, i_sb)))
		return false;
	if (!armed || !armed->task.container)
		return true;
	root = (__u64)BPF_CORE_READ(task, fs, root.dentry);
	return rf_is_host_super((__u64)RF_READ(struct dentry, root, d_inode, i_sb));
}

static __always_inline void rf_host_record(struct task_struct *task, const struct rf_task *no_task,
					   const struct rf_file *file, struct rf_query *query,
					   struct rf_scratch *buffer, __u8 flags)
{
	if (query->action == RF_ACTION_NONE && !rf_is_observed(RF_HOST_MAP))
		return;
	rf_file_record(task, no_task, file, query, buffer, RF_ROUTE_ALERTS, -1, flags);
}

/*
 * The subject is in no container: the rules are those of an unknown container, as for
 * kernel.helper.
 */
__noinline int rf_host_map(__u64 mapped)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container no_container = {};
	struct rf_task no_task = { .slot = RF_NO_SLOT };
	struct rf_query query;
	struct rf_scratch *buffer;
	struct rf_file file;
	__u8 flags;

	if (!rf_event_has_rules(RF_HOST_MAP))
		return RF_ACTION_NONE;
	buffer = rf_scratch_get();
	rf_query_init(&query, RF_HOST_MAP, &no_task, &no_container);
	if (!buffer) {
		rf_fail_no_scratch(&query, RF_MECHANISM_LSM);
		return query.action;
	}
	rf_file_read(&file, mapped);
	if (RF_READ(struct file, mapped, f_mode) & RF_FMODE_NOACCOUNT)
		rf_file_in_front(&file, mapped);
	query.value[0] = file.magic;
	query.value[1] = file.flags;
	query.value[RF_DIM_FILE_TYPE] = rf_file_type(&file, rf_mount_owner(&no_task, &file));
	query.value[RF_DIM_FILE_NAME] = rf_hash_name(buffer, file.dentry);
	rf_path_in_filesystem(buffer, file.dentry);
	rf_text_key_path(buffer, RF_HOST_MAP);
	query.text = buffer->bit + 1;
	query.worst_case = buffer->truncated;
	rf_evaluate(&query, task, &no_task, NULL);
	flags = rf_lsm_enforce(&query);
	rf_host_record(task, &no_task, &file, &query, buffer, flags);
	rf_scratch_put(buffer);
	return query.action;
}

/* A mapping has the file behind that of an overlay: see compat.h. */
static __always_inline __u64 rf_super_in_front(__u64 file)
{
	struct path *path = (struct path *)rf_path_of_backing(file);

	if (RF_READ(struct file, file, f_mode) & RF_FMODE_NOACCOUNT)
		return (__u64)BPF_CORE_READ(path, dentry, d_sb);
	return (__u64)RF_READ(struct file, file, f_inode, i_sb);
}

static __always_inline int rf_host_mapping(__u64 file)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 super = rf_super_in_front(file);

	if (!config.host_root_device || !rf_is_foreign_overlay(super) ||
	    !rf_runs_host_program(task))
		return 0;
	return rf_lsm_verdict(rf_host_map(file));
}

SEC("lsm/mmap_file")
int host_mmap_file(__u64 *ctx)
{
	struct file *file = rf_mapping_file(ctx);
	int ret = rf_mapping_result(ctx);

	if (ret)
		return ret;
	return file && rf_mapping_is_code(ctx, file) ? rf_host_mapping(rf_address(file)) : 0;
}

SEC("lsm/file_mprotect")
int BPF_PROG(host_file_mprotect, struct vm_area_struct *vma, unsigned long reqprot,
	     unsigned long prot, int ret)
{
	__u64 file;

	if (ret)
		return ret;
	if (!(prot & RF_PROT_EXEC))
		return 0;
	file = (__u64)BPF_CORE_READ(vma, vm_file);
	return file ? rf_host_mapping(file) : 0;
}
