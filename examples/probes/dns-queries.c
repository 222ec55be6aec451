/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * DNS queries by UDP to port 53, as the call sends them: in the asking task's own context. The name is read from the
 * process's memory when the call begins, so another thread could change it after that. Not seen: DNS by TCP, TLS or
 * HTTPS, and what an io_uring sends.
 */
#include <net/sock.h>
#include "ringfence.h"

#define DNS_PORT 0x3500 /* 53 in network order */
#define DNS_HEAD 12
#define NAME_MAX_LEN 128
#define BATCH 2 /* messages of one sendmmsg that are looked at: as many as resolvers send */

struct query {
	struct rf_task task;
	u8 server[16]; /* IPv4 as ::ffff:a.b.c.d */
	u32 type;
	char name[NAME_MAX_LEN];
};

BPF_PERCPU_ARRAY(scratch, struct query, 1);

static inline void of_ipv4(struct query *e, u32 address)
{
	__builtin_memset(e->server, 0, 10);
	e->server[10] = e->server[11] = 0xff;
	__builtin_memcpy(e->server + 12, &address, 4);
}

/* The server that the call names, if it is one of DNS. */
static inline int named(struct query *e, const void *user)
{
	struct sockaddr_in6 to = {};

	bpf_probe_read_user(&to, sizeof(struct sockaddr_in), user);
	if (to.sin6_port != DNS_PORT)
		return 0;
	if (to.sin6_family == AF_INET6) {
		bpf_probe_read_user(&to, sizeof(to), user);
		__builtin_memcpy(e->server, &to.sin6_addr, 16);
		return 1;
	}
	of_ipv4(e, ((struct sockaddr_in *)&to)->sin_addr.s_addr);
	return to.sin6_family == AF_INET;
}

/* The server that the socket is connected to, if it is one of DNS. */
static inline int connected(struct query *e, u32 fd)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct files_struct *all = rf_read(task->files);
	struct fdtable *table = rf_read(all->fdt);
	struct file **files = rf_read(table->fd);

	if (fd >= rf_read(table->max_fds))
		return 0;
	struct file *file = rf_read(files[fd]);
	struct inode *inode = rf_read(file->f_inode);

	if ((rf_read(inode->i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	struct socket *socket = rf_read(file->private_data);
	struct sock *sk = rf_read(socket->sk);

	if (rf_read(sk->__sk_common.skc_dport) != DNS_PORT)
		return 0;
	u16 family = rf_read(sk->__sk_common.skc_family);

	if (family == AF_INET)
		of_ipv4(e, rf_read(sk->__sk_common.skc_daddr));
	else if (family == AF_INET6)
		bpf_probe_read_kernel(e->server, 16, &sk->__sk_common.skc_v6_daddr);
	else
		return 0;
	return 1;
}

/* The wire's labels (3www7example3com0) as text. */
static inline int spell(struct query *e, const void *data, u64 len)
{
	u8 head[DNS_HEAD + 1] = {};
	u16 type = 0;
	u32 end = 0;

	if (len < DNS_HEAD + 5 || bpf_probe_read_user(head, sizeof(head), data))
		return 0;
	/* A question, and not an answer. */
	if (head[2] & 0x80 || !(head[4] | head[5]) || !head[DNS_HEAD])
		return 0;
	u32 left = head[DNS_HEAD];
	u64 size = len - sizeof(head);

	if (size > NAME_MAX_LEN - 1)
		size = NAME_MAX_LEN - 1;
	__builtin_memset(e->name, 0, sizeof(e->name));
	if (bpf_probe_read_user(e->name, size & (NAME_MAX_LEN - 1), data + sizeof(head)))
		return 0;
	for (u32 i = 0; i < NAME_MAX_LEN - 1; i++) {
		u8 letter = e->name[i];

		if (left) {
			left--;
			if (letter >= 'A' && letter <= 'Z')
				e->name[i] = letter + 32;
			continue;
		}
		left = letter;
		e->name[i] = letter ? '.' : 0;
		if (!letter) {
			end = i + 1;
			break;
		}
	}
	/* What follows the name is no part of it. */
	for (u32 i = 0; i < NAME_MAX_LEN; i++)
		if (end && i >= end)
			e->name[i] = 0;
	if (end)
		bpf_probe_read_user(&type, sizeof(type), data + sizeof(head) + end);
	e->type = (type & 0xff) << 8 | type >> 8;
	return 1;
}

static inline int look(u32 fd, const void *to, const void *data, u64 len)
{
	u32 zero = 0;
	struct query *e = scratch.lookup(&zero);

	if (!e || !(to ? named(e, to) : connected(e, fd)))
		return 0;
	if (rf_identify_current(&e->task) && spell(e, data, len))
		rf_send(e);
	return 0;
}

static inline int message(u32 fd, const struct user_msghdr *user)
{
	struct user_msghdr header = {};
	struct iovec part = {};

	bpf_probe_read_user(&header, sizeof(header), user);
	bpf_probe_read_user(&part, sizeof(part), header.msg_iov);
	return look(fd, header.msg_name, part.iov_base, part.iov_len);
}

TRACEPOINT_PROBE(syscalls, sys_enter_sendto)
{
	return look(args->fd, args->addr, args->buff, args->len);
}

TRACEPOINT_PROBE(syscalls, sys_enter_sendmsg)
{
	return message(args->fd, (void *)args->msg);
}

TRACEPOINT_PROBE(syscalls, sys_enter_sendmmsg)
{
	for (u32 i = 0; i < BATCH; i++)
		if (i < args->vlen)
			message(args->fd, &((struct mmsghdr *)args->mmsg)[i].msg_hdr);
	return 0;
}

TRACEPOINT_PROBE(syscalls, sys_enter_write)
{
	return look(args->fd, NULL, args->buf, args->count);
}
