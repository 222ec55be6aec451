/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of the host, and packets that no call names the address of. */
#include "adversary.h"
#include <arpa/inet.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

static socklen_t unix_address(const char *name, struct sockaddr_un *where)
{
	memset(where, 0, sizeof(*where));
	where->sun_family = AF_UNIX;
	strncpy(where->sun_path, name, sizeof(where->sun_path) - 1);
	if (*name != '@')
		return sizeof(*where);
	where->sun_path[0] = '\0';
	return offsetof(struct sockaddr_un, sun_path) + strlen(name);
}

static int listen_to(int fd, const char *text)
{
	char answer[256];
	ssize_t length = recv(fd, answer, sizeof(answer), 0);

	if (length > 0)
		show(answer, length);
	if (write(fd, text, strlen(text)) < 0)
		return result(-1);
	return result(length);
}

static int connect_to(int type, const char *name, const char *text)
{
	struct sockaddr_un where;
	socklen_t length = unix_address(name, &where);
	int fd = socket(AF_UNIX, type, 0);

	need(fd >= 0, "socket");
	if (connect(fd, (void *)&where, length))
		return result(-1);
	return listen_to(fd, text);
}

/* connect PATH [TEXT]; a name with @ is an abstract one. */
static int attack_connect(char **args)
{
	return connect_to(SOCK_STREAM, word(args, 0, "/tmp/s"), word(args, 1, "x"));
}

/* connect_seqpacket PATH [TEXT] */
static int attack_connect_seqpacket(char **args)
{
	return connect_to(SOCK_SEQPACKET, word(args, 0, "/tmp/s"), word(args, 1, "x"));
}

/* connect_link PATH [TEXT]: by a symbolic link of the container's. */
static int attack_connect_link(char **args)
{
	unlink("/tmp/innocent.sock");
	need(!symlink(word(args, 0, "/tmp/s"), "/tmp/innocent.sock"), "symlink");
	return connect_to(SOCK_STREAM, "/tmp/innocent.sock", word(args, 1, "x"));
}

/* connect_below DIRECTORY NAME [TEXT]: by a directory that gives no access. */
static int attack_connect_below(char **args)
{
	char name[108];
	int at = open(word(args, 0, "/tmp"), O_PATH | O_DIRECTORY);

	if (at < 0)
		return result(-1);
	snprintf(name, sizeof(name), "/proc/self/fd/%d/%s", at, word(args, 1, "s"));
	return connect_to(SOCK_STREAM, name, word(args, 2, "x"));
}

/* connect_cwd DIRECTORY NAME [TEXT] */
static int attack_connect_cwd(char **args)
{
	if (chdir(word(args, 0, "/tmp")))
		return result(-1);
	return connect_to(SOCK_STREAM, word(args, 1, "s"), word(args, 2, "x"));
}

/* connect_32bit PATH [TEXT] */
static int attack_connect_32bit(char **args)
{
	struct sockaddr_un *low;
	socklen_t length;
	int fd;

	need_32bit();
	low = (void *)low_text("................................................"
			       "................................................"
			       "................................................");
	length = unix_address(word(args, 0, "/tmp/s"), low);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	need(fd >= 0, "socket");
	if (call_32bit(362, fd, (long)low, length))
		return result(-1);
	return listen_to(fd, word(args, 1, "x"));
}

/* send PATH TEXT: a datagram, without connect. */
static int attack_send(char **args)
{
	struct sockaddr_un where;
	socklen_t length = unix_address(word(args, 0, "/tmp/s"), &where);
	const char *text = word(args, 1, "x");
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	need(fd >= 0, "socket");
	return result(sendto(fd, text, strlen(text), 0, (void *)&where, length));
}

/* connect_own: to a server of the container's own, which is benign. */
static int attack_connect_own(char **args)
{
	struct sockaddr_un where;
	socklen_t length;
	char name[64];
	int server = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(name, sizeof(name), "/tmp/own-%d.sock", getpid());
	length = unix_address(name, &where);
	need(server >= 0 && !bind(server, (void *)&where, length) && !listen(server, 1), "a server");
	if (!fork()) {
		int client = accept(server, NULL, NULL);

		_exit(write(client, "own", 3) != 3 || read(client, name, sizeof(name)) < 0);
	}
	return connect_to(SOCK_STREAM, name, word(args, 0, "x"));
}

static struct sockaddr_in inet_address(char **args)
{
	struct sockaddr_in where = { .sin_family = AF_INET, .sin_port = htons(number(args, 1, 80)) };

	need(inet_pton(AF_INET, word(args, 0, "127.0.0.1"), &where.sin_addr) == 1, "an address");
	return where;
}

/* udp ADDRESS PORT TEXT */
static int attack_udp(char **args)
{
	struct sockaddr_in where = inet_address(args);
	const char *text = word(args, 2, "x");
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	need(fd >= 0, "socket");
	return result(sendto(fd, text, strlen(text), 0, (void *)&where, sizeof(where)));
}

static int tcp(char **args)
{
	struct sockaddr_in where = inet_address(args);
	struct timeval patience = { 2, 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	need(fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)), "socket");
	if (connect(fd, (void *)&where, sizeof(where)))
		return result(-1);
	return listen_to(fd, word(args, 2, "x"));
}

/* tcp ADDRESS PORT [TEXT] */
static int attack_tcp(char **args)
{
	return tcp(args);
}

/* tcp_mapped ADDRESS PORT [TEXT]: with executable memory that no file is the source of. */
static int attack_tcp_mapped(char **args)
{
	void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(code != MAP_FAILED, "executable memory");
	return tcp(args);
}

static unsigned short checksum(const void *data, int length)
{
	const unsigned short *words = data;
	unsigned long sum = 0;

	for (; length > 1; length -= 2)
		sum += *words++;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Fills in a UDP packet with its IP header; returns the length. */
static int udp_packet(char *packet, const struct sockaddr_in *where, const char *from, const char *text)
{
	struct iphdr *ip = (void *)packet;
	struct udphdr *udp = (void *)(ip + 1);
	int length = sizeof(*ip) + sizeof(*udp) + strlen(text);

	memset(packet, 0, sizeof(*ip) + sizeof(*udp));
	ip->version = 4;
	ip->ihl = 5;
	ip->ttl = 64;
	ip->protocol = IPPROTO_UDP;
	ip->tot_len = htons(length);
	ip->daddr = where->sin_addr.s_addr;
	ip->saddr = from ? inet_addr(from) : 0;
	udp->source = htons(5353);
	udp->dest = where->sin_port;
	udp->len = htons(sizeof(*udp) + strlen(text));
	strcpy((char *)(udp + 1), text);
	ip->check = checksum(ip, sizeof(*ip));
	return length;
}

/* raw ADDRESS PORT TEXT [PROTOCOL]: a packet with headers of our own on a raw socket. */
static int attack_raw(char **args)
{
	struct sockaddr_in where = inet_address(args);
	char packet[1024];
	int fd = socket(AF_INET, SOCK_RAW, number(args, 3, IPPROTO_RAW)), on = 1;
	int length = udp_packet(packet, &where, NULL, word(args, 2, "x"));

	if (fd < 0 || setsockopt(fd, IPPROTO_IP, IP_HDRINCL, &on, sizeof(on)))
		return result(-1);
	return result(sendto(fd, packet, length, 0, (void *)&where, sizeof(where)));
}

/* raw_aside ADDRESS PORT TEXT: the same, and the call names another address than the packet. */
static int attack_raw_aside(char **args)
{
	struct sockaddr_in where = inet_address(args), aside = where;
	char packet[1024];
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	int length = udp_packet(packet, &where, NULL, word(args, 2, "x"));

	need(inet_pton(AF_INET, "192.0.2.9", &aside.sin_addr) == 1, "an address");
	if (fd < 0)
		return result(-1);
	return result(sendto(fd, packet, length, 0, (void *)&aside, sizeof(aside)));
}

/* raw_udp ADDRESS PORT TEXT: the kernel makes the IP header. */
static int attack_raw_udp(char **args)
{
	struct sockaddr_in where = inet_address(args);
	char packet[1024];
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
	int length = udp_packet(packet, &where, NULL, word(args, 2, "x")) - sizeof(struct iphdr);

	if (fd < 0)
		return result(-1);
	return result(sendto(fd, packet + sizeof(struct iphdr), length, 0, (void *)&where, sizeof(where)));
}

/* raw_connected ADDRESS PORT TEXT: connect first, then send. */
static int attack_raw_connected(char **args)
{
	struct sockaddr_in where = inet_address(args);
	char packet[1024];
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
	int length = udp_packet(packet, &where, NULL, word(args, 2, "x")) - sizeof(struct iphdr);

	if (fd < 0 || connect(fd, (void *)&where, sizeof(where)))
		return result(-1);
	return result(send(fd, packet + sizeof(struct iphdr), length, 0));
}

/* ping ADDRESS: an ICMP echo on a raw socket, which is benign. */
static int attack_ping(char **args)
{
	struct sockaddr_in where = inet_address(args);
	struct icmphdr echo = { .type = ICMP_ECHO };
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);

	echo.checksum = checksum(&echo, sizeof(echo));
	if (fd < 0)
		return result(-1);
	return result(sendto(fd, &echo, sizeof(echo), 0, (void *)&where, sizeof(where)));
}

/* tun ADDRESS PORT TEXT: a packet that an interface of our own receives. */
static int attack_tun(char **args)
{
	struct sockaddr_in where = inet_address(args), own = { .sin_family = AF_INET };
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	char packet[1024];
	int length = udp_packet(packet, &where, "198.51.100.2", word(args, 2, "x"));
	int fd, control = socket(AF_INET, SOCK_DGRAM, 0);

	mknod("/tmp/tun", S_IFCHR | 0600, makedev(10, 200));
	fd = open("/tmp/tun", O_RDWR);
	if (fd < 0)
		return result(-1);
	strcpy(request.ifr_name, "rfadv0");
	if (ioctl(fd, TUNSETIFF, &request))
		return result(-1);
	own.sin_addr.s_addr = inet_addr("198.51.100.1");
	memcpy(&request.ifr_addr, &own, sizeof(own));
	need(!ioctl(control, SIOCSIFADDR, &request), "an address");
	own.sin_addr.s_addr = inet_addr("255.255.255.0");
	memcpy(&request.ifr_addr, &own, sizeof(own));
	need(!ioctl(control, SIOCSIFNETMASK, &request), "a netmask");
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	need(!ioctl(control, SIOCSIFFLAGS, &request), "the interface up");
	return result(write(fd, packet, length));
}

/* uevent TEXT [GROUP]: as if the kernel had announced a device; GROUP 0 asks the kernel to send it. */
static int attack_uevent(char **args)
{
	struct sockaddr_nl where = { .nl_family = AF_NETLINK, .nl_groups = number(args, 1, 0) };
	char text[512];
	struct nlmsghdr *header = (void *)text;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT), length;

	need(fd >= 0, "socket");
	memset(text, 0, sizeof(text));
	length = sprintf(text + (where.nl_groups ? 0 : NLMSG_HDRLEN), "add@/devices/virtual/%s", word(args, 0, "x"));
	if (where.nl_groups)
		return result(sendto(fd, text, length + 1, 0, (void *)&where, sizeof(where)));
	header->nlmsg_len = NLMSG_HDRLEN + length + 1;
	header->nlmsg_flags = NLM_F_REQUEST;
	return result(sendto(fd, text, header->nlmsg_len, 0, (void *)&where, sizeof(where)));
}

/* netlink: a lawful request, to route. */
static int attack_netlink(char **args)
{
	struct sockaddr_nl where = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	(void)args;
	return result(fd < 0 ? -1 : bind(fd, (void *)&where, sizeof(where)));
}

const struct attack socket_attacks[] = {
	{ "connect", attack_connect },
	{ "connect_seqpacket", attack_connect_seqpacket },
	{ "connect_link", attack_connect_link },
	{ "connect_below", attack_connect_below },
	{ "connect_cwd", attack_connect_cwd },
	{ "connect_32bit", attack_connect_32bit },
	{ "connect_own", attack_connect_own },
	{ "send", attack_send },
	{ "udp", attack_udp },
	{ "tcp", attack_tcp },
	{ "tcp_mapped", attack_tcp_mapped },
	{ "raw", attack_raw },
	{ "raw_aside", attack_raw_aside },
	{ "raw_udp", attack_raw_udp },
	{ "raw_connected", attack_raw_connected },
	{ "ping", attack_ping },
	{ "tun", attack_tun },
	{ "uevent", attack_uevent },
	{ "netlink", attack_netlink },
	{ NULL, NULL },
};
