// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Usermode helpers: programs of the host that the kernel runs by itself, as root, because a path
 * was written somewhere (core_pattern, modprobe, release_agent, uevent_helper, and future ones).
 * All of them begin as an exec of a kernel thread's child, which is decided here. The subject is no
 * armed task, so the rules are those of an unknown container (profile 0).
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/drift.h"
#include "include/program.h"
#include "include/usermode_helper.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_DIM_KNOWN 1
#define RF_DIM_NAME 3

#define RF_RLIMIT_CORE 4 /* include/uapi/asm-generic/resource.h */

/* The kernel runs a core dump handler with this limit, and nothing else (umh_pipe_setup). */
static __always_inline __u32 rf_helper_use(struct task_struct *task)
{
	return BPF_CORE_READ(task, signal, rlim[RF_RLIMIT_CORE].rlim_max) == 1 ? RF_HELPER_CORE
									       : RF_HELPER_OTHER;
}

/*
 * By the path that the kernel was given, which is in its memory and is looked up from the root of
 * the host, and by the file. A script is gone when its interpreter runs: then by the path alone.
 */
static __always_inline bool rf_is_known_helper(struct rf_scratch *buffer,
					       struct linux_binprm *binprm,
					       const struct rf_file *file, struct task_struct *task)
{
	const char *asked = BPF_CORE_READ(binprm, filename);
	struct rf_helper_key key = { .path = rf_hash_kernel_text(buffer, (__u64)asked) };
	__u32 *uses;

	if (asked == BPF_CORE_READ(binprm, interp)) {
		key.device = RF_READ(struct super_block, file->super, s_dev);
		key.inode = RF_READ(struct inode, file->inode, i_ino);
		key.changed = rf_changed_ns(file->inode);
	}
	uses = bpf_map_lookup_elem(&helpers, &key);
	return uses && *uses & rf_helper_use(task);
}

static __always_inline void rf_helper_record(struct task_struct *task,
					     const struct rf_task *no_task,
					     const struct rf_object *object,
					     struct rf_scratch *buffer, struct rf_query *query,
					     __u32 route, __u8 flags)
{
	struct rf_exec_event *record =
		RF_RECORD(rf_exec_event, RF_KERNEL_HELPER, no_task->slot, route);

	if (!record)
		return;
	rf_header(&record->header, RF_KERNEL_HELPER, task, no_task);
	rf_header_verdict(&record->header, query, task, no_task);
	record->object = *object;
	record->exe_hash = buffer->hash;
	if (rf_path_copy(record->path, sizeof(record->path), buffer))
		flags |= RF_FLAG_TRUNCATED;
	record->path_len = buffer->len < RF_PATH_LEN ? buffer->len : RF_PATH_LEN - 1;
	record->header.flags = flags;
	rf_submit(record, RF_KERNEL_HELPER);
}

/*
 * Not on the stack, which the exec has filled already, but in a second buffer: paths fill the
 * first.
 */
struct rf_helper_storage {
	struct rf_task no_task;
	struct rf_container no_container;
	struct rf_query query;
	struct rf_object object;
	struct rf_file file;
};
_Static_assert(sizeof(struct rf_helper_storage) <= RF_WALK_LEN, "fits the buffer");

static __always_inline void rf_helper_query(struct rf_helper_storage *storage,
					    struct rf_scratch *buffer, struct task_struct *task,
					    struct linux_binprm *binprm)
{
	struct rf_query *query = &storage->query;
	__u64 dentry;

	__builtin_memset(storage, 0, sizeof(*storage));
	storage->no_task.slot = RF_NO_SLOT;
	storage->no_task.facts = rf_program(rf_address(task), buffer, &storage->file,
					    (__u64)BPF_CORE_READ(binprm, file), rf_root_of(task));
	storage->no_task.exe_hash = buffer->hash;
	rf_object_read(&storage->object, &storage->file);
	dentry = storage->file.dentry;
	rf_query_init(query, RF_KERNEL_HELPER, &storage->no_task, &storage->no_container);
	query->value[0] = storage->file.magic;
	query->value[RF_DIM_KNOWN] = rf_is_known_helper(buffer, binprm, &storage->file, task);
	query->value[RF_DIM_NAME] = rf_hash_name(buffer, dentry);
	rf_text_key_path(buffer, RF_KERNEL_HELPER);
	query->text = buffer->bit + 1;
	query->worst_case = buffer->truncated;
	rf_evaluate(query, task, &storage->no_task, NULL);
}

static __always_inline __u32 rf_helper_finish(struct rf_helper_storage *storage,
					      struct rf_scratch *buffer, struct task_struct *task,
					      __u32 at_hook)
{
	struct rf_query *query = &storage->query;
	__u8 flags = at_hook ? rf_lsm_enforce(query) : rf_enforce(query);

	if (query->action != RF_ACTION_NONE || rf_is_observed(RF_KERNEL_HELPER))
		rf_helper_record(task, &storage->no_task, &storage->object, buffer, query,
				 RF_ROUTE_ALERTS, flags);
	return query->action;
}

/* Without a buffer the path cannot be looked up, so the helper counts as unknown. */
rf_subprogram __u32 rf_helper_fail_no_scratch(bool at_hook)
{
	struct rf_query query = {
		.event = RF_KERNEL_HELPER,
		.slot = RF_NO_SLOT,
		.rule = RF_NO_RULE,
		.known = RF_KNOWN(RF_DIM_KNOWN),
	};

	rf_fail_no_scratch(&query, RF_MECHANISM_LSM);
	if (!at_hook && rf_refuses(query.action))
		bpf_send_signal(9);
	return query.action;
}

__noinline int rf_helper_decide(__u64 binprm, __u32 at_hook)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_scratch *buffer, *second;
	struct rf_helper_storage *storage;
	__u32 verdict = RF_ACTION_NONE;

	if (!rf_event_has_rules(RF_KERNEL_HELPER))
		return RF_ACTION_NONE;
	buffer = rf_scratch_get();
	second = rf_scratch_get();
	if (buffer && second) {
		storage = (struct rf_helper_storage *)second->walk;
		rf_helper_query(storage, buffer, task, (struct linux_binprm *)binprm);
		verdict = rf_helper_finish(storage, buffer, task, at_hook);
	} else {
		verdict = rf_helper_fail_no_scratch(at_hook);
	}
	if (second)
		rf_scratch_put(second);
	if (buffer)
		rf_scratch_put(buffer);
	return verdict;
}

/* If no LSM hook decides before: the helper has become the program, and has not run any of it. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(helper_executed, struct task_struct *task, pid_t old_pid, struct linux_binprm *binprm)
{
	if (config.helper_hook || !rf_is_usermode_helper(task, 1))
		return 0;
	rf_helper_decide(rf_address(binprm), false);
	return 0;
}
