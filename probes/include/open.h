/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An open file and the rules of file.open: for the exit of the call (files.bpf.c) and for the hook
 * before the open has an effect (lsm_file.bpf.c). Other events on open files work the same way.
 */
#ifndef RINGFENCE_OPEN_H
#define RINGFENCE_OPEN_H

#include "match.h"
#include "object.h"
#include "trees.h"

/*
 * file type | RF_MOUNT_* << 16 | enum rf_tree << RF_TREE_SHIFT. Of a file of /proc/PID, which is in
 * no tree: RF_OF_PROCESS | enum rf_relation of the process, in the place of the tree.
 */
#define RF_DIM_FILE_TYPE 2
#define RF_OWNER_PROCESS 4 /* where it is in what is called `owner` */
#define RF_OF_PROCESS 8
#define RF_DIM_FILE_NAME 3 /* hash of the last component */

/* f_flags: include/uapi/asm-generic/fcntl.h */
#define RF_O_WRONLY 01
#define RF_O_RDWR 02
#define RF_O_CREAT 0100
#define RF_O_TRUNC 01000
#define RF_O_PATH 010000000
/* Not of an open, for rules (flags: [moved]): a name that is added or removed, by a hook. */
#define RF_NAME_MOVED (1U << 30)
#define RF_NAME_REMOVED (1U << 29)

/* Half of the hash of a task's call, never 0. */
static __always_inline __u32 rf_call_mark(struct task_struct *task, bool compat)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct rf_call call;

	rf_read_call(&call, regs, compat);
	return rf_call_hash(&call, regs) >> 32 | 1;
}

static __always_inline void rf_file_record(struct task_struct *task, const struct rf_task *bound,
					   const struct rf_file *file, struct rf_query *query,
					   struct rf_scratch *buffer, __u32 route, __u32 fd,
					   __u8 flags)
{
	struct rf_file_event *record = RF_RECORD(rf_file_event, query->event, bound->slot, route);

	if (!record)
		return;
	rf_header(&record->header, query->event, task, bound);
	rf_header_verdict(&record->header, query, task, bound);
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
	rf_submit(record, query->event);
}

/* Fills in what the last evaluation needed, the cheaper operands first, and evaluates again. */
static __always_inline __u32 rf_file_query_more(struct rf_query *query, struct task_struct *task,
						const struct rf_task *bound,
						struct rf_scratch *buffer, __u64 dentry)
{
	__u32 cheap = query->need & ~RF_KNOWN_OBJECT;

	if (cheap & RF_KNOWN_FACTS)
		rf_query_facts(query, task, bound);
	if (cheap & RF_KNOWN(RF_DIM_FILE_NAME))
		query->value[RF_DIM_FILE_NAME] = rf_hash_name(buffer, dentry);
	if (!cheap) {
		rf_path_in_filesystem(buffer, dentry);
		rf_text_key_path(buffer, query->event);
		query->text = buffer->bit + 1;
		query->worst_case = buffer->truncated;
		cheap = query->worst_case ? 0 : RF_KNOWN_OBJECT;
	}
	query->known |= cheap;
	return rf_match(query, NULL);
}

/* The memo for opens like this one. */
static __always_inline struct rf_memo *rf_memo_of(struct rf_armed *armed,
						  const struct rf_file *file)
{
	return &armed->memo[(file->magic ^ file->flags ^ file->mode >> 12) & (RF_MEMOS - 1)];
}

static __always_inline bool rf_memo_matches(const struct rf_memo *memo, const struct rf_memo *now)
{
	return memo->fs_magic == now->fs_magic && memo->flags == now->flags &&
	       memo->type == now->type && memo->generation == now->generation &&
	       memo->profile == now->profile;
}

/* Evaluates what is cheap to know of a file. `type` is operand 2: file type and mount owner. */
static __always_inline __u32 rf_file_query(struct rf_query *query, __u32 event,
					   struct task_struct *task, const struct rf_task *bound,
					   const struct rf_container *container,
					   const struct rf_file *file, __u32 type, bool compat)
{
	rf_query_init(query, event, bound, container);
	query->value[0] = file->magic;
	query->value[1] = file->flags;
	query->value[RF_DIM_FILE_TYPE] = type;
	if (compat)
		query->value[RF_DIM_FACTS] = rf_compat_facts(task);
	query->known |= RF_KNOWN(0) | RF_KNOWN(1) | RF_KNOWN(RF_DIM_FILE_TYPE);
	return rf_match(query, NULL);
}

static __always_inline __u32 rf_file_type(const struct rf_file *file, __u32 owner)
{
	return (file->mode & RF_S_IFMT) | owner << 16;
}

static __always_inline bool rf_is_device(const struct rf_file *file)
{
	__u32 type = file->mode & RF_S_IFMT;

	return type == RF_S_IFCHR || type == RF_S_IFBLK;
}

/*
 * The same for file.open, which knows in whose tree a file is that is opened for writing. `named`:
 * not an open, but a change of a name or of attributes: that of a device changes the directory that
 * it is in, while an open writes to the device. A terminal is judged in the mounts of the task: one
 * that it was given as a descriptor can be opened again.
 */
static __always_inline __u32 rf_file_type_opened(const struct rf_file *file, __u32 owner,
						 const struct rf_armed *armed, const bool named)
{
	__u32 type = rf_file_type(file, owner), how = 0;

	if (file->magic == RF_MAGIC_DEVPTS)
		return owner == RF_MOUNT_OWN ? type | rf_tree_of_terminal(file->dentry, file->mnt)
							       << RF_TREE_SHIFT
					     : type;
	if (!named && rf_is_device(file))
		return type;
	if (file->flags & (RF_NAME_MOVED | RF_NAME_REMOVED))
		how |= RF_NAME_CHANGES;
	if ((file->mode & RF_S_IFMT) != RF_S_IFREG)
		how |= RF_NAME_NO_FILE;
	if (file->flags & RF_O_ACCMODE && !(owner >> RF_OWNER_PROCESS))
		type |= rf_tree_of_file(file, armed->container_root, how) << RF_TREE_SHIFT;
	return type;
}

/*
 * Returns RF_MATCH_NOTHING if no rule can match an open, judged by its cheap operands, and
 * remembers that.
 */
static __always_inline __u32 rf_file_prefilter(struct rf_query *query, struct task_struct *task,
					       struct rf_armed *armed,
					       const struct rf_container *container,
					       const struct rf_file *file, __u32 owner, bool compat)
{
	struct rf_memo now, *memo = rf_memo_of(armed, file);
	__u32 zero = 0, answer;
	__u64 *live = bpf_map_lookup_elem(&generation, &zero);

	if (rf_is_condemned(container))
		return rf_file_query(query, RF_FILE_OPEN, task, &armed->task, container, file, 0,
				     compat);
	if (!live || !*live)
		return RF_MATCH_NOTHING;
	now.fs_magic = file->magic;
	now.flags = file->flags;
	now.type = rf_file_type_opened(file, owner, armed, false);
	now.generation = (__u32)*live;
	now.profile = now.generation & 1 ? container->profile[1] : container->profile[0];
	if (rf_memo_matches(memo, &now))
		return RF_MATCH_NOTHING;
	answer = rf_file_query(query, RF_FILE_OPEN, task, &armed->task, container, file, now.type,
			       compat);
	if (answer == RF_MATCH_NOTHING && query->generation == now.generation)
		*memo = now;
	return answer;
}

/* Returns true if a rule or an observer needs an event on a file. Then the query is initialised. */
static __always_inline bool rf_file_is_relevant(struct rf_query *query, __u32 event, __u32 answer,
						const struct rf_task *bound,
						const struct rf_container *container)
{
	if (answer != RF_MATCH_NOTHING)
		return true;
	if (!rf_is_observed(event))
		return false;
	rf_query_init(query, event, bound, container);
	return true;
}

/*
 * A rule may match, or the open is observed. `quiet`: alerts are not reported, as another query
 * follows.
 */
static __always_inline void rf_file_decide(struct rf_query *query, struct task_struct *task,
					   struct rf_armed *armed, struct rf_container *container,
					   const struct rf_file *file, __u32 answer, long fd,
					   __u8 flags, const __u32 by, bool quiet)
{
	__u64 dentry = file->dentry;
	struct rf_scratch *buffer = rf_scratch_claim(&armed->scratch);
	const struct rf_task *bound = &armed->task;
	__u32 route;

	if (!buffer) {
		rf_end_no_scratch(query, answer, by);
		return;
	}
	if (answer == RF_MATCH_NEED_MORE)
		answer = rf_file_query_more(query, task, bound, buffer, dentry);
	if (answer == RF_MATCH_NEED_MORE)
		rf_file_query_more(query, task, bound, buffer, dentry);
	flags |= by == RF_MECHANISM_LSM ? rf_lsm_enforce(query) : rf_enforce(query);
	if (quiet && query->action <= RF_ACTION_ALERT) {
		rf_scratch_release(buffer);
		return;
	}
	rf_count_verdict(query);
	route = rf_route_verdict(query, container);
	if (route != RF_ROUTE_NONE) {
		if (!(query->known & RF_KNOWN_OBJECT))
			rf_path_in_filesystem(buffer, dentry);
		rf_file_record(task, bound, file, query, buffer, route, fd, flags);
	}
	rf_scratch_release(buffer);
}

/* For a file behind one of overlayfs or fuse: the file in front, which the rules are about. */
static __always_inline void rf_file_in_front(struct rf_file *file, __u64 behind)
{
	struct path *path = (struct path *)rf_path_of_backing(behind);
	__u64 dentry = (__u64)BPF_CORE_READ(path, dentry);
	__u32 flags = file->flags;

	rf_file_named(file, (__u64)BPF_CORE_READ(path, mnt), dentry,
		      (__u64)RF_READ(struct dentry, dentry, d_inode));
	file->flags = flags;
}

#endif
