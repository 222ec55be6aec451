# SPDX-License-Identifier: Apache-2.0
"""The default seccomp profile, by making the calls in a container that has it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

import pytest

from ringfence_linux.capabilities import CAPABILITIES
from ringfence_runtime.security.caps import DEFAULT
from ringfence_runtime.security.default_profile import profile
from tests.runtime.conftest import Box
from tests.support import force

pytestmark = pytest.mark.root

# Makes one call given as numbers, and prints the errno or "ok". `compat` makes it by int 0x80.
CALLER = """
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static long compat(long nr, long a, long b)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(nr), "b"(a), "c"(b), "d"(0), "S"(0), "D"(0)
                     : "memory", "r8", "r9", "r10", "r11");
	return result;
}
int main(int count, char **words)
{
	long n[8] = { 0 }, result;
	int is_compat = !strcmp(words[1], "compat");

	(void)count;
	for (int i = 2; words[i]; i++)
		n[i - 2] = (long)strtoull(words[i], NULL, 0);
	if (is_compat) {
		result = compat(n[0], n[1], n[2]);
		printf("%ld\\n", result < 0 ? -result : 0);
		return 0;
	}
	result = syscall(n[0], n[1], n[2], n[3], n[4], n[5], n[6]);
	if (result == 0 && n[0] == 56)
		_exit(0);
	printf("%d\\n", result < 0 ? errno : 0);
	return 0;
}
"""
EPERM, ENOSYS, EINVAL, EFAULT = 1, 38, 22, 14
NEWUSER, NEWTIME, NEWNS, SIGCHLD = 0x10000000, 0x80, 0x20000, 17
# x86_64's numbers, arch/x86/entry/syscalls/syscall_64.tbl
SOCKET, CLONE, UNSHARE, SETNS, CLONE3, PERSONALITY = 41, 56, 272, 308, 435, 135
REFUSED = {
    "io_uring_setup": ((425, 1, 0), EPERM),
    "io_uring_enter": ((426, 0, 0), EPERM),
    "io_uring_register": ((427, 0, 0), EPERM),
    "AF_ALG": ((SOCKET, 38, 5, 0), EPERM),
    "AF_ALG behind high bits": ((SOCKET, 0x100000026, 5, 0), EPERM),
    "AF_VSOCK": ((SOCKET, 40, 1, 0), EPERM),
    "AF_RXRPC": ((SOCKET, 33, 2, 2), EPERM),
    "AF_KEY": ((SOCKET, 15, 3, 2), EPERM),
    "a family of tomorrow": ((SOCKET, 46, 1, 0), EPERM),
    "unshare time": ((UNSHARE, NEWTIME), EPERM),
    "unshare user": ((UNSHARE, NEWUSER), EPERM),
    "clone user": ((CLONE, NEWUSER | SIGCHLD), EPERM),
    "clone time": ((CLONE, NEWTIME), EPERM),
    "clone mount": ((CLONE, NEWNS | SIGCHLD), EPERM),
    "clone3": ((CLONE3, 0, 0), ENOSYS),
    "setns": ((SETNS, 0, 0), EPERM),
    "mount": ((165, 0, 0, 0, 0), EPERM),
    "fsopen": ((430, 0, 0), EPERM),
    "open_tree": ((428, 0, 0, 0), EPERM),
    "mount_setattr": ((442, 0, 0, 0, 0, 0), EPERM),
    "pivot_root": ((155, 0, 0), EPERM),
    "bpf": ((321, 0, 0, 0), EPERM),
    "perf_event_open": ((298, 0, 0, 0, 0, 0), EPERM),
    "userfaultfd": ((323, 0), EPERM),
    "add_key": ((248, 0, 0, 0, 0, 0), EPERM),
    "keyctl": ((250, 0, 0, 0, 0, 0), EPERM),
    "init_module": ((175, 0, 0, 0), EPERM),
    "kexec_load": ((246, 0, 0, 0, 0), EPERM),
    "open_by_handle_at": ((304, 0, 0, 0), EPERM),
    "personality of another execution": ((PERSONALITY, 0x0040000), EPERM),
    "swapon": ((167, 0, 0), EPERM),
    "reboot": ((169, 0, 0, 0, 0), EPERM),
    "iopl": ((172, 3), EPERM),
    "a call of tomorrow": ((9999,), ENOSYS),
}
ALLOWED = {
    "AF_INET": ((SOCKET, 2, 1, 0), 0),
    "AF_INET6": ((SOCKET, 10, 2, 0), 0),
    "AF_UNIX": ((SOCKET, 1, 1, 0), 0),
    "AF_NETLINK": ((SOCKET, 16, 3, 0), 0),
    "clone": ((CLONE, SIGCHLD), 0),
    "personality": ((PERSONALITY, 0), 0),
    "which personality": ((PERSONALITY, 0xFFFFFFFF), 0),
    "memfd_create without a name": ((319, 0, 0), EFAULT),
    "landlock version": ((444, 0, 0, 1), 0),
    "futex_waitv of nothing": ((449, 0, 0, 0, 0, 0), EINVAL),
    "getpid": ((39,), 0),
}


@pytest.fixture
def caller(box: Box) -> Box:
    """A container with the default profile and a program that makes any call."""
    source = box.directory / "caller.c"
    source.write_text(CALLER)
    compiler = force.need_program("gcc")
    subprocess.run([compiler, "-static", "-O1", "-o", box.rootfs / "bin/call", source], check=True)
    apply_profile(box, DEFAULT)
    return box


def apply_profile(box: Box, capabilities: tuple[str, ...]) -> None:
    """The default profile for these capabilities, and the capabilities."""
    box.config["process"]["capabilities"] = {
        name: list(capabilities) for name in ("bounding", "effective", "permitted")
    }
    box.config["linux"]["seccomp"] = profile(capabilities)


def results(
    box: Box, calls: Mapping[str, tuple[tuple[int, ...], int]], kind: str = "native"
) -> dict[str, int]:
    """Returns the errno of each call, in one container."""
    lines = [f"call {kind} {' '.join(map(str, numbers))}" for numbers, _ in calls.values()]
    printed = box.shell("\n".join(lines)).output().split()
    return dict(zip(calls, map(int, printed), strict=True))


@pytest.mark.parametrize("calls", [REFUSED, ALLOWED], ids=["refused", "allowed"])
def test_each_call_returns_the_profiles_errno(
    caller: Box, calls: Mapping[str, tuple[tuple[int, ...], int]]
) -> None:
    """Refused calls have the errno that programs expect; ordinary calls reach the kernel."""
    assert results(caller, calls) == {name: errno for name, (_, errno) in calls.items()}


def test_without_the_profile_the_calls_reach_the_kernel(caller: Box) -> None:
    """The twin of the refusals: the same calls in the same container reach the kernel without it."""
    del caller.config["linux"]["seccomp"]
    wanted = ("io_uring_setup", "AF_ALG", "clone3", "keyctl", "unshare user", "clone user")
    got = results(caller, {name: REFUSED[name] for name in wanted})
    assert (got["unshare user"], got["clone user"], got["clone3"]) == (0, 0, EINVAL)
    assert [name for name in wanted if got[name] == REFUSED[name][1]] == []


def test_32_bit_calls_are_filtered_the_same(caller: Box) -> None:
    """int 0x80: socket(2) is filtered by family; socketcall(2) hides the family and is refused."""
    # arch/x86/entry/syscalls/syscall_32.tbl: socketcall 102, socket 359, unshare 310, io_uring_setup 425
    calls = {
        "socketcall": ((102, 1, 0), ENOSYS),
        "socket AF_ALG": ((359, 38, 5), EPERM),
        "unshare time": ((310, NEWTIME, 0), EPERM),
        "io_uring_setup": ((425, 1, 0), EPERM),
        "socket AF_UNIX": ((359, 1, 1), 0),
        "a call of the future": ((4000,), ENOSYS),
    }
    assert results(caller, calls, "compat") == {name: errno for name, (_, errno) in calls.items()}


@pytest.mark.parametrize(
    ("capability", "call", "errno"),
    [
        ("CAP_SYS_ADMIN", (UNSHARE, NEWTIME), 0),
        ("CAP_SYS_ADMIN", (CLONE3, 0, 0), EINVAL),
        ("CAP_SYS_ADMIN", (430, 0, 0), EFAULT),
        ("CAP_SYS_PTRACE", (312, 1, 1, 0, 0, 0), 0),  # kcmp of the caller itself
        ("CAP_SYS_CHROOT", (161, 0), EFAULT),
        ("CAP_DAC_READ_SEARCH", (304, 0, 0, 0), EFAULT),
    ],
)
def test_a_capability_allows_its_calls(
    caller: Box, capability: str, call: tuple[int, ...], errno: int
) -> None:
    """Without it the same call is refused before the kernel runs it."""
    base = tuple(name for name in DEFAULT if name != capability)
    apply_profile(caller, base)
    assert results(caller, {"x": (call, 0)})["x"] in (EPERM, ENOSYS)
    apply_profile(caller, (*base, capability))
    assert results(caller, {"x": (call, 0)}) == {"x": errno}


def test_io_uring_and_the_four_families_stay_refused_with_every_capability(caller: Box) -> None:
    """No capability adds a call that the profile excludes for all."""
    apply_profile(caller, tuple(name for name in CAPABILITIES if name not in ("CAP_SYS_RESOURCE",)))
    names = ("io_uring_setup", "AF_ALG", "AF_VSOCK", "AF_RXRPC", "AF_KEY")
    some = {name: REFUSED[name] for name in names}
    assert results(caller, some) == {name: errno for name, (_, errno) in some.items()}


def test_an_ordinary_shell_works_under_the_profile(box: Box) -> None:
    """Pipes, files, processes, users and time."""
    apply_profile(box, DEFAULT)
    script = "mkdir /tmp/a && echo x >/tmp/a/b && chmod 600 /tmp/a/b && tar c /tmp/a | tar t | sort | tail -1"
    assert box.shell(f"{script} && date >/dev/null && id -u && ps | wc -l >/dev/null").output() == (
        "tmp/a/b\n0\n"
    )
