// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Usermode helpers: programs of the host that the kernel runs by itself, as root, because somebody wrote
 * a path somewhere (core_pattern, modprobe, release_agent, uevent_helper, and whatever comes next).
 * All of them begin as an exec of a child of kthreadd, and that is looked at here. The subject is no armed
 * task, so the rules are those of a container of which nothing is known (profile 0).
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/helper.h"
#include "include/drift.h"
#include "include/lifecycle.h"
#include "include/scratch.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_DIM_KNOWN 1
#define RF_DIM_NAME 3

/* FNV-1a of a path that the kernel holds, as rf_hash_path does it for one that was walked. */
static __always_inline __u64 rf_hash_text(struct rf_scratch *buffer, const char *text)
{
	__u32 was = buffer->start, len = buffer->len;
	__u64 hash;
	long got = bpf_probe_read_kernel_str(buffer->walk, RF_NAME_MAX, text);

	if (got <= 0)
		return 0;
	buffer->start = 0;
	buffer->len = got - 1;
	hash = rf_hash_path(buffer);
	buffer->start = was;
	buffer->len = len;
	return hash;
}

/*
 * A script is gone when its interpreter runs: it is known by the path that the kernel was given. That lies in
 * kernel memory and is looked up from the root of the host.
 */
static __always_inline bool rf_is_known(struct rf_scratch *buffer, struct linux_binprm *binprm,
					const struct rf_object *object)
{
	const char *asked = BPF_CORE_READ(binprm, filename);
	struct rf_helper_key key = {};

	if (asked != BPF_CORE_READ(binprm, interp)) {
		key.inode = rf_hash_text(buffer, asked);
	} else {
		key.device = object->device;
		key.inode = object->inode;
	}
	return bpf_map_lookup_elem(&helpers, &key);
}

static __always_inline void rf_helper_record(struct task_struct *task, const struct rf_task *nobody,
					     const struct rf_object *object, struct rf_scratch *buffer,
					     struct rf_question *question, __u32 route, __u8 flags)
{
	struct rf_exec_event *record = RF_RECORD(rf_exec_event, RF_KERNEL_HELPER, nobody->slot, route);

	if (!record)
		return;
	rf_header(&record->header, RF_KERNEL_HELPER, task, nobody);
	rf_header_verdict(&record->header, question, task, nobody);
	record->object = *object;
	record->exe_hash = buffer->hash;
	if (rf_path_copy(record->path, sizeof(record->path), buffer))
		flags |= RF_FLAG_TRUNCATED;
	record->path_len = buffer->len < RF_PATH_LEN ? buffer->len : RF_PATH_LEN - 1;
	record->header.flags = flags;
	rf_submit(record, RF_KERNEL_HELPER);
}

/* What follows for helpers is the same as for a container that nobody knows. */
static __always_inline __u32 rf_judge_helper(struct rf_question *question, struct task_struct *task,
					     const struct rf_task *nobody, const struct rf_file *file)
{
	__u32 event = RF_KERNEL_HELPER, *level;

	rf_judge(question, task, nobody, NULL);
	if (question->action != RF_ACTION_NONE)
		return RF_TO_ALERTS;
	level = bpf_map_lookup_elem(&observe, &event);
	return level && *level != RF_OBSERVE_OFF ? RF_TO_ALERTS : RF_TO_NOWHERE;
}

__noinline int rf_helper(__u64 binprm_address, __u32 at_hook)
{
	struct linux_binprm *binprm = (struct linux_binprm *)binprm_address;
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_task nobody = { .slot = RF_NO_SLOT };
	struct rf_container anyone = {};
	struct rf_question question;
	struct rf_scratch *buffer;
	struct rf_object object;
	struct rf_file file;
	__u32 route;
	__u8 flags;

	if (!rf_asked(RF_KERNEL_HELPER))
		return 0;
	buffer = rf_scratch_get();
	if (!buffer) {
		rf_drop(RF_KERNEL_HELPER, RF_DROP_TABLE_FULL, RF_NO_SLOT);
		return 0;
	}
	nobody.facts = rf_program(rf_address(task), buffer, &file, (__u64)BPF_CORE_READ(binprm, file));
	nobody.exe_hash = buffer->hash;
	rf_object_read(&object, &file);
	rf_ask(&question, RF_KERNEL_HELPER, &nobody, &anyone);
	question.value[0] = file.magic;
	question.value[RF_DIM_KNOWN] = rf_is_known(buffer, binprm, &object);
	question.value[RF_DIM_NAME] = rf_hash_name(buffer, (__u64)RF_READ(struct file, file.file, f_path.dentry));
	rf_text_key_path(buffer, RF_KERNEL_HELPER);
	question.text = buffer->bit + 1;
	route = rf_judge_helper(&question, task, &nobody, &file);
	flags = at_hook ? rf_lsm_carry_out(&question) : rf_carry_out(&question);
	if (route != RF_TO_NOWHERE)
		rf_helper_record(task, &nobody, &object, buffer, &question, route, flags);
	rf_scratch_put(buffer);
	return question.action;
}
