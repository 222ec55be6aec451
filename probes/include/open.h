/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An open file and the rules of file.open, whoever asks: the exit of the call (files.bpf.c) or the hook
 * before the open has any effect (lsm_file.bpf.c). So with the other events on a file that is open.
 */
#ifndef RINGFENCE_OPEN_H
#define RINGFENCE_OPEN_H

#include "match.h"
#include "object.h"

#define RF_DIM_FILE_TYPE 2 /* file type | foreign << 16 */
#define RF_DIM_FILE_NAME 3 /* hash of the last component */

/* f_flags: include/uapi/asm-generic/fcntl.h */
#define RF_O_WRONLY 01
#define RF_O_RDWR 02
#define RF_O_CREAT 0100
#define RF_O_TRUNC 01000
#define RF_O_PATH 010000000

static __always_inline void rf_file_record(struct task_struct *task, const struct rf_task *bound,
					   const struct rf_file *file, struct rf_question *question,
					   struct rf_scratch *buffer, __u32 route, __u32 fd, __u8 flags)
{
	struct rf_file_event *record = RF_RECORD(rf_file_event, question->event, bound->slot, route);

	if (!record)
		return;
	rf_header(&record->header, question->event, task, bound);
	rf_header_verdict(&record->header, question, task, bound);
	rf_object_read(&record->object, file);
	record->mode = file->mode;
	record->open_flags = file->flags;
	record->rdev = RF_READ(struct inode, file->inode, i_rdev);
	record->mnt_ns = rf_mount_ns(file);
	record->fd = fd;
	if (rf_path_copy(record->path, sizeof(record->path), buffer))
		flags |= RF_FLAG_TRUNCATED;
	record->path_len = buffer->len < RF_PATH_LEN ? buffer->len : RF_PATH_LEN - 1;
	record->header.flags = flags;
	rf_submit(record, question->event);
}

/* Learns what the last question left open, the cheaper first, and asks again. */
static __always_inline __u32 rf_ask_again(struct rf_question *question, struct task_struct *task,
					  const struct rf_task *bound, struct rf_scratch *buffer, __u64 dentry)
{
	__u32 cheap = question->need & ~RF_KNOWS_OBJECT;

	if (cheap & RF_KNOWS_FACTS)
		rf_learn_facts(question, task, bound);
	if (cheap & RF_KNOWS(RF_DIM_FILE_NAME))
		question->value[RF_DIM_FILE_NAME] = rf_hash_name(buffer, dentry);
	if (!cheap) {
		rf_path_in_filesystem(buffer, dentry);
		rf_text_key_path(buffer, question->event);
		question->text = buffer->bit + 1;
		cheap = RF_KNOWS_OBJECT;
	}
	question->known |= cheap;
	return rf_match(question, NULL);
}

/* The place of an open like this one among those that need no second look. */
static __always_inline struct rf_memo *rf_memo_of(struct rf_task *bound, const struct rf_file *file)
{
	struct rf_armed *armed = (struct rf_armed *)bound;

	return &armed->memo[(file->magic ^ file->flags ^ file->mode >> 12) & (RF_MEMOS - 1)];
}

static __always_inline bool rf_memo_knows(const struct rf_memo *memo, const struct rf_memo *now)
{
	return memo->fs_magic == now->fs_magic && memo->flags == now->flags && memo->type == now->type &&
	       memo->generation == now->generation && memo->profile == now->profile;
}

/* Asks with what is cheap to know of a file. `type` as operand 2: type of file and whose mount. */
static __always_inline __u32 rf_ask_file(struct rf_question *question, __u32 event, struct task_struct *task,
					 const struct rf_task *bound, const struct rf_container *container,
					 const struct rf_file *file, __u32 type, bool compat)
{
	rf_ask(question, event, bound, container);
	question->value[0] = file->magic;
	question->value[1] = file->flags;
	question->value[RF_DIM_FILE_TYPE] = type;
	if (compat)
		question->value[RF_DIM_FACTS] = rf_compat_facts(task);
	question->known |= RF_KNOWS(0) | RF_KNOWS(1) | RF_KNOWS(RF_DIM_FILE_TYPE);
	return rf_match(question, NULL);
}

static __always_inline __u32 rf_file_type(const struct rf_file *file, __u32 whose)
{
	return (file->mode & RF_S_IFMT) | whose << 16;
}

/* Whether some rule may match an open, by what is cheap to know. The answer no is remembered. */
static __always_inline __u32 rf_first_look(struct rf_question *question, struct task_struct *task,
					   struct rf_task *bound, const struct rf_container *container,
					   const struct rf_file *file, __u32 whose, bool compat)
{
	struct rf_memo now, *memo = rf_memo_of(bound, file);
	__u32 zero = 0, answer;
	__u64 *live = bpf_map_lookup_elem(&generation, &zero);

	if (!live || !*live)
		return RF_MATCH_NOTHING;
	now.fs_magic = file->magic;
	now.flags = file->flags;
	now.type = rf_file_type(file, whose);
	now.generation = (__u32)*live;
	now.profile = now.generation & 1 ? container->profile[1] : container->profile[0];
	if (rf_memo_knows(memo, &now))
		return RF_MATCH_NOTHING;
	answer = rf_ask_file(question, RF_FILE_OPEN, task, bound, container, file, now.type, compat);
	if (answer == RF_MATCH_NOTHING && question->generation == now.generation)
		*memo = now;
	return answer;
}

/* Whether an event on a file is of interest to anyone: a rule, or who observes it. Then it is in the question. */
static __always_inline bool rf_file_matters(struct rf_question *question, __u32 event, __u32 answer,
					    const struct rf_task *bound, const struct rf_container *container)
{
	__u32 *level;

	if (answer != RF_MATCH_NOTHING)
		return true;
	level = bpf_map_lookup_elem(&observe, &event);
	if (!level || *level == RF_OBSERVE_OFF)
		return false;
	rf_ask(question, event, bound, container);
	return true;
}

/* Something may match, or the open is observed. `quiet`: only what is stopped is told, as another question follows. */
static __always_inline void rf_second_look(struct rf_question *question, struct task_struct *task,
					   struct rf_task *bound, struct rf_container *container,
					   const struct rf_file *file, __u32 answer, long fd, __u8 flags,
					   const __u32 by, bool quiet)
{
	__u64 dentry = file->dentry;
	struct rf_scratch *buffer = rf_scratch_get();
	__u32 route;

	if (!buffer) {
		if (by == RF_MECHANISM_LSM && answer == RF_MATCH_ASK)
			rf_starved(question);
		else
			rf_drop(question->event, RF_DROP_TABLE_FULL, bound->slot);
		return;
	}
	if (answer == RF_MATCH_ASK)
		answer = rf_ask_again(question, task, bound, buffer, dentry);
	if (answer == RF_MATCH_ASK)
		rf_ask_again(question, task, bound, buffer, dentry);
	flags |= by == RF_MECHANISM_LSM ? rf_lsm_carry_out(question) : rf_carry_out(question);
	if (quiet && question->action <= RF_ACTION_ALERT) {
		rf_scratch_put(buffer);
		return;
	}
	rf_count_verdict(question);
	route = rf_route_verdict(question, container);
	if (route != RF_TO_NOWHERE) {
		if (!(question->known & RF_KNOWS_OBJECT))
			rf_path_in_filesystem(buffer, dentry);
		rf_file_record(task, bound, file, question, buffer, route, fd, flags);
	}
	rf_scratch_put(buffer);
}

#endif
