# SPDX-License-Identifier: Apache-2.0
"""The workload's view and rights, checked from the inside."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ringfence_linux.capabilities import CAPABILITIES
from tests.runtime.conftest import Box
from tests.support import force
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
BOTH_INITS = True
NAMESPACES = ("pid", "mnt", "net", "ipc", "uts", "cgroup")


def status(text: str) -> dict[str, str]:
    """/proc/PID/status as a table."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def test_namespaces_are_its_own(box: Box) -> None:
    """Every one that the configuration lists, and no other."""
    links = (
        box.shell("for n in pid mnt net ipc uts cgroup user; do readlink /proc/self/ns/$n; done")
        .output()
        .split()
    )
    for name, link in zip((*NAMESPACES, "user"), links, strict=True):
        same = os.readlink(f"/proc/self/ns/{name}") == link
        assert same == (name == "user"), name


def test_without_a_mount_namespace_the_start_is_refused(box: Box) -> None:
    """Its root would replace that of all processes in the runtime's mount namespace: refused at
    once.

    Run in a mount namespace of the test, which has its root and its mounts afterwards.
    """
    box.config["linux"]["namespaces"] = [
        item for item in box.config["linux"]["namespaces"] if item["type"] != "mount"
    ]
    box.args("/bin/true").write()
    command = f"{box.runtime.executable} --root {box.runtime.root} run {box.name}"
    script = f"cat /proc/self/mountinfo; echo; {command} 2>&1; echo; cat /proc/self/mountinfo"
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    got = subprocess.run(inside, cwd=box.directory, capture_output=True, text=True, check=True)
    before, said, after = got.stdout.split("\n\n")
    assert "config: linux.namespaces: a mount namespace is needed" in said
    assert before == after.rstrip("\n")


def test_a_namespace_is_joined_by_its_path(boxes: Any) -> None:
    """Like the containers of a pod."""
    first, second = boxes().start(), boxes()
    pid = first.state()["pid"]
    for item in second.config["linux"]["namespaces"]:
        if item["type"] in ("network", "ipc", "uts", "pid"):
            name = {"network": "net"}.get(item["type"], item["type"])
            item["path"] = f"/proc/{pid}/ns/{name}"
    del second.config["hostname"]
    got = second.shell("for n in net ipc uts pid; do readlink /proc/self/ns/$n; done").output().split()
    assert got == [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("net", "ipc", "uts", "pid")]


def test_time_namespace_has_its_offset(box: Box) -> None:
    """For the workload, the boot was a day earlier."""
    box.config["linux"]["namespaces"].append({"type": "time"})
    box.config["linux"]["timeOffsets"] = {"boottime": {"secs": 86400}}
    inside = float(box.args("/bin/cat", "/proc/uptime").output().split()[0])
    assert 86400 <= inside - float(Path("/proc/uptime").read_text().split()[0]) + 60 < 86400 + 120


def test_user_namespace_maps_ids(box: Box) -> None:
    """Root inside is the mapped id outside, and its files have that owner."""
    box.config["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        box.config["linux"][key] = [{"containerID": 0, "hostID": 300000, "size": 1000}]
    os.chown(box.rootfs, 300000, 300000)
    for path in box.directory.parents:
        if path.stat().st_mode & 0o5 != 0o5:
            path.chmod(path.stat().st_mode | 0o5)
    got = box.shell("id -u; cat /proc/self/uid_map; touch /mine").output().split()
    assert got == ["0", "0", "300000", "1000"]
    assert (box.rootfs / "mine").stat().st_uid == 300000


def test_capabilities_are_exactly_the_requested_ones(box: Box) -> None:
    """All five sets, for root and for a user, and no_new_privs."""
    box.config["process"]["capabilities"]["inheritable"] = ["CAP_KILL"]
    box.config["process"]["capabilities"]["ambient"] = ["CAP_KILL"]
    box.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    got = status(box.args("/bin/cat", "/proc/self/status").output())
    kill, chown, setgid, setuid = (1 << number for number in (5, 0, 6, 7))
    assert int(got["CapBnd"], 16) == kill | chown | setgid | setuid
    assert int(got["CapAmb"], 16) == int(got["CapInh"], 16) == int(got["CapEff"], 16) == kill
    assert got["NoNewPrivs"] == "1"
    assert got["Uid"].split() == ["1000"] * 4


def test_capabilities_that_cannot_be_granted_are_warnings(box: Box) -> None:
    """config.md: values that name none MUST be logged as a warning; the container runs with the others."""
    sets = box.config["process"]["capabilities"]
    sets["bounding"] += ["CAP_NOSUCH"]
    sets["effective"] += ["KILL"]
    sets.update(inheritable=["CAP_KILL"], ambient=["CAP_KILL", "CAP_CHOWN", "CAP_SYS_TIME"])
    got = box.args("/bin/grep", "CapAmb", "/proc/self/status").run()
    assert got.returncode == 0, got.stderr
    assert got.stdout.split() == ["CapAmb:", f"{1 << CAPABILITIES['CAP_KILL']:016x}"]
    at = "config: process.capabilities"
    for warning in (
        f"{at}.bounding[4]: 'CAP_NOSUCH' is not known: left out",
        f"{at}.effective[4]: 'KILL' is not known (did you mean 'CAP_KILL'?): left out",
        f"{at}.ambient: CAP_SYS_TIME must be permitted, too: left out",
        f"{at}.ambient: CAP_CHOWN, CAP_SYS_TIME must be inheritable, too: left out",
    ):
        assert got.stderr.count(warning) == 1, got.stderr


def test_no_capabilities_at_all(box: Box) -> None:
    """Root without any privilege."""
    box.config["process"]["capabilities"] = {name: [] for name in ("bounding", "effective", "permitted")}
    got = status(box.args("/bin/cat", "/proc/self/status").output())
    assert {int(got[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_configuration_without_capabilities_gets_dockers_default(box: Box, uid: int) -> None:
    """An absent list does not mean all of the runtime's;
    for a user it is what setuid programs could get.
    """
    del box.config["process"]["capabilities"]
    box.config["process"]["user"] = {"uid": uid, "gid": uid}
    got = status(box.args("/bin/cat", "/proc/self/status").output())
    sets = [int(got[name], 16) for name in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb")]
    docker = 0xA80425FB  # the output of `docker run`
    assert sets == [docker, 0 if uid else docker, 0 if uid else docker, 0, 0]


def test_user_groups_umask_and_home(box: Box) -> None:
    """From the configuration and the container's own passwd."""
    box.config["process"]["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5, 7], "umask": 0o77}
    got = box.shell("id -u; id -g; id -G; umask; echo $HOME").output().split("\n")
    assert got[:5] == ["1000", "1000", "1000 5 7", "0077", "/tmp"]


def drop_sys_resource() -> None:
    """So that the next executed program does not regain it."""
    assert ctypes.CDLL(None).prctl(24, 24, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_SYS_RESOURCE


@pytest.mark.parametrize("how", ["run", "exec"])
def test_rlimits_of_another_user_without_the_right_to_raise_them(box: Box, how: str) -> None:
    """A lower limit needs no right, also where the workload has another user than the runtime."""
    box.config["process"]["user"] = {"uid": 10, "gid": 11}
    box.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    if how == "run":
        got = box.shell("ulimit -n; ulimit -Hn; id -u").run(preexec_fn=drop_sys_resource)
    else:
        got = box.start().exec("sh", "-c", "ulimit -n; ulimit -Hn; id -u", preexec_fn=drop_sys_resource)
    assert got.stdout.split() == ["100", "200", "10"], got.stderr


def test_rlimits(box: Box) -> None:
    """Lowered; and one that cannot be raised is an error."""
    box.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    assert box.shell("ulimit -Sn; ulimit -Hn").output().split() == ["100", "200"]
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    box.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1 << 30, "hard": 1 << 30}]
    if (
        hard != resource.RLIM_INFINITY
        and "CapEff:\t000001ffffffffff" not in Path("/proc/self/status").read_text()
    ):
        assert "process.rlimits[0]" in box.refused()


def test_oom_score_scheduler_and_io_priority(box: Box) -> None:
    """Three attributes of the process itself."""
    box.config["process"]["oomScoreAdj"] = 321
    box.config["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    box.config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    got = (
        box.shell("cat /proc/self/oom_score_adj; cut -d' ' -f19,41 /proc/self/stat; ionice -p $$")
        .output()
        .split("\n")
    )
    assert got[:3] == ["321", "5 3", "idle"]


def test_sysctls_are_the_containers(box: Box) -> None:
    """Set inside, untouched outside."""
    box.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"}
    outside = Path("/proc/sys/kernel/msgmax").read_text()
    got = box.shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax").output().split()
    assert got == ["1", "4096"]
    assert Path("/proc/sys/kernel/msgmax").read_text() == outside


def test_loopback_is_up(box: Box) -> None:
    """A new network namespace has it, but down."""
    assert "inet 127.0.0.1/8" in box.args("/bin/ip", "addr", "show", "lo").output()


def test_the_last_value_of_a_duplicate_variable_is_used(box: Box) -> None:
    """For the workload, and for the lookup of its program."""
    wrong = box.rootfs / "first/sh"
    wrong.parent.mkdir()
    wrong.write_text("#!/bin/echo wrong\n")
    wrong.chmod(0o755)
    box.config["process"]["env"] = ["PATH=/first", "A=1", "A=2", "PATH=/bin"]
    assert box.args("sh", "-c", "echo $A $PATH").output() == "2 /bin\n"


def test_working_directory_is_made(box: Box) -> None:
    """Engines rely on it."""
    box.config["process"]["cwd"] = "/a/b"
    assert box.args("/bin/pwd").output() == "/a/b\n"


def test_the_runtimes_cpu_affinity_is_not_inherited(box: Box) -> None:
    """As with runc: only its cgroup limits it."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        force.elsewhere("one processor has no choice")
    box.args("/bin/grep", "Cpus_allowed_list", "/proc/self/status")
    os.sched_setaffinity(0, allowed[:1])
    try:
        shown = box.output().split()[-1]
    finally:
        os.sched_setaffinity(0, allowed)
    assert shown != str(allowed[0])


def test_a_user_namespace_without_mappings_gives_a_warning(box: Box) -> None:
    """Its root is the host's root for files."""
    box.config["linux"]["namespaces"].append({"type": "user"})
    got = box.args("/bin/cat", "/proc/self/uid_map").run()
    assert got.stdout.split()[:2] == ["0", "0"], got.stderr
    assert "linux.uidMappings" in got.stderr


def test_a_configuration_without_a_process_is_refused(box: Box) -> None:
    """Before anything is made."""
    del box.config["process"]
    assert "config: process: is required" in box.refused()


def test_standard_streams_belong_to_the_user(box: Box) -> None:
    """So it can open /dev/stdout again, as nginx does."""
    box.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert box.shell("echo through > /dev/stdout").output() == "through\n"


def test_nothing_of_the_runtime_is_left(box: Box) -> None:
    """No runtime process beside the workload, no descriptor inside beyond the three."""
    box.start()
    pid = box.state()["pid"]
    wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the workload runs")
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    assert box.exec("/bin/sh", "-c", "ls /proc | grep -c '^[0-9]'").stdout.strip() in ("3", "4")
    assert stat.S_ISCHR(os.stat(f"/proc/{pid}/fd/0").st_mode)
