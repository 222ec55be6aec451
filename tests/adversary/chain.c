/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that die for one call each, and leave its effect to the next: they share descriptors,
 * directories and memory. chain HOW WHAT ID [PATH]
 *
 * HOW: `turns`: each process begins when the one before has ended; `rush`: all of them wait
 * without a call, and begin a moment after each other.
 * WHAT: see `chains`. ID: of a map or link. PATH: of a pin, instead of the id.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DESCRIPTOR 40 /* free, and the lowest that is: those below are taken */
#define STEPS 3
#define STACK 65536

struct shared {
	volatile int begun[STEPS];
	uint64_t key, value;
	uint32_t index;
};
static struct shared *shared;
static uint32_t id;
static const char *path;

static int bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static void get_map(void)
{
	union bpf_attr attr = { .map_id = id };

	bpf(BPF_MAP_GET_FD_BY_ID, &attr);
}

static void get_link(void)
{
	union bpf_attr attr = { .link_id = id };

	bpf(BPF_LINK_GET_FD_BY_ID, &attr);
}

static void get_pin(void)
{
	union bpf_attr attr = { .pathname = (uintptr_t)path };

	bpf(BPF_OBJ_GET, &attr);
}

static union bpf_attr entry(void)
{
	union bpf_attr attr = { .map_fd = DESCRIPTOR,
				.key = (uintptr_t)&shared->key,
				.value = (uintptr_t)&shared->value };

	return attr;
}

static void update(void)
{
	union bpf_attr attr = entry();

	bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

static void update_batch(void)
{
	union bpf_attr attr = { .batch = { .map_fd = DESCRIPTOR,
					   .count = 1,
					   .keys = (uintptr_t)&shared->key,
					   .values = (uintptr_t)&shared->value } };

	bpf(BPF_MAP_UPDATE_BATCH, &attr);
}

static void remove_entry(void)
{
	union bpf_attr attr = entry();

	attr.value = 0;
	bpf(BPF_MAP_DELETE_ELEM, &attr);
}

static void take(void)
{
	union bpf_attr attr = entry();

	bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &attr);
}

static void map_and_write(void)
{
	long size = 1 << 20;
	uint32_t *slots = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, DESCRIPTOR, 0);

	if (slots == MAP_FAILED)
		return;
	for (long at = 0; at < size / 4; at += 152 / 4) /* struct rf_container */
		if (slots[at])
			slots[at + 4] = slots[at + 5] = 63; /* profile */
}

static void detach(void)
{
	union bpf_attr attr = { .link_detach = { .link_fd = DESCRIPTOR } };

	bpf(BPF_LINK_DETACH, &attr);
}

#define INSN(c, d, s, o, i)                                               \
	{                                                                 \
		.code = c, .dst_reg = d, .src_reg = s, .off = o, .imm = i \
	}

/* A program that writes 0 to the first word of entry 0. */
static void load(void)
{
	struct bpf_insn code[] = {
		INSN(0x62, 10, 0, -4, 0), /* *(u32 *)(r10 - 4) = 0 */
		INSN(0x18, 1, BPF_PSEUDO_MAP_FD, 0, DESCRIPTOR),
		INSN(0, 0, 0, 0, 0),
		INSN(0xbf, 2, 10, 0, 0),
		INSN(0x07, 2, 0, 0, -4), /* r2 = r10 - 4 */
		INSN(0x85, 0, 0, 0, 1),	 /* map_lookup_elem */
		INSN(0x15, 0, 0, 2, 0),	 /* if r0 == 0 goto end */
		INSN(0xb7, 1, 0, 0, 0),
		INSN(0x7b, 0, 1, 0, 0), /* *(u64 *)r0 = 0 */
		INSN(0xb7, 0, 0, 0, 0),
		INSN(0x95, 0, 0, 0, 0),
	};
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
				.insn_cnt = sizeof(code) / sizeof(code[0]),
				.insns = (uintptr_t)code,
				.license = (uintptr_t) "GPL" };

	bpf(BPF_PROG_LOAD, &attr);
}

static void run(void)
{
	char packet[64] = { 0 };
	union bpf_attr attr = {
		.test = { .prog_fd = DESCRIPTOR + 1, .data_size_in = sizeof(packet), .data_in = (uintptr_t)packet }
	};

	bpf(BPF_PROG_TEST_RUN, &attr);
}

static const struct {
	const char *name;
	void (*step[STEPS])(void);
} chains[] = {
	{ "update", { get_map, update } },	 { "update-batch", { get_map, update_batch } },
	{ "delete", { get_map, remove_entry } }, { "take", { get_map, take } },
	{ "mmap", { get_map, map_and_write } },	 { "load", { get_map, load, run } },
	{ "pin-update", { get_pin, update } },	 { "pin-load", { get_pin, load, run } },
	{ "detach", { get_link, detach } },
};

static void (*const *steps)(void);
static int rush, threads;

static int process(void *argument)
{
	long number = (long)argument;

	if (rush && number) {
		unsigned long wait = rand() % 20000;

		while (!shared->begun[number - 1])
			;
		while (wait--)
			__asm__ volatile("" ::: "memory");
	}
	shared->begun[number] = 1;
	steps[number]();
	if (threads)
		for (;;)
			;
	return 0;
}

int main(int argc, char **argv)
{
	unsigned int i;

	if (argc < 4)
		return 2;
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	threads = !strcmp(argv[1], "threads");
	rush = threads || !strcmp(argv[1], "rush");
	id = atoi(argv[3]);
	path = argc > 4 ? argv[4] : "";
	shared->key = argc > 5 ? strtoull(argv[5], NULL, 10) : 0;
	srand(getpid());
	for (i = 0; i < sizeof(chains) / sizeof(chains[0]); i++)
		if (!strcmp(argv[2], chains[i].name))
			steps = chains[i].step;
	while (dup(0) < DESCRIPTOR - 1)
		;
	for (long number = 0; number < STEPS && steps[number]; number++) {
		char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		int how = threads ? CLONE_VM | CLONE_SIGHAND | CLONE_THREAD : SIGCHLD;
		int child = clone(process, stack + STACK, CLONE_FILES | CLONE_FS | how, (void *)number);

		if (!rush)
			waitpid(child, NULL, 0);
	}
	if (threads)
		sleep(2);
	while (wait(NULL) > 0)
		;
	return 0;
}
