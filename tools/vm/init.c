/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1 of a test machine. It loads the modules of its initrd, mounts the
 * host's root (virtiofs, read-only) below an overlay on a tmpfs, makes that the
 * root, runs one command on the console, reports "rc=N" on the second serial
 * port (of arm64: the first beside the console, a PL011) and powers off. What to do is in /cmd, which tools/vm/machine.py writes:
 * conf (key=value lines), argv and env (NUL separated).
 *
 * gcc -O2 -static -o vminit init.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#ifdef __aarch64__
#define REPORT_PORT "/dev/ttyS0"
#else
#define REPORT_PORT "/dev/ttyS1"
#endif
#define FAILED 125 /* rc when the machine itself did not come up */

static void report(const char *format, ...)
{
	struct termios raw;
	va_list args;
	int fd = open(REPORT_PORT, O_WRONLY | O_NOCTTY);

	if (fd < 0)
		return;
	if (!tcgetattr(fd, &raw)) {
		cfmakeraw(&raw);
		tcsetattr(fd, TCSANOW, &raw);
	}
	va_start(args, format);
	vdprintf(fd, format, args);
	va_end(args);
	tcdrain(fd);
	close(fd);
}

static void power_off(void)
{
	sync();
	klogctl(6, NULL, 0); /* no more kernel messages on the console */
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void die(const char *what)
{
	fprintf(stderr, "vminit: %s: %s\n", what, strerror(errno));
	report("rc=%d %s: %s\n", FAILED, what, strerror(errno));
	power_off();
}

/* A whole file and its length; NULL where there is none. Never freed: it is used until the end. */
static char *slurp(const char *path, size_t *length)
{
	size_t room = 1 << 16, used = 0;
	char *text = malloc(room + 1);
	int fd = open(path, O_RDONLY);
	ssize_t got;

	if (fd < 0)
		return NULL;
	while ((got = read(fd, text + used, room - used)) > 0) {
		used += got;
		if (used == room)
			text = realloc(text, (room *= 2) + 1);
	}
	close(fd);
	text[used] = 0;
	if (length)
		*length = used;
	return text;
}

static void make_directories(const char *path)
{
	char part[512];

	snprintf(part, sizeof(part), "%s", path);
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(part, 0755);
		*slash = '/';
	}
	mkdir(part, 0755);
}

static int try_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *options)
{
	make_directories(target);
	if (!mount(source, target, type, flags, options))
		return 0;
	fprintf(stderr, "vminit: mount %s on %s (%s): %s\n", source, target, type, strerror(errno));
	return -1;
}

static void load_module(const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/mod/%s.ko", name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return;
	if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
		fprintf(stderr, "vminit: module %s: %s\n", name, strerror(errno));
	close(fd);
}

/* Shows a directory of the host's root that a tmpfs of the guest hides, read-only. */
static void keep(const char *directory)
{
	char from[512], to[512];

	snprintf(from, sizeof(from), "/ro%s", directory);
	snprintf(to, sizeof(to), "/new%s", directory);
	try_mount(from, to, "none", MS_BIND | MS_REC, NULL);
}

/* Modules of the kernel that runs, where modprobe looks for them. */
static void kernel_modules(const char *directory)
{
	char from[512], to[512];
	struct utsname running;

	uname(&running);
	try_mount("tmpfs", "/new/lib/modules", "tmpfs", 0, "mode=755");
	snprintf(from, sizeof(from), "/ro%s", directory);
	snprintf(to, sizeof(to), "/new/lib/modules/%s", running.release);
	try_mount(from, to, "none", MS_BIND, NULL);
}

static void apply(const char *key, char *value, const char **cwd)
{
	char path[512], *colon;

	if (!strcmp(key, "cwd")) {
		*cwd = value;
	} else if (!strcmp(key, "tmpfs")) {
		snprintf(path, sizeof(path), "/new%s", value);
		try_mount("tmpfs", path, "tmpfs", 0, "mode=1777");
	} else if (!strcmp(key, "keep")) {
		keep(value);
	} else if (!strcmp(key, "modules")) {
		kernel_modules(value);
	} else if (!strcmp(key, "share") && (colon = strchr(value, ':'))) {
		*colon = 0;
		snprintf(path, sizeof(path), "/new%s", colon + 1);
		try_mount(value, path, "virtiofs", 0, NULL);
	}
}

static void mount_system(void)
{
	static const struct {
		const char *source, *target, *type, *options;
	} system[] = {
		{ "devpts", "/new/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666" },
		{ "shm", "/new/dev/shm", "tmpfs", "mode=1777" },
		{ "run", "/new/run", "tmpfs", "mode=755" },
		{ "cgroup2", "/new/sys/fs/cgroup", "cgroup2", NULL },
		{ "securityfs", "/new/sys/kernel/security", "securityfs", NULL },
		{ "bpf", "/new/sys/fs/bpf", "bpf", "mode=700" },
		{ "debugfs", "/new/sys/kernel/debug", "debugfs", NULL },
		{ "tracefs", "/new/sys/kernel/tracing", "tracefs", NULL },
	};

	mount("/proc", "/new/proc", NULL, MS_MOVE, NULL);
	mount("/sys", "/new/sys", NULL, MS_MOVE, NULL);
	mount("/dev", "/new/dev", NULL, MS_MOVE, NULL);
	for (size_t i = 0; i < sizeof(system) / sizeof(*system); i++)
		try_mount(system[i].source, system[i].target, system[i].type, 0, system[i].options);
	symlink("/proc/self/fd", "/new/dev/fd");
	symlink("/proc/self/fd/0", "/new/dev/stdin");
	symlink("/proc/self/fd/1", "/new/dev/stdout");
	symlink("/proc/self/fd/2", "/new/dev/stderr");
}

static void mount_root(void)
{
	mkdir("/new", 0755);
	if (try_mount("hostroot", "/ro", "virtiofs", MS_RDONLY, NULL))
		die("mount the host's root");
	try_mount("tmpfs", "/rw", "tmpfs", 0, "size=80%,mode=755");
	mkdir("/rw/upper", 0755);
	mkdir("/rw/work", 0755);
	if (try_mount("overlay", "/new", "overlay", 0, "lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work"))
		die("mount the overlay");
	for (const char *name = "proc\0sys\0dev\0run\0tmp\0"; *name; name += strlen(name) + 1) {
		char path[32];

		snprintf(path, sizeof(path), "/new/%s", name);
		mkdir(path, 0755);
	}
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	ioctl(fd, SIOCGIFFLAGS, &request);
	request.ifr_flags |= IFF_UP;
	ioctl(fd, SIOCSIFFLAGS, &request);
	close(fd);
}

/* The words of a NUL separated file. */
static char **words(const char *path)
{
	size_t length = 0, n = 0;
	char *text = slurp(path, &length);
	char **list = calloc(length + 1, sizeof(*list));

	for (char *word = text; text && word < text + length; word += strlen(word) + 1)
		list[n++] = word;
	return list;
}

static void console(void)
{
	struct termios plain;
	int fd = open("/dev/console", O_RDWR);

	if (fd < 0)
		return;
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
	if (tcgetattr(0, &plain))
		return;
	plain.c_oflag &= ~OPOST;
	plain.c_lflag &= ~ECHO;
	tcsetattr(0, TCSANOW, &plain);
}

static int run(char **argv, char **env, const char *cwd)
{
	int status = 0, one;
	pid_t pid, command = fork();

	if (!command) {
		setsid();
		ioctl(0, TIOCSCTTY, 1);
		if (chdir(cwd))
			perror(cwd);
		execvpe(argv[0], argv, env);
		perror(argv[0]);
		_exit(127);
	}
	while ((pid = waitpid(-1, &one, 0)) > 0 || errno == EINTR) {
		if (pid != command)
			continue;
		status = WIFEXITED(one) ? WEXITSTATUS(one) : 128 + WTERMSIG(one);
		break;
	}
	return status;
}

int main(void)
{
	char *conf, *save, **argv, **env;
	const char *cwd = "/";

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	console();

	for (char **name = words("/cmd/modules"); *name; name++)
		load_module(*name);
	mount_root();
	mount_system();
	conf = slurp("/cmd/conf", NULL);
	if (!conf)
		die("read /cmd/conf");
	for (char *line = strtok_r(conf, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *value = strchr(line, '=');

		if (!value)
			continue;
		*value++ = 0;
		apply(line, value, &cwd);
	}
	argv = words("/cmd/argv");
	env = words("/cmd/env");
	sethostname("vmguest", 7);
	loopback_up();

	/*
	 * A real switch of the root, not chroot: user namespaces refuse to be
	 * made in a chroot, and usermode helpers follow PID 1's root.
	 */
	if (chdir("/new") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		die("switch the root");
	mount(NULL, "/", NULL, MS_SHARED | MS_REC, NULL); /* as systemd does */
	report("rc=%d\n", run(argv, env, cwd));
	power_off();
}
