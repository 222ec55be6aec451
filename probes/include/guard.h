/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the agent depends on: its process, its maps, programs and links, its files, its cgroup. An
 * attempt of a container on one of these is handled here, whatever the policies say: by hooks where
 * BPF-LSM is available (lsm_self.bpf.c), else at calls and their ends (self.bpf.c). guard.bpf.c
 * decides what is guarded, and reports.
 */
#ifndef RINGFENCE_GUARD_H
#define RINGFENCE_GUARD_H

#include "emit.h"
#include "object.h"
#include "syscalls.h"

/* rf_config.guard */
enum rf_guard_mode {
	RF_GUARD_OFF = 0,
	RF_GUARD_ALERT = 1,
	RF_GUARD_DENY = 2,
};

/* rf_guard_key.device of an object that is not a file. No device has such a number. */
#define RF_GUARD_MAP 0xffffffff00000001	    /* id: of a map */
#define RF_GUARD_PROGRAM 0xffffffff00000002 /* id: of a program */
#define RF_GUARD_LINK 0xffffffff00000003    /* id: of a link */
#define RF_GUARD_NAME 0xffffffff00000004    /* id: hash of the end of a path (rf_hash_ends) */
#define RF_GUARD_LOOK 0xffffffff00000005    /* id: hash of the name of a file of /proc/PID */
#define RF_GUARD_GROUP 0xffffffff00000006   /* id: a process group */

struct rf_guard_key {
	__u64 device; /* s_dev of the filesystem; RF_GUARD_* of what is none */
	__u64 id;     /* inode; 0: the device itself */
};

/* Values of `guards`. The agent keeps the number of its round in the upper bits. */
enum rf_guard_kind {
	RF_GUARD_KIND = 0xff,
	RF_GUARD_DEVICE = 1, /* something on it is guarded */
	RF_GUARD_PINS = 2,   /* the same, and it is the pins' own filesystem */
	RF_GUARD_TREE = 3,   /* a directory with everything below it */
	RF_GUARD_FILE = 4,
	RF_GUARD_ABOVE = 5,  /* a directory above one of these: it must not be moved */
	RF_GUARD_CGROUP = 6, /* a cgroup's directory: the files in it */
	RF_GUARD_CGROUP_ABOVE = 12,
	RF_GUARD_OBJECT = 7, /* a map, a program, a link */
	RF_GUARD_PART = 8,   /* of a name: its last component, or the last two */
	RF_GUARD_WHOLE = 9,  /* of a name: enough components that it can hardly mean another file */
	RF_GUARD_TICKET = 10, /* in guard_wanted: see rf_guard_state */
	/* a file that was reached by its handle, or is too deep; its place is unknown */
	RF_GUARD_NAMELESS = 11,
};

struct map_guards {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct rf_guard_key);
	__type(value, __u32);
};
extern struct map_guards guards SEC(".maps");

/* The ticket file, which must not be read while the agent runs, and whether it runs. */
struct rf_guard_state {
	__u64 ticket_magic; /* of its filesystem; 0: there is none */
	__u64 ticket_device;
	__u64 ticket_inode;
	__u64 gone; /* the agent that loaded the programs has ended */
};

struct map_guard_state {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rf_guard_state);
};
extern struct map_guard_state guard_state SEC(".maps");

/*
 * Descriptors of the agent that guard_register inspects. The kernel identifies objects exactly;
 * user space has at best st_dev.
 */
enum rf_guard_limit {
	RF_GUARD_WANTED = 64,
};
struct rf_guard_wanted {
	__s32 fd;
	__u32 kind; /* RF_GUARD_*, with the agent's round; 0: the end */
};

struct map_guard_wanted {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_GUARD_WANTED);
	__type(key, __u32);
	__type(value, struct rf_guard_wanted);
};
extern struct map_guard_wanted guard_wanted SEC(".maps");

/* How a call names its target. */
enum rf_guarded {
	RF_GUARDED_PROCESS = 1,	    /* arg[0]: a process */
	RF_GUARDED_PIDFD = 2,	    /* arg[0] */
	RF_GUARDED_PRIORITY = 3,    /* arg[0]: PRIO_*, arg[1]: who */
	RF_GUARDED_IO_PRIORITY = 4, /* arg[0]: IOPRIO_WHO_*, arg[1]: who */
	RF_GUARDED_PATHS = 5, /* arg[0]: directory, arg[1]: path, arg[2] and arg[3]: another one */
	RF_GUARDED_FILE = 6,  /* arg[0]: a descriptor */
	RF_GUARDED_LOAD = 7,  /* arg[0]: the command of bpf(2) */
	/* in arg[]: none, or relative to the working directory */
	RF_GUARDED_NONE = 0xff,
};

struct rf_guarded_call {
	__u8 how;  /* RF_GUARDED_*; 0: not inspected */
	__u8 what; /* enum rf_tamper */
	/* the argument that is not 0 if the call changes something; RF_GUARDED_NONE: any */
	__u8 needs;
	__u8 pad;
	__u8 arg[4];
};

struct map_guarded_calls {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RF_SYSCALL_NRS);
	__type(key, __u32);
	__type(value, struct rf_guarded_call);
};
extern struct map_guarded_calls guarded_calls SEC(".maps");

#define RF_MAGIC_BPF 0xcafe4a11

/* The kernel's objects behind a descriptor or a hook's argument. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct bpf_map {
	u32 id;
};
struct bpf_prog_aux {
	u32 id;
};
struct bpf_prog {
	struct bpf_prog_aux *aux;
};
struct bpf_link {
	u32 id;
};
#pragma clang attribute pop

/* Objects are given by address, as numbers: see rf_address. */

/* RF_GUARD_* of a file, by itself and by the directories above it; 0: not guarded. */
__u32 rf_guard_kind(__u64 dentry);

/*
 * The current task makes an attempt on the agent. If the task is armed: decides, counts, reports.
 * `dentry`: the file; 0: none. `text`: 1: the task's own buffer holds the path in `name`;
 * 0: none. `hooked`: at an LSM hook, which can refuse. Returns the verdict.
 */
int rf_guard_hit(__u32 what, __u64 detail, __u64 dentry, __u32 text, __u32 hooked);

/*
 * Enum rf_tamper of an open by the current, armed task; 0: not guarded. The caller reports, as the
 * stack has no space for it below this.
 */
__u32 rf_guard_opened(const struct rf_file *file);

static __always_inline struct rf_guard_state *rf_guard_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&guard_state, &zero);
}

/* Returns true for any thread of the agent. */
static __always_inline bool rf_task_is_agent(__u64 task)
{
	if ((__u32)RF_READ(struct task_struct, task, tgid) != config.agent_pid)
		return false;
	return RF_READ(struct task_struct, task, group_leader, start_boottime) -
		       config.agent_start_ns <
	       RF_TICK_NS;
}

/* An object of BPF, by its id. */
static __always_inline bool rf_is_guarded_object(__u64 kind, __u32 id)
{
	struct rf_guard_key key = { .device = kind, .id = id };

	return bpf_map_lookup_elem(&guards, &key);
}

/* Returns true if an open needs a closer look. Most are for reading and not on procfs. */
static __always_inline bool rf_guard_is_relevant(const struct rf_file *file, __u32 writes)
{
	struct rf_guard_state *state;

	if (!config.guard)
		return false;
	if (writes || file->magic == RF_MAGIC_PROC)
		return true;
	state = rf_guard_state();
	return state && state->ticket_magic && file->magic == state->ticket_magic;
}

#endif
