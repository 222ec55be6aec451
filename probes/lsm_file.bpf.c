// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Files that are opened, mapped for execution, received, or given an ioctl. Names of files:
 * lsm_dentry_ops.bpf.c.
 *
 * file_open comes before the file's own open and before O_TRUNC empties it. O_PATH reaches no hook:
 * such a descriptor gives no access to the file, and what is opened through it comes here.
 */
#include "include/vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "include/borrowed.h"
#include "include/lsm.h"
#include "include/lsm_look.h"
#include "include/mapping.h"
#include "include/own_root.h"
#include "include/program.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* __FMODE_EXEC in f_flags: a program or its interpreter, see process.exec */
#define RF_FMODE_EXEC 0x20
SEC("lsm/file_open")
int RF_HOOK(lsm_file_open, struct file *opened, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_query query;
	struct rf_armed *armed;
	struct rf_file file;
	__u32 answer, owner;
	bool compat;

	if (ret)
		return ret;
	armed = rf_bound(task);
	if (!armed)
		return 0;
	container = rf_container_of_current(&armed->task);
	if (!container || RF_FIELD(behind, opened, f_flags) & RF_FMODE_EXEC ||
	    RF_FIELD(behind, opened, f_mode) & RF_FMODE_NOACCOUNT)
		return 0;
	rf_count_call(armed->task.slot, RF_COUNT_OPEN);
	rf_file_read(&file, (__u64)opened);
	if (file.flags & RF_O_TRUNC && !(file.flags & RF_O_ACCMODE))
		file.flags |= RF_O_RDWR; /* it is emptied, although it was opened for reading */
	compat = rf_in_compat(task);
	owner = rf_mount_owner_or_outside(task, &armed->task, &file);
	if (rf_is_reached(&file, owner))
		owner = rf_reached_by_hook(file.inode, file.magic, owner);
	answer = rf_file_prefilter(&query, task, armed, container, &file, owner, compat);
	if (!rf_file_is_relevant(&query, RF_FILE_OPEN, answer, &armed->task, container))
		return 0;
	rf_file_decide(&query, task, armed, container, &file, answer, -1,
		       compat ? RF_FLAG_COMPAT : 0, RF_MECHANISM_LSM, false);
	return rf_lsm_result(&query);
}

static __always_inline int rf_lsm_file_decide(__u32 event, struct task_struct *task,
					      struct rf_armed *armed,
					      struct rf_container *container,
					      const struct rf_file *file)
{
	const struct rf_task *bound = &armed->task;
	bool compat = rf_in_compat(task);
	struct rf_query query;
	__u32 answer, owner;

	owner = rf_mount_owner_or_outside(task, bound, file);
	answer = rf_file_query(&query, event, task, bound, container, file,
			       rf_file_type(file, owner), compat);
	if (!rf_file_is_relevant(&query, event, answer, bound, container))
		return 0;
	rf_file_decide(&query, task, armed, container, file, answer, -1,
		       compat ? RF_FLAG_COMPAT : 0, RF_MECHANISM_LSM, false);
	return rf_lsm_result(&query);
}

/* Other events on an open file. */
static __always_inline int rf_lsm_file(__u32 event, __u64 of)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct rf_container *container;
	struct rf_armed *armed;
	struct rf_file file;
	int refused;

	armed = rf_bound(task);
	if (!armed)
		return 0;
	container = rf_container_of_current(&armed->task);
	if (!container)
		return 0;
	rf_file_read(&file, of);
	if (RF_READ(struct file, of, f_mode) & RF_FMODE_NOACCOUNT)
		rf_file_in_front(&file, of);
	refused = rf_lsm_file_decide(event, task, armed, container, &file);
	if (!refused && event == RF_FILE_MAP)
		rf_borrow_by_code(task, &file, rf_program_facts(&file));
	return refused;
}

/* Executable memory that is of no file. No rule tests it. */
static __always_inline int rf_map_nameless(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (rf_bound(task))
		rf_borrow(task->tgid);
	return 0;
}

static __always_inline int rf_map_code(__u64 file)
{
	return file ? rf_lsm_file(RF_FILE_MAP, file) : rf_map_nameless();
}

SEC("lsm/mmap_file")
int lsm_mmap_file(__u64 *ctx)
{
	struct file *file = rf_mapping_file(ctx);
	int ret = rf_mapping_result(ctx);

	if (ret)
		return ret;
	return rf_mapping_is_code(ctx, file) ? rf_map_code((__u64)file) : 0;
}

SEC("kprobe")
int backstop_lsm_mmap_file(struct pt_regs *regs)
{
	struct file *file = (struct file *)PT_REGS_PARM1(regs);
	int refused = 0;

	if (!rf_backstop_begin())
		return 0;
	if (rf_is_asked_for_code(PT_REGS_PARM2(regs), file))
		refused = rf_map_code((__u64)file);
	rf_backstop_end(refused);
	return 0;
}

/* A mapping that becomes executable afterwards. */
SEC("lsm/file_mprotect")
int RF_HOOK(lsm_file_mprotect, struct vm_area_struct *vma, unsigned long reqprot,
	    unsigned long prot, int ret)
{
	if (ret)
		return ret;
	return prot & RF_PROT_EXEC ? rf_map_code((__u64)BPF_CORE_READ(vma, vm_file)) : 0;
}

/* By SCM_RIGHTS, by pidfd_getfd, from a seccomp notifier: the current task receives it. */
SEC("lsm/file_receive")
int RF_HOOK(lsm_file_receive, struct file *file, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_file(RF_FILE_RECEIVE, (__u64)file);
}

static __always_inline int rf_lsm_ioctl(const struct file *file, unsigned int cmd)
{
	struct rf_lsm lsm;

	if (!rf_lsm_armed(&lsm))
		return 0;
	rf_lsm_query(&lsm, RF_SYS_IOCTL);
	rf_lsm_operand(&lsm, 0, cmd);
	rf_lsm_operand(&lsm, RF_DIM_IOCTL_TREE,
		       rf_whose_name((__u64)BPF_CORE_READ(file, f_path.dentry),
				     lsm.armed->container_root));
	return rf_lsm_decide(&lsm, 0);
}

SEC("lsm/file_ioctl")
int RF_HOOK(lsm_file_ioctl, struct file *file, unsigned int cmd, unsigned long arg, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_ioctl(file, cmd);
}

/* Since 6.8 32-bit callers come here (f1bb47a31dff); before, to file_ioctl. */
SEC("lsm/file_ioctl_compat")
int RF_HOOK(lsm_file_ioctl_compat, struct file *file, unsigned int cmd, unsigned long arg, int ret)
{
	if (ret)
		return ret;
	return rf_lsm_ioctl(file, cmd);
}
