// SPDX-License-Identifier: Apache-2.0
/* What the host of WebAssembly may do once it has loaded the engine and the module's code: a fixed list of
 * system calls, and the files of the preopened directories. Neither can be undone. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <asm/ioctls.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wasm.h"

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "the package wasmtime has no library for this architecture"
#endif

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Memory, threads, time and signals: of the engine and of the C library. */
static const unsigned int of_both[] = {
	SYS_read,
	SYS_write,
	SYS_writev,
	SYS_close,
	SYS_munmap,
	SYS_mremap,
	SYS_madvise,
	SYS_brk,
	SYS_futex,
	SYS_exit,
	SYS_exit_group,
	SYS_rt_sigaction,
	SYS_rt_sigprocmask,
	SYS_rt_sigreturn,
	SYS_sigaltstack,
	SYS_getrandom,
	SYS_clock_gettime,
	SYS_sched_yield,
	SYS_sched_getaffinity,
	SYS_getpid,
	SYS_gettid,
	SYS_tgkill,
	SYS_restart_syscall,
};

/* The host functions of WASI, and the threads that execute them. */
static const unsigned int of_wasi[] = {
	SYS_readv,
	SYS_pread64,
	SYS_preadv,
	SYS_pwrite64,
	SYS_pwritev,
	SYS_fstat,
	SYS_newfstatat,
	SYS_statx,
	SYS_lseek,
	SYS_openat,
	SYS_openat2,
	SYS_getdents64,
	SYS_mkdirat,
	SYS_unlinkat,
	SYS_renameat,
	SYS_renameat2,
	SYS_linkat,
	SYS_symlinkat,
	SYS_readlinkat,
	SYS_utimensat,
	SYS_ftruncate,
	SYS_fallocate,
	SYS_fadvise64,
	SYS_fsync,
	SYS_fdatasync,
	SYS_fcntl,
	SYS_dup,
	SYS_dup3,
	SYS_ppoll,
	SYS_epoll_create1,
	SYS_epoll_ctl,
	SYS_epoll_pwait,
	SYS_eventfd2,
	SYS_clock_getres,
	SYS_clock_nanosleep,
	SYS_memfd_create,
	SYS_set_robust_list,
	SYS_rseq,
#ifdef __x86_64__
	SYS_poll,
	SYS_epoll_wait,
	SYS_rename,
	SYS_readlink,
	SYS_stat,
	SYS_lstat,
#endif
};

_Noreturn static void impossible(const char *what)
{
	fail(what, strerror(errno));
}

struct program {
	struct sock_filter code[192];
	unsigned short size;
};

static void add(struct program *to, unsigned short code, unsigned int value, unsigned char yes, unsigned char no)
{
	to->code[to->size++] = (struct sock_filter){ code, yes, no, value };
}

static void allow(struct program *to, const unsigned int *calls, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		add(to, BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
		add(to, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	}
}

/* Allows CALL if its ARGUMENT has none, or (with `set`) all, of these bits. */
static void allow_bits(struct program *to, unsigned int call, int argument, unsigned int bits, bool set)
{
	unsigned int place = offsetof(struct seccomp_data, args) + 8 * argument;
	add(to, BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4);
	add(to, BPF_LD | BPF_W | BPF_ABS, place, 0, 0);
	add(to, BPF_JMP | BPF_JSET | BPF_K, bits, set ? 0 : 1, set ? 1 : 0);
	add(to, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	add(to, BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM, 0, 0);
}

/* Allows CALL if its ARGUMENT is VALUE. */
static void allow_value(struct program *to, unsigned int call, int argument, unsigned int value)
{
	unsigned int place = offsetof(struct seccomp_data, args) + 8 * argument;
	add(to, BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4);
	add(to, BPF_LD | BPF_W | BPF_ABS, place, 0, 0);
	add(to, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
	add(to, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	add(to, BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM, 0, 0);
}

static void begin(struct program *to)
{
	add(to, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
	add(to, BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
	add(to, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
	add(to, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
	allow(to, of_both, LENGTH(of_both));
}

static void load(struct program *filter)
{
	/* ENOSYS: the C library then uses clone in place of clone3, the arguments of which no filter sees. */
	add(filter, BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
	add(filter, BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS, 0, 0);
	add(filter, BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM, 0, 0);
	struct sock_fprog program = { filter->size, filter->code };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program))
		impossible("cannot install the seccomp filter");
}

/* No memory becomes executable from here on: the module's code is mapped already. */
void fence_calls(void)
{
	struct program filter = { .size = 0 };
	begin(&filter);
	allow(&filter, of_wasi, LENGTH(of_wasi));
	allow_bits(&filter, SYS_mmap, 2, PROT_EXEC, false);
	allow_bits(&filter, SYS_mprotect, 2, PROT_EXEC, false);
	allow_bits(&filter, SYS_clone, 0, CLONE_THREAD, true);
	allow_value(&filter, SYS_ioctl, 1, TCGETS); /* isatty */
	allow_value(&filter, SYS_prctl, 0, PR_SET_NAME);
	load(&filter);
}

static void limit(int resource, rlim_t value)
{
	struct rlimit both = { value, value };
	if (setrlimit(resource, &both))
		impossible("cannot limit the compiler");
}

/* The compiler reads hostile bytes: it gets two open descriptors, memory and time, and no file or network. */
void fence_compiler(void)
{
	struct program filter = { .size = 0 };
	limit(RLIMIT_AS, 4ULL << 30);
	limit(RLIMIT_CPU, 120);
	limit(RLIMIT_FSIZE, 512 << 20);
	limit(RLIMIT_CORE, 0);
	if (geteuid() == 0 &&
	    (syscall(SYS_setgroups, 0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)))
		impossible("the compiler cannot leave root");
	begin(&filter);
	/* wasmtime_module_new maps the code that it has made before it can be serialized. */
	static const unsigned int mapping[] = { SYS_mmap, SYS_mprotect };
	allow(&filter, mapping, LENGTH(mapping));
	load(&filter);
}

#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE                                                                                             \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SYM)
/* never allowed: to execute, and to make devices, sockets and FIFOs */
#define NEVER                                                                                       \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_SOCK | \
	 LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK)
/* what a rule of a file may give */
#define OF_FILE (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | TRUNCATE)
/* of later kernels than the headers may be */
#define REFER (1ULL << 13)    /* ABI 2 */
#define TRUNCATE (1ULL << 14) /* ABI 3 */
#define TCP 3ULL	      /* ABI 4: bind and connect */
#define SCOPES 3ULL	      /* ABI 6: abstract sockets and signals */

static void permit(int rules, const struct place *place, uint64_t handled)
{
	struct stat status;
	struct landlock_path_beneath_attr rule = { .parent_fd = open(place->path, O_PATH | O_CLOEXEC) };
	if (rule.parent_fd < 0)
		return;
	handled &= ~(uint64_t)NEVER;
	if (!place->writable)
		handled &= READ;
	if (!fstat(rule.parent_fd, &status) && !S_ISDIR(status.st_mode))
		handled &= OF_FILE;
	rule.allowed_access = handled;
	if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
		impossible("cannot add a Landlock rule");
	close(rule.parent_fd);
}

/* Only these places. A kernel without Landlock has the mounts and the preopened directories alone. */
void fence_files(const struct place *places, int count)
{
	int abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 1)
		return;
	struct {
		uint64_t files, ports, scopes;
	} handled = { READ | WRITE | NEVER, abi >= 4 ? TCP : 0, abi >= 6 ? SCOPES : 0 };
	handled.files |= (abi >= 2 ? REFER : 0) | (abi >= 3 ? TRUNCATE : 0);
	size_t size = abi >= 6 ? sizeof(handled) : abi >= 4 ? 16 : 8;
	int rules = syscall(SYS_landlock_create_ruleset, &handled, size, 0);
	if (rules < 0)
		impossible("cannot make a Landlock ruleset");
	for (int i = 0; i < count; i++)
		permit(rules, &places[i], handled.files);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_landlock_restrict_self, rules, 0))
		impossible("cannot apply the Landlock ruleset");
	close(rules);
}
