// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Opens, decided on the kernel's struct file when the call is about to return: never on a path that
 * another thread can change. The task is killed before it can use the descriptor. This is the hottest
 * of our paths: what costs (another mount's namespace, a name, the path) is only read when a rule asks
 * for it.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/match.h"
#include "include/object.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define RF_DIM_FILE_TYPE 2 /* file type | foreign << 16 */
#define RF_DIM_FILE_NAME 3 /* hash of the last component */

static __always_inline void rf_file_record(struct task_struct *task, const struct rf_task *bound,
					   const struct rf_file *file, struct rf_question *question,
					   struct rf_scratch *buffer, __u32 route, __u32 fd, __u8 flags)
{
	struct rf_file_event *record = RF_RECORD(rf_file_event, RF_FILE_OPEN, bound->slot, route);

	if (!record)
		return;
	rf_header(&record->header, RF_FILE_OPEN, task, bound);
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
	rf_submit(record, RF_FILE_OPEN);
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
		rf_text_key_path(buffer, RF_FILE_OPEN);
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

/* Whether some rule may match, by what is cheap to know. The answer no is remembered. */
static __always_inline __u32 rf_first_look(struct rf_question *question, struct task_struct *task,
					   struct rf_task *bound, const struct rf_container *container,
					   const struct rf_file *file, bool compat)
{
	struct rf_memo now, *memo = rf_memo_of(bound, file);
	__u32 zero = 0, answer;
	__u64 *live = bpf_map_lookup_elem(&generation, &zero);

	if (!live || !*live)
		return RF_MATCH_NOTHING;
	now.fs_magic = file->magic;
	now.flags = file->flags;
	now.type = (file->mode & RF_S_IFMT) | rf_foreign(task, file) << 16;
	now.generation = (__u32)*live;
	now.profile = now.generation & 1 ? container->profile[1] : container->profile[0];
	if (rf_memo_knows(memo, &now))
		return RF_MATCH_NOTHING;
	rf_ask(question, RF_FILE_OPEN, bound, container);
	question->value[0] = now.fs_magic;
	question->value[1] = now.flags;
	question->value[RF_DIM_FILE_TYPE] = now.type;
	if (compat)
		question->value[RF_DIM_FACTS] = rf_compat_facts(task);
	question->known |= RF_KNOWS(0) | RF_KNOWS(1) | RF_KNOWS(RF_DIM_FILE_TYPE);
	answer = rf_match(question, NULL);
	if (answer == RF_MATCH_NOTHING && question->generation == now.generation)
		*memo = now;
	return answer;
}

/* Something may match, or the open is observed. */
static __always_inline void rf_second_look(struct rf_question *question, struct task_struct *task,
					   struct rf_task *bound, struct rf_container *container,
					   const struct rf_file *file, __u32 answer, long fd, __u8 flags)
{
	__u64 dentry = (__u64)RF_READ(struct file, file->file, f_path.dentry);
	struct rf_scratch *buffer = rf_scratch_get();
	__u32 route;

	if (!buffer) {
		rf_drop(RF_FILE_OPEN, RF_DROP_TABLE_FULL, bound->slot);
		return;
	}
	if (answer == RF_MATCH_ASK)
		answer = rf_ask_again(question, task, bound, buffer, dentry);
	if (answer == RF_MATCH_ASK)
		rf_ask_again(question, task, bound, buffer, dentry);
	flags |= rf_carry_out(question);
	rf_count_verdict(question);
	route = rf_route(RF_FILE_OPEN, bound->slot, container, question->action);
	if (route != RF_TO_NOWHERE) {
		if (!(question->known & RF_KNOWS_OBJECT))
			rf_path_in_filesystem(buffer, dentry);
		rf_file_record(task, bound, file, question, buffer, route, fd, flags);
	}
	rf_scratch_put(buffer);
}

static __always_inline int rf_opened(struct task_struct *task, bool compat)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct rf_container *container;
	struct rf_question question;
	struct rf_task *bound;
	struct rf_file file;
	__u32 answer, event = RF_FILE_OPEN, *level;
	__u64 at;
	long fd;

	bound = rf_bound(task);
	if (!bound)
		return 0;
	fd = rf_return_value(regs);
	if (fd < 0)
		return 0;
	container = rf_container_of(bound);
	if (!container)
		return 0;
	rf_count(bound->slot, RF_COUNT_OPEN);
	at = rf_file_of_fd(task, fd);
	if (!at)
		return 0;
	rf_file_read(&file, at);
	answer = rf_first_look(&question, task, bound, container, &file, compat);
	if (answer == RF_MATCH_NOTHING) {
		level = bpf_map_lookup_elem(&observe, &event);
		if (!level || *level == RF_OBSERVE_OFF)
			return 0;
		rf_ask(&question, RF_FILE_OPEN, bound, container);
	}
	rf_second_look(&question, task, bound, container, &file, answer, fd, compat ? RF_FLAG_COMPAT : 0);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit")
int open_exit(void *ctx)
{
	return rf_opened(bpf_get_current_task_btf(), false);
}

/*
 * The same for 32-bit callers, which per-syscall tracepoints do not see. Costs every call of every
 * process as every_call does: to be attached where 32-bit programs run in containers.
 */
SEC("tp_btf/sys_exit")
int BPF_PROG(compat_exit, struct pt_regs *regs, long ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_call call;

	if (!rf_in_compat(task) || ret < 0)
		return 0;
	rf_read_call(&call, regs, true);
	if (!rf_opens_file(call.nr))
		return 0;
	return rf_opened(task, true);
}
