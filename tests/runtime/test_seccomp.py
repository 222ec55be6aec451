# SPDX-License-Identifier: Apache-2.0
"""Seccomp profiles on real workloads: what they deny, what they hide, and who is asked."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.conftest import Box

pytestmark = pytest.mark.root
BOTH_INITS = True


def test_seccomp_denies_and_is_cached(box: Box) -> None:
    """An errno of the profile's; and the second start takes the compiled program from the cache."""
    box.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 121}],
    }
    box.shell("mkdir /tmp/x; grep Seccomp: /proc/self/status")
    for _ in range(2):
        got = box.run()
        assert "Remote I/O error" in got.stderr
        assert got.stdout.split() == ["Seccomp:", "2"]


def test_an_allow_list_profile(box: Box) -> None:
    """A workload starts under a profile that allows what it names and nothing else."""
    names = json.loads(Path(__file__).with_name("seccomp-names.json").read_text())
    box.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    }
    assert box.shell("echo through").output() == "through\n"


def test_seccomp_answers_enosys_for_calls_newer_than_the_profile() -> None:
    """A default of EPERM holds for calls that the profile could have named, and does not hide that one is
    missing.
    """
    code = """
import ctypes, sys
sys.path.insert(0, 'runtime')
from ringfence_runtime import _sys
from ringfence_runtime.security.seccomp import compile_profile
from ringfence_runtime.spec.node import Node
allowed = ['write', 'exit_group', 'rt_sigaction', 'brk', 'munmap', 'mmap', 'futex', 'close', 'getpid']
program = compile_profile(Node({'defaultAction': 'SCMP_ACT_ERRNO', 'defaultErrnoRet': 1,
    'syscalls': [{'names': [*allowed, 'openat2'], 'action': 'SCMP_ACT_ALLOW'}]}, 'seccomp'))
libc = ctypes.CDLL(None, use_errno=True)
_sys.prctl(_sys.PR_SET_NO_NEW_PRIVS, 1)
_sys.seccomp_filter(program, 0)
for number in (39, 110, 9999):
    print(libc.syscall(number) > 0 or ctypes.get_errno(), flush=True)
"""
    got = subprocess.run(
        ["/usr/bin/python3", "-ISc", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert got.stdout.split() == ["True", "1", "38"], got.stderr


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"defaultAction": "SCMP_ACT_NO"}, "linux.seccomp.defaultAction"),
        ({"syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]}, "linux.seccomp.syscalls[0].names"),
        ({"architectures": ["SCMP_ARCH_Z80"]}, "linux.seccomp.architectures[0]"),
        ({"flags": ["X"]}, "linux.seccomp.flags[0]"),
    ],
)
def test_a_bad_profile_names_its_place(box: Box, change: dict[str, Any], place: str) -> None:
    """And nothing was started."""
    box.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", **change}
    assert place in box.refused()


def test_seccomp_listener_reaches_the_agent(box: Box, tmp_path: Path) -> None:
    """SCMP_ACT_NOTIFY: the listener's descriptor and the container's state arrive at listenerPath."""
    import socket

    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(tmp_path / "agent"))
    server.listen(1)
    box.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(tmp_path / "agent"),
        "listenerMetadata": "mine",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_NOTIFY"}],
    }
    box.start()
    peer, _ = server.accept()
    data, [listener], _, _ = socket.recv_fds(peer, 65536, 1)
    os.close(listener)
    peer.close()
    server.close()
    message = json.loads(data)
    assert message["metadata"] == "mine"
    assert message["pid"] == box.state()["pid"]
    assert message["state"]["id"] == box.name
