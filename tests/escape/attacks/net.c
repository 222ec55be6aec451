/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets, in a network namespace without connectivity. */
#include "attacks.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

/* socket FAMILY [TYPE [PROTOCOL]] */
static int attack_socket(char **args)
{
	try_now("socket");
	return result(socket(number(args, 0, AF_INET), number(args, 1, SOCK_STREAM), number(args, 2, 0)));
}

/* socketcall FAMILY [TYPE]: the same by the 32-bit call that takes its arguments from memory. */
static int attack_socketcall(char **args)
{
	unsigned int *low = (unsigned int *)0x10000000;

	need(syscall(SYS_mmap, low, 4096, 3 /* rw */, 0x32 /* private, fixed, anonymous */, -1, 0) == (long)low,
	     "memory below 4 GiB");
	low[0] = number(args, 0, AF_INET);
	low[1] = number(args, 1, SOCK_STREAM);
	low[2] = 0;
	try_now("socketcall");
	return result(call_32bit(102, 1 /* SYS_SOCKET */, (long)low, 0));
}

static socklen_t parse_address(const char *text, int port, struct sockaddr_storage *where)
{
	struct sockaddr_in *v4 = (void *)where;
	struct sockaddr_in6 *v6 = (void *)where;

	memset(where, 0, sizeof(*where));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	need(inet_pton(AF_INET6, text, &v6->sin6_addr) == 1, "an address");
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	return sizeof(*v6);
}

/* connect ADDRESS PORT: start a connection without waiting. */
static int attack_connect(char **args)
{
	struct sockaddr_storage where;
	socklen_t length = parse_address(word(args, 0, "169.254.169.254"), number(args, 1, 80), &where);
	int fd = socket(where.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	need(fd >= 0, "socket");
	try_now("connect");
	return result(connect(fd, (void *)&where, length));
}

/* storm MILLISECONDS ADDRESS PORT: connect as often as possible, and print the number. */
static int attack_storm(char **args)
{
	struct sockaddr_storage where;
	socklen_t length = parse_address(word(args, 1, "169.254.169.254"), number(args, 2, 80), &where);
	int fd = socket(where.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct timespec now;
	long long end;
	long times = 0;

	need(fd >= 0, "socket");
	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now.tv_sec * 1000000000LL + now.tv_nsec + number(args, 0, 1000) * 1000000LL;
	try_now("connect");
	do {
		need(connect(fd, (void *)&where, length) == -1 && errno == EPERM, "a refusal");
		times++;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec * 1000000000LL + now.tv_nsec < end);
	return result(times);
}

static int attack_bind_port(char **args)
{
	struct sockaddr_storage where;
	socklen_t length = parse_address(word(args, 0, "127.0.0.1"), number(args, 1, 0), &where);
	int fd = socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	need(fd >= 0, "socket");
	try_now("bind");
	return result(bind(fd, (void *)&where, length));
}

/* send ADDRESS PORT: a datagram of one byte. */
static int attack_send(char **args)
{
	struct sockaddr_storage where;
	socklen_t length = parse_address(word(args, 0, "127.0.0.1"), number(args, 1, 53), &where);
	int fd = socket(where.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	need(fd >= 0, "socket");
	try_now("sendto");
	return result(sendto(fd, "x", 1, MSG_DONTWAIT, (void *)&where, length));
}

/* unix PATH [listen]: connect to it, or to an own listener; a first @ means an abstract name. */
static int attack_unix(char **args)
{
	const char *name = word(args, 0, "/run/docker.sock");
	struct sockaddr_un where = { .sun_family = AF_UNIX };
	socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	need(fd >= 0 && strlen(name) < sizeof(where.sun_path), "socket");
	memcpy(where.sun_path, name, strlen(name));
	if (*name == '@')
		where.sun_path[0] = 0;
	else
		length++;
	if (args[0] && args[1]) {
		int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		need(server >= 0 && !bind(server, (void *)&where, length) && !listen(server, 1), "listen");
	}
	try_now("connect");
	return result(connect(fd, (void *)&where, length));
}

/* take SOCKET PATH: receive a directory descriptor by a unix socket, and open PATH below it. */
static int attack_take(char **args)
{
	const char *name = word(args, 0, "/run/hand.sock");
	struct sockaddr_un where = { .sun_family = AF_UNIX };
	char byte, room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec text = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &text, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)
	};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct cmsghdr *head;

	strncpy(where.sun_path, name, sizeof(where.sun_path) - 1);
	need(fd >= 0 && !connect(fd, (void *)&where, sizeof(where)), "who hands over");
	try_now("recvmsg");
	if (recvmsg(fd, &message, 0) != 1)
		return result(-1);
	head = CMSG_FIRSTHDR(&message);
	if (!head) {
		/* The kernel drops descriptors that the receiver is not permitted to get. */
		errno = message.msg_flags & MSG_CTRUNC ? EPERM : ENOMSG;
		return result(-1);
	}
	return result(openat(*(int *)CMSG_DATA(head), word(args, 1, "secret"), O_RDONLY | O_CLOEXEC));
}

const struct attack net_attacks[] = {
	{ "socket", attack_socket, "a socket of FAMILY [TYPE [PROTOCOL]]" },
	{ "socketcall", attack_socketcall, "a socket of FAMILY by the 32-bit call" },
	{ "connect", attack_connect, "begin to connect to ADDRESS PORT" },
	{ "storm", attack_storm, "connect for MILLISECONDS to ADDRESS PORT, refused each time" },
	{ "bind_port", attack_bind_port, "bind to ADDRESS PORT" },
	{ "send", attack_send, "send a datagram to ADDRESS PORT" },
	{ "take", attack_take, "be handed a directory by SOCKET, open PATH below it" },
	{ "unix", attack_unix, "connect to a unix socket" },
	{ NULL, NULL, NULL },
};
