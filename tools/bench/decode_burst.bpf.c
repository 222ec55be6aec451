/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fills a ring with records of the real sizes, as fast as one CPU can: each getppid() of process `target`
 * sends `burst` copies of the agent's templates. time_ns is the number of the record, so that a reader
 * detects missing and duplicate ones.
 */
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

enum { MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_RINGBUF = 27 };
#include <bpf/bpf_helpers.h>

#define TEMPLATE 640
#define TASK 120
#define EXEC 640
#define FILE_ 392
#define NET 112
#define SYSCALL 432
#define AT_TIME 16
#define AT_PID 40
#define AT_CHILD 104
#define PIDS 4096

const volatile __u32 target = 0;
const volatile __u32 burst = 0;

struct template
{
	__u8 bytes[TEMPLATE];
};

/* fork, exec, open, open, open, connect, syscall, exit */
struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct template);
} templates SEC(".maps");

struct {
	__uint(type, MAP_RINGBUF);
	__uint(max_entries, 4 << 20);
} ring SEC(".maps");

/* 0 tried, 1 sent, 2 no room */
struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline __u64 count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counts, &which);

	return n ? (*n)++ : 0;
}

#define SEND(size)                                                                                \
	do {                                                                                      \
		__u8 *record = bpf_ringbuf_reserve(&ring, size, 0);                               \
		if (!record) {                                                                    \
			count(2);                                                                 \
			break;                                                                    \
		}                                                                                 \
		bpf_probe_read_kernel(record, size, from);                                        \
		*(__u64 *)(record + AT_TIME) = number;                                            \
		*(__u32 *)(record + AT_PID) = 1 + number / 8 % PIDS;                              \
		if (size == TASK)                                                                 \
			*(__u64 *)(record + AT_CHILD) = (1 + number / 8 % PIDS) * 0x100000001ULL; \
		bpf_ringbuf_submit(record, 0);                                                    \
		count(1);                                                                         \
	} while (0)

static __always_inline void send(__u64 number)
{
	__u32 which = number & 7;
	struct template *from = bpf_map_lookup_elem(&templates, &which);

	if (!from)
		return;
	if (which == 0 || which == 7)
		SEND(TASK);
	else if (which == 1)
		SEND(EXEC);
	else if (which < 5)
		SEND(FILE_);
	else if (which == 5)
		SEND(NET);
	else
		SEND(SYSCALL);
}

SEC("tracepoint")
int getppid_enter(void *ctx)
{
	if (bpf_get_current_pid_tgid() >> 32 != target)
		return 0;
	for (__u32 i = 0; i < 256; i++) {
		if (i >= burst)
			break;
		send(count(0));
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
