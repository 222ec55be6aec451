# SPDX-License-Identifier: Apache-2.0
"""Landlock as a separate layer: what it refuses where no mount does, also for exec."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ringfence_linux import syscalls
from ringfence_runtime.security import landlock
from ringfence_runtime.security.landlock import LOOK, NOTHING, WRITE, plan
from tests.runtime.conftest import CONFIG, ROOT, Box
from tests.runtime.programs import add_program
from tests.support import force
from tests.support.waiting import wait_for

TREE = {
    "": ["bin", "etc", "sys", "data"],
    "/sys": ["block", "devices", "firmware"],
    "/sys/devices": ["pci0", "virtual"],
    "/sys/devices/virtual": ["net", "powercap"],
    "/data": ["a", "b"],
}


def planned(levels: dict[str, int]) -> dict[str, int]:
    """Returns the rules for TREE."""
    return dict(plan(levels, lambda path: TREE.get(path, [])))


def test_a_writable_place_in_a_readonly_root_needs_one_rule_each() -> None:
    """A read-only root with a writable place in it: rights add up."""
    assert planned({"": LOOK, "/data": WRITE}) == {"/": LOOK, "/data": WRITE}


def test_a_path_with_a_more_restricted_entry_is_split() -> None:
    """It gets the rights that all of it may have; its other entries keep theirs."""
    assert planned({"": WRITE, "/etc": LOOK}) == {
        "/": LOOK,
        "/etc": LOOK,
        "/bin": WRITE,
        "/sys": WRITE,
        "/data": WRITE,
    }


def test_a_masked_path_splits_all_above_it() -> None:
    """Nothing above it may be read as a whole."""
    rules = planned({"": LOOK, "/sys": LOOK, "/sys/devices/virtual/powercap": NOTHING})
    split = ("/", "/sys", "/sys/devices", "/sys/devices/virtual", "/sys/devices/virtual/powercap")
    assert {path for path, level in rules.items() if level == NOTHING} == set(split)
    assert {path for path, level in rules.items() if level == LOOK} == {
        "/bin", "/etc", "/data", "/sys/block", "/sys/firmware", "/sys/devices/pci0",
        "/sys/devices/virtual/net",
    }  # fmt: skip


def test_rights_are_those_of_the_kernels_abi() -> None:
    """A right unknown to the kernel would make the ruleset invalid (landlock_create_ruleset(2))."""
    # The number of rights of each ABI (linux/landlock.h): 13, REFER, TRUNCATE, IOCTL_DEV,
    # RESOLVE_UNIX.
    rights = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16, 6: 16, 7: 16, 8: 16, 9: 17, 10: 17}
    assert {abi: landlock.handled(abi) for abi in rights} == {abi: 2**n - 1 for abi, n in rights.items()}


def need_landlock() -> None:
    """Skip where the kernel has no Landlock."""
    if syscalls.landlock_abi() == 0:
        force.elsewhere("this kernel has no Landlock")


@pytest.mark.root
def test_landlock_restricts_what_mounts_allow(box: Box) -> None:
    """Paths of the extension may be used as it says, and nothing else."""
    need_landlock()
    box.config["linux"]["landlock"] = {
        "derive": False,
        "read": ["/etc", "/proc"],
        "execute": ["/bin"],
        "write": ["/tmp"],
        "scope": False,
    }
    script = "cat /etc/hosts; echo x > /tmp/f && echo wrote; echo x > /root/f; ls /root; echo end"
    got = box.shell(script).run()
    assert got.stdout.split() == ["127.0.0.1", "localhost", "wrote", "end"]
    assert got.stderr.lower().count("permission denied") == 2


@pytest.mark.root
def test_landlock_derived_from_mounts(box: Box) -> None:
    """With a read-only mount below a writable root."""
    need_landlock()
    box.config["annotations"] = {"org.ringfence.landlock": "derive"}
    script = "echo x > /root/f && echo root; echo x > /tmp/f && echo tmp; ls /etc > /dev/null && echo dev"
    assert box.shell(script).output().split() == ["root", "tmp", "dev"]


# Enters a root filesystem without its mounts, under a configuration's rules, and tries to open
# files.
TRY = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from ringfence_linux import syscalls
from ringfence_runtime.security import landlock
from ringfence_runtime.spec import parse_config
config = parse_config(sys.argv[2].encode())
syscalls.load()
os.chroot(sys.argv[3])
os.chdir('/')
ruleset = landlock.build(landlock.wanted(config), config)
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
syscalls.landlock_restrict_self(ruleset)
def able(path, flags):
    try:
        os.close(os.open(path, flags, 0o600))
    except PermissionError:
        return False
    return True
print(json.dumps([[able(path, os.O_RDONLY), able(path, os.O_WRONLY)] for path in sys.argv[4:]]))
"""


@pytest.mark.root
def test_derived_rules_apply_without_the_mounts(box: Box) -> None:
    """Read-only and masked paths, also through a symlink of the image; the rest is unchanged."""
    need_landlock()
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    config["annotations"] = {landlock.ANNOTATION: "derive"}
    config["mounts"] = [{"destination": "/ro", "type": "tmpfs", "options": ["ro"]}]
    config["linux"]["readonlyPaths"] = ["/etc", "/absent"]
    config["linux"]["maskedPaths"] = ["/link/secret", "/var/hidden"]
    (box.rootfs / "link").symlink_to("/opt")
    for name in ("ro/file", "etc/file", "opt/secret", "opt/open", "var/hidden/file", "var/file", "root/file"):
        path = box.rootfs / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("x")
    wanted = {
        "/ro/file": [True, False],
        "/etc/file": [True, False],
        "/opt/secret": [False, False],
        "/opt/open": [True, True],
        "/var/hidden/file": [False, False],
        "/var/file": [True, True],
        "/root/file": [True, True],
    }
    command = [sys.executable, "-c", TRY, str(ROOT / "runtime"), json.dumps(config), str(box.rootfs), *wanted]
    got = subprocess.run(command, capture_output=True, text=True, check=True)
    assert dict(zip(wanted, json.loads(got.stdout), strict=True)) == wanted


@pytest.mark.root
def test_below_a_procfs_only_the_mounts_protect(box: Box) -> None:
    """A process may keep writing to its own directory there, which no rule could name beforehand."""
    need_landlock()
    box.config["annotations"] = {landlock.ANNOTATION: "derive"}
    own = "/proc/self/oom_score_adj"
    script = f"sh -c 'echo 500 > {own}; cat {own}'; echo x > /proc/sys/kernel/domainname"
    got = box.shell(f"{script}; echo end").run()
    assert got.stdout.split() == ["500", "end"]
    assert "Read-only file system" in got.stderr


@pytest.mark.root
def test_exec_is_under_the_same_rules_and_can_signal_the_workload(box: Box) -> None:
    """Its own domain has no scopes: `exec` of a reload command is a common use."""
    need_landlock()
    box.config["linux"]["landlock"] = {"derive": False, "read": ["/"], "execute": ["/"], "write": ["/tmp"]}
    marker = box.rootfs / "marker"
    # Opened before Landlock it would remain writable: the shell opens it for each line.
    box.shell("trap 'echo got > /tmp/signal' USR1; echo up > /tmp/up; while :; do sleep 0.05; done").start()
    wait_for(lambda: box.exec("/bin/cat", "/tmp/up").stdout == "up\n", "the workload to be up")
    got = box.exec("/bin/sh", "-c", "echo x > /marker")
    assert "Permission denied" in got.stderr
    assert not marker.exists()
    assert box.exec("/bin/kill", "-USR1", "1").returncode == 0
    wait_for(lambda: box.exec("/bin/cat", "/tmp/signal").stdout == "got\n", "the signal to arrive")


@pytest.mark.root
@pytest.mark.parametrize(("key", "kind"), [("Tcp", "tcp"), ("Udp", "udp")])
def test_ports_are_limited_to_the_named_ones(box: Box, key: str, kind: str, tmp_path: Path) -> None:
    """An empty list allows none; without the member all may be used."""
    abi = syscalls.landlock_abi()
    if abi < {"Tcp": 4, "Udp": 10}[key]:
        force.elsewhere(f"the Landlock of this kernel (ABI {abi}) does not know {kind} ports")
    program = """
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words)
{
	struct sockaddr_in where = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	where.sin_port = htons(atoi(words[2]));
	int fd = socket(AF_INET, atoi(words[1]), 0);
	printf("%d ", bind(fd, (void *)&where, sizeof(where)) ? errno : 0);
	return 0;
}
"""
    add_program(box.rootfs, "take", program)
    number = {"Tcp": 1, "Udp": 2}[key]
    box.config["linux"]["landlock"] = {"derive": False, "read": ["/"], "execute": ["/"], f"bind{key}": [7001]}
    got = box.shell(f"take {number} 7001; take {number} 7002").output().split()
    assert got == ["0", "13"]  # EACCES


@pytest.mark.root
def test_a_host_socket_is_reachable_only_with_a_rule(box: Box, tmp_path: Path) -> None:
    """ABI 9: a read-only mount does not protect a socket; a Landlock rule does."""
    if syscalls.landlock_abi() < 9:
        force.elsewhere("this kernel's Landlock does not look at unix sockets that have a path")
    import socket

    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    (tmp_path / "s").mkdir()
    server.bind(str(tmp_path / "s/host.sock"))
    server.listen(4)
    box.config["mounts"].append(
        {"destination": "/s", "type": "bind", "source": str(tmp_path / "s"), "options": ["rbind", "ro"]}
    )
    program = """
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
int main(void)
{
	struct sockaddr_un where = { AF_UNIX, "/s/host.sock" };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	printf("%d", connect(fd, (void *)&where, sizeof(where)) ? errno : 0);
	return 0;
}
"""
    box.args(add_program(box.rootfs, "reach", program))
    assert box.output() == "0"
    for more, expected in (({}, errno.EACCES), ({"connectUnix": ["/s"]}, 0), ({"write": ["/s"]}, 0)):
        box.config["linux"]["landlock"] = {"derive": True, **more}
        assert box.output() == str(expected)
    server.close()
