# SPDX-License-Identifier: Apache-2.0
"""System calls raise OSError with errno, the call and the path; ctypes comes with the first of them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence_linux import syscalls

RUNTIME = Path(__file__).resolve().parents[3] / "runtime"


def test_ctypes_is_loaded_by_the_first_call() -> None:
    """Most commands of the runtime make none, and modules that only import this one pay nothing."""
    code = (
        f"import sys; sys.path.insert(0, {str(RUNTIME)!r})\n"
        "from ringfence_linux import syscalls\n"
        "print('ctypes' in sys.modules); syscalls.capget(); print('ctypes' in sys.modules)"
    )
    got = subprocess.run([sys.executable, "-ISc", code], capture_output=True, text=True, check=True)
    assert got.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("call", "code", "text", "path"),
    [
        (lambda: syscalls.setns(-1, 0, path="/n"), errno.EBADF, "setns: Bad file descriptor", "/n"),
        (lambda: syscalls.pidfd_getfd(-1, 0), errno.EBADF, "pidfd_getfd: Bad file descriptor", None),
        (lambda: syscalls.open_in_root(-1, "x"), errno.EBADF, "openat2: Bad file descriptor", "x"),
        (lambda: syscalls.fsconfig_string(-1, "a", "b"), errno.EINVAL, "fsconfig a: Invalid argument", "b"),
        (lambda: syscalls.bpf(1 << 30, b"", path="BPF_X"), None, "bpf: ", "BPF_X"),
        (lambda: syscalls.umount2("/no/such", 0), None, "umount2: ", "/no/such"),
    ],
)
def test_an_error_has_errno_the_call_and_the_path(
    call: Callable[[], object], code: int | None, text: str, path: str | None
) -> None:
    """Some of them depend on whether the test is root; their text does not."""
    with pytest.raises(OSError, match=text) as caught:
        call()
    assert code in (None, caught.value.errno)
    assert caught.value.filename == path


def test_absolute_links_start_at_the_root_that_is_named(tmp_path: Path) -> None:
    """As a process sees them whose root that directory is; `..` does not leave it."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/name").write_text("inside")
    (tmp_path / "link").symlink_to("/../../etc/name")
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        fd = syscalls.open_in_root(root, "/link")
        assert os.fstat(fd).st_ino == (tmp_path / "etc/name").stat().st_ino
        os.close(fd)
    finally:
        os.close(root)


def test_openat2_holds_to_its_limits(tmp_path: Path) -> None:
    """RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS."""
    (tmp_path / "out").symlink_to("/etc")
    top = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="openat2") as caught:
            syscalls.openat2(top, "../x", os.O_PATH, resolve=syscalls.RESOLVE_BENEATH)
        assert caught.value.errno == errno.EXDEV
        with pytest.raises(OSError, match="openat2") as caught:
            syscalls.openat2(top, b"out/passwd", os.O_PATH, resolve=syscalls.RESOLVE_NO_SYMLINKS)
        assert caught.value.errno == errno.ELOOP
    finally:
        os.close(top)


def test_clone3_is_a_fork_with_a_pidfd() -> None:
    """The child has the interpreter to itself."""
    pid, pidfd = syscalls.clone3(0)
    if pid == 0:
        os._exit(7)
    assert pidfd >= 0
    os.close(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


@pytest.mark.parametrize("by_path", [True, False])
def test_an_exec_is_laid_out_in_advance(by_path: bool) -> None:
    """By path or by descriptor; a failure is its errno."""
    assert syscalls.Exec("/no/such", ["x"], [])() == errno.ENOENT
    fd = os.open("/bin/sh", os.O_PATH)
    program = syscalls.Exec("/bin/sh" if by_path else fd, ["sh", "-c", "exit $CODE"], ["CODE=9"])
    pid = os.fork()
    if pid == 0:
        program()
        os._exit(1)
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_capability_masks_have_64_bits() -> None:
    """As /proc/self/status shows them."""
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    shown = tuple(int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh"))
    assert syscalls.capget() == shown


def test_the_magic_of_proc_is_known() -> None:
    """fstatfs(2)."""
    fd = os.open("/proc", os.O_PATH)
    try:
        assert syscalls.fs_magic(fd) == syscalls.PROC_SUPER_MAGIC
    finally:
        os.close(fd)
