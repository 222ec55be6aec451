/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Exceptions for a program hold for the program that the image brought, and not for one that
 * somebody drives: a process that was traced or written to, that got variables of the loader, or
 * that maps code which is not of its image. Its program counts as changed from then on
 * (RF_EXE_CHANGED). Known of the process, as its threads share their memory.
 */
#ifndef RINGFENCE_BORROWED_H
#define RINGFENCE_BORROWED_H

#include "object.h"
#include "tasks.h"

/* In rf_task.facts only, and of a process in `processes`. */
#define RF_PROGRAM_BORROWED (1U << 30)

/* Marks a process, by its number. */
int rf_borrow(__u32 tgid);
/* Returns 1 if the current process is marked, is traced, or is in no table. */
int rf_is_borrowed(void);
/* Returns 1 if the environment of the current process has variables of the loader (LD_*). */
int rf_has_loader_variables(struct rf_scratch *buffer);

#define RF_NAME_MEM RF_NAME8('m', 'e', 'm', 0, 0, 0, 0, 0)

/* The current task has opened a file of /proc for writing: the memory of a process may be changed.
 */
static __always_inline void rf_borrow_by_memory(const struct rf_file *file)
{
	struct dentry *dentry = (struct dentry *)file->dentry;
	__u32 name = 0;
	__u64 pid, task;

	bpf_probe_read_kernel(&name, sizeof(name), BPF_CORE_READ(dentry, d_name.name));
	if (name != (__u32)RF_NAME_MEM)
		return;
	pid = rf_pid_of_proc(file->inode);
	task = pid ? rf_task_of_pid(pid) : 0;
	if (task)
		rf_borrow(RF_READ(struct task_struct, task, tgid));
}

/*
 * The current task maps a file for execution. `facts`: rf_program_facts of the file. Code from
 * another mount than the root's, from memory, or that the image did not bring, is not of the image.
 */
static __always_inline void rf_borrow_by_code(struct task_struct *task, const struct rf_file *file,
					      __u32 facts)
{
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	__u64 root_mount =
		(__u64)BPF_CORE_READ(fs, root.mnt) - bpf_core_field_offset(struct mount, mnt);

	if (facts || rf_mount_of(file) != root_mount)
		rf_borrow(task->tgid);
}

#endif
