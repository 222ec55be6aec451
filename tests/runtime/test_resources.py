# SPDX-License-Identifier: Apache-2.0
"""Limits with an effect, figures that change, and a limit that cannot be set is an error."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.conftest import Box
from tests.support import force
from tests.support.cgroups import is_pure_v2, new_cgroup
from tests.support.disk import new_disk
from tests.support.waiting import patience, process_state, wait_for

pytestmark = pytest.mark.root


def value(box: Box, controller: str, v1: str, v2: str) -> str:
    """Returns a cgroup file of the container, under the name that this host has for it."""
    top = Path("/sys/fs/cgroup")
    for path in (top / controller / box.name / v1, top / box.name / v2):
        if path.is_file():  # an empty name is the directory itself
            return path.read_text().strip()
    raise AssertionError(f"neither {v1} nor {v2} is there")


def limits(box: Box, **resources: Any) -> Box:
    """Set the container's limits."""
    box.config["linux"]["resources"] = resources
    return box


def test_memory_limit_kills(box: Box) -> None:
    """Above the limit, the kernel ends it."""
    limits(box, memory={"limit": 32 << 20, "swap": 32 << 20})
    got = box.shell("head -c 100m /dev/zero | tail | wc -c").run()
    assert "104857600" not in got.stdout


def test_memory_and_pids_limits_are_set(box: Box) -> None:
    """As numbers in the kernel's files."""
    limits(box, memory={"limit": 64 << 20}, pids={"limit": 17}).start()
    assert value(box, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert value(box, "pids", "pids.max", "pids.max") == "17"


def test_pids_limit_stops_a_fork_bomb(box: Box) -> None:
    """Row 62: no more processes than allowed."""
    limits(box, pids={"limit": 10})
    got = box.shell("for i in $(seq 50); do sleep 1 & done; echo $(ls -d /proc/[0-9]* | wc -l)").run()
    assert "fork" in got.stderr


@pytest.mark.parametrize(
    ("version", "limit", "written"),
    [
        ("1.0.2-dev", 0, "max"),
        ("1.2.1", 0, "max"),
        ("1.3.0", 0, "1"),
        ("1.3.0", -1, "max"),
        ("1.0.0", 1, "1"),
    ],
)
def test_a_pids_limit_of_0_has_the_meaning_of_its_version(
    box: Box, version: str, limit: int, written: str
) -> None:
    """Podman 4.3 (1.0.2-dev) writes 0 for no limit. Since 1.3 it is a limit, and the container starts.

    `update` reads it in the version of the container.
    """
    box.config["ociVersion"] = version
    limits(box, pids={"limit": limit}).start()
    assert value(box, "pids", "pids.max", "pids.max") == written
    for changed, result in ((7, "7"), (limit, written)):
        assert box.runtime("update", "--pids-limit", str(changed), box.name).returncode == 0
        assert value(box, "pids", "pids.max", "pids.max") == result


def test_a_pids_limit_of_0_forbids_every_fork(box: Box) -> None:
    """Since 1.3: the first process runs, and creates no other."""
    box.config["ociVersion"] = "1.3.0"
    got = limits(box, pids={"limit": 0}).shell("echo first; /bin/true | echo second").run()
    assert got.stdout == "first\n"
    assert "fork" in got.stderr


def test_cpu_quota(box: Box) -> None:
    """Period and quota."""
    limits(box, cpu={"quota": 20000, "period": 100000, "shares": 512}).start()
    if Path("/sys/fs/cgroup/cpu").exists():
        assert value(box, "cpu", "cpu.cfs_quota_us", "") == "20000"
        assert value(box, "cpu", "cpu.shares", "") == "512"
    else:
        assert value(box, "cpu", "", "cpu.max") == "20000 100000"


def test_cpuset(box: Box) -> None:
    """One CPU only."""
    limits(box, cpu={"cpus": "0"})
    assert "Cpus_allowed_list:\t0" in box.args("/bin/cat", "/proc/self/status").output()


@pytest.mark.parametrize(
    ("resources", "place"),
    [
        ({"cpu": {"cpus": "4095"}}, "cpu.cpus"),
        ({"cpu": {"quota": 1}}, "cpu.quota"),
        ({"network": {"classID": 1}}, "network.classID"),
        ({"unified": {"no.such": "1"}}, "unified.no.such"),
        (
            {"blockIO": {"weightDevice": [{"major": 1, "minor": 0, "leafWeight": 10}]}},
            "blockIO.weightDevice[",
        ),
        ({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}, "hugepageLimits[0]"),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 1, "rate": 1}]}},
            "throttleReadBpsDevice",
        ),
    ],
)
def test_a_limit_that_cannot_be_set_is_an_error(box: Box, resources: Any, place: str) -> None:
    """It names its place, and no cgroup is left."""
    assert place in limits(box, **resources).refused()


def test_a_limit_of_kernel_memory_is_left_out_with_a_warning(box: Box) -> None:
    """The specification allows it, and no current kernel has one (config-linux.md#memory)."""
    got = limits(box.args("/bin/true"), memory={"kernel": 1 << 20}).run()
    assert got.returncode == 0
    assert "linux.resources.memory.kernel is left out" in got.stderr


def test_update_from_options_and_from_a_file(box: Box, tmp_path: Path) -> None:
    """Up and down, while it runs."""
    limits(box, memory={"limit": 64 << 20}).start()
    assert box.do("update", "--memory", "128m", "--pids-limit", "33").returncode == 0
    assert value(box, "memory", "memory.limit_in_bytes", "memory.max") == str(128 << 20)
    assert value(box, "pids", "pids.max", "pids.max") == "33"
    file = tmp_path / "resources.json"
    file.write_text(json.dumps({"memory": {"limit": 32 << 20}}))
    assert box.do("update", "--resources", str(file)).returncode == 0
    assert value(box, "memory", "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert box.exec("/bin/cat", "/dev/null").returncode == 0


def test_an_update_of_one_of_two_numbers_keeps_the_other(box: Box) -> None:
    """A period without a quota, and swap without memory."""
    limits(box, cpu={"quota": 20000, "period": 100000}, memory={"limit": 64 << 20}).start()
    assert box.do("update", "--cpu-period", "50000").returncode == 0
    if Path("/sys/fs/cgroup/cpu").exists():
        assert value(box, "cpu", "cpu.cfs_quota_us", "") == "20000"
        assert value(box, "cpu", "cpu.cfs_period_us", "") == "50000"
    else:
        assert value(box, "cpu", "", "cpu.max") == "20000 50000"
    got = box.do("update", "--memory-swap", "100m")
    if "swap" not in got.stderr:  # otherwise the kernel does not account swap
        assert got.returncode == 0, got.stderr
        v2 = str(36 << 20)
        assert value(box, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max") in (str(100 << 20), v2)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """MAJOR:MINOR of a whole disk; of a loop device where the machine has no other, as in guests."""
    found = [
        (path / "dev").read_text().strip()
        for path in sorted(Path("/sys/block").glob("*"))
        if int((path / "size").read_text()) and not path.name.startswith(("ram", "zram"))
    ]
    if found:
        yield found[0]
        return
    with new_disk(tmp_path) as where:
        device = where.stat().st_dev
        yield f"{os.major(device)}:{os.minor(device)}"


def test_io_limits_are_set(box: Box, disk: str) -> None:
    """Bytes and operations of one device, and a weight where the kernel has one."""
    major, minor = (int(word) for word in disk.split(":"))
    where = {"major": major, "minor": minor}
    limits(
        box,
        blockIO={
            "throttleReadBpsDevice": [{**where, "rate": 1 << 20}],
            "throttleWriteIOPSDevice": [{**where, "rate": 50}],
        },
    ).start()
    if Path("/sys/fs/cgroup/blkio").exists():
        assert value(box, "blkio", "blkio.throttle.read_bps_device", "") == f"{major}:{minor} {1 << 20}"
        assert value(box, "blkio", "blkio.throttle.write_iops_device", "") == f"{major}:{minor} 50"
    else:
        words = value(box, "", "", "io.max").split()
        assert words[0] == f"{major}:{minor}"
        assert {f"rbps={1 << 20}", "wiops=50"} <= set(words)


def test_an_io_weight_is_set_where_the_kernel_has_one(box: Box) -> None:
    """In the file of bfq, or the common one, each in its scale. Refused where the kernel has neither file."""
    files = ("blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight")
    with new_cgroup("weight") as bare:
        has_weight = any((path / name).exists() for path in bare.paths.values() for name in files)
    limits(box, blockIO={"weight": 500}).write()
    got = box.do("run", "--detach", capture=False)
    shown = {path.read_text().strip() for base in box.cgroups() for name in files
             if (path := base / name).exists()}  # fmt: skip
    assert (got.returncode == 0) == has_weight
    if has_weight:
        # io.weight: 1 + (500 - 10) * 9999 / 990
        assert shown & {"500", "default 500", "default 4950"}
    else:
        assert not shown
        assert "blockIO.weight" in box.refused()


def test_huge_pages_are_limited(box: Box) -> None:
    """In use and reserved, where the host has huge pages of 2 MB; the figures are reported."""
    if not Path("/sys/kernel/mm/hugepages/hugepages-2048kB").exists():
        force.elsewhere("this kernel has no huge pages of 2 MB")
    limits(box, hugepageLimits=[{"pageSize": "2MB", "limit": 4 << 20}]).start()
    names = ("hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "hugetlb.2MB.limit_in_bytes")
    shown = [path.read_text().strip() for base in box.cgroups() for name in names
             if (path := base / name).exists()]  # fmt: skip
    assert shown
    assert set(shown) == {str(4 << 20)}
    figures = json.loads(box.do("events", "--stats").stdout)["data"]["hugetlb"]["2MB"]
    assert (figures["usage"], figures["failcnt"]) == (0, 0)


def test_its_cgroup_belongs_to_the_workloads_user_where_it_may_manage_it(box: Box) -> None:
    """config-linux.md#cgroup-ownership: version 2, a namespace of its own, mounted writable."""
    if not is_pure_v2():
        force.elsewhere("a cgroup is given away on a pure version 2 host only")
    box.config["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        box.config["linux"][key] = [{"containerID": 0, "hostID": 300000, "size": 1000}]
    for path in box.directory.parents:
        path.chmod(path.stat().st_mode | 0o5)
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
    box.config["mounts"].append(mount)
    box.config["mounts"] = [each for each in box.config["mounts"] if each["type"] != "sysfs"]
    (box.rootfs / "sys/fs/cgroup").mkdir(parents=True)
    box.start()
    assert box.cgroups()[0].stat().st_uid == 0
    assert box.do("delete", "--force").returncode == 0
    mount["options"] = []
    box.shell(
        "mkdir /sys/fs/cgroup/inner && echo $$ > /sys/fs/cgroup/inner/cgroup.procs && sleep 3600"
    ).start()
    [path] = box.cgroups()
    given = set(Path("/sys/kernel/cgroup/delegate").read_text().split())
    owners = {entry.name: entry.stat().st_uid for entry in path.iterdir() if entry.is_file()}
    assert path.stat().st_uid == 300000
    assert {name for name, owner in owners.items() if owner == 300000} == given & set(owners)
    wait_for(lambda: (path / "inner/cgroup.procs").read_text().strip(), "the workload to move itself")


def test_events_stats(box: Box) -> None:
    """In runc's form; figures of this container."""
    limits(box, pids={"limit": 20}, memory={"limit": 64 << 20}).start()
    record = json.loads(box.do("events", "--stats").stdout)
    assert (record["type"], record["id"]) == ("stats", box.name)
    data = record["data"]
    assert data["pids"] == {"current": 1, "limit": 20}
    assert data["memory"]["usage"]["limit"] == 64 << 20
    assert data["cpu"]["usage"]["total"] > 0


def test_events_stats_have_the_pressure(box: Box) -> None:
    """PSI of the container's cgroup, where the host has
    version 2 mounted: a busy one waits for the processor.
    """
    unified = [path for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
               if (path / "cgroup.controllers").exists()]  # fmt: skip
    if not unified or not (unified[0] / "cpu.pressure").exists():
        pytest.skip("elsewhere: this kernel has no pressure figures, or no version 2 hierarchy")
    box.shell("for i in 1 2 3 4 5 6; do (while :; do :; done) & done; wait").start()

    def waited() -> bool:
        data = json.loads(box.do("events", "--stats").stdout)["data"]
        assert set(data["memory"]["psi"]["some"]) == {"avg10", "avg60", "avg300", "total"}
        assert data["blkio"]["psi"]["full"]["total"] >= 0
        return bool(data["cpu"]["psi"]["some"]["total"] > 0)

    wait_for(waited, "some pressure")


def test_events_report_a_kill_for_memory(box: Box) -> None:
    """Each, at once; also that of the first process, which ends the container."""
    limits(box, memory={"limit": 16 << 20, "swap": 16 << 20})
    greedy = "tail -c 64m /dev/zero"
    box.shell(f"while [ ! -e /tmp/go ]; do sleep 0.05; done; {greedy}; sleep 0.3; exec {greedy}").start()
    command = [str(box.runtime.executable), "--root", str(box.runtime.root), "events", "--interval", "60m"]
    with subprocess.Popen([*command, box.name], stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline())["type"] == "stats"
        assert box.exec("/bin/touch", "/tmp/go").returncode == 0
        types = [json.loads(line)["type"] for line in follower.stdout]
        assert follower.wait(patience(60)) == 0
    assert types == ["oom", "oom"]


def test_every_hierarchy_is_joined_and_left(box: Box) -> None:
    """Also on a hybrid host; nothing remains after delete."""
    box.start()
    lines = Path(f"/proc/{box.state()['pid']}/cgroup").read_text().splitlines()
    assert all(line.endswith(f":/{box.name}") for line in lines)
    pid = box.state()["pid"]
    box.do("delete", "--force")
    wait_for(lambda: process_state(pid) in "-Z", "the process to have ended")
    assert not box.cgroups()


def test_sub_cgroups_are_removed_too(box: Box) -> None:
    """Those that the workload made below its own cgroup."""
    box.config["mounts"].append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}
    )
    box.shell(
        "d=/sys/fs/cgroup/pids; [ -d $d ] || d=/sys/fs/cgroup; mkdir $d/inner && echo made; exec sleep 3600"
    )
    box.start()
    wait_for(lambda: any((path / "inner").exists() for path in box.cgroups()), "the inner cgroup")
    assert box.do("delete", "--force").returncode == 0
    assert not box.cgroups()
