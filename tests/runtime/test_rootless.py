# SPDX-License-Identifier: Apache-2.0
"""The runtime for a user other than root: no cgroup,
ids by newuidmap, and nothing that needs privilege.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence_runtime.cli.options import private_directory
from ringfence_runtime.errors import Error
from tests.runtime.conftest import HARD, ROOT
from tests.support import force
from tests.support.cgroups import PREFIX
from tests.support.container import make_rootfs
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root

USER = 65534  # nobody: newuidmap needs a user with a name
FIRST, COUNT = 200000, 65536
MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*HARD, "ro"]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*HARD, "ro"]},
    {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]},
]


class Rootless:
    """A bundle of that user, and the runtime run as
    that user, with id ranges that only these tests see.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = f"{PREFIX}rootless"
        self.executable = directory / "bin/ringfence-runtime"
        self.executable.parent.mkdir()
        environment = {"PYTHONPATH": str(ROOT / "runtime"), "PATH": os.environ["PATH"]}
        command = ["/usr/bin/python3", "-m", "ringfence_runtime", "install", str(self.executable)]
        subprocess.run(command, check=True, env=environment)
        self.rootfs = make_rootfs(directory / "bundle/rootfs", busybox=force.need_program("busybox"))
        for name in ("subuid", "subgid"):
            (directory / name).write_text(f"nobody:{FIRST}:{COUNT}\n")
        self.config: dict[str, Any] = {
            "ociVersion": "1.2.0",
            "process": {"args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": True},
            "root": {"path": "rootfs"},
            "mounts": MOUNTS,
            "linux": {
                "namespaces": [
                    {"type": kind} for kind in ("user", "pid", "mount", "network", "ipc", "uts", "cgroup")
                ],
                "uidMappings": [{"containerID": 0, "hostID": USER, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": USER, "size": 1}],
                "maskedPaths": ["/proc/kcore", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys"],
            },
        }
        for path in (directory / "bundle", self.rootfs, *self.rootfs.rglob("*")):
            os.chown(path, USER, USER, follow_symlinks=False)
        (directory / "state").mkdir(mode=0o700)
        os.chown(directory / "state", USER, USER)

    def with_ranges(self) -> Rootless:
        """Root is the user itself, the ids above are of its range."""
        for key in ("uidMappings", "gidMappings"):
            self.config["linux"][key].append({"containerID": 1, "hostID": FIRST, "size": COUNT})
        return self

    def shell(self, script: str) -> Rootless:
        """Let the container run a shell script."""
        self.config["process"]["args"] = ["/bin/sh", "-c", script]
        return self

    def __call__(self, *words: str, capture: bool = True) -> subprocess.CompletedProcess[str]:
        """`ringfence-runtime WORDS` as that user, in the bundle."""
        (self.directory / "bundle/config.json").write_text(json.dumps(self.config))
        places = "".join(
            f"mount --bind {self.directory}/{name} /etc/{name}; " for name in ("subuid", "subgid")
        )
        drop = f"exec setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps -all -- "
        command = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            places + drop + '"$@"',
            "sh",
        ]
        where = subprocess.PIPE if capture else subprocess.DEVNULL
        return subprocess.run(
            [*command, str(self.executable), "--root", str(self.directory / "state"), *words],
            cwd=self.directory / "bundle", text=True, check=False, stdin=subprocess.DEVNULL, stdout=where,
            stderr=where, timeout=patience(60), env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        )  # fmt: skip

    def output(self, *options: str) -> str:
        """Returns the output of a run; it must succeed and leave nothing."""
        got = self(*options, "run", self.name)
        assert got.returncode == 0, got.stderr
        assert os.listdir(self.directory / "state") == []
        return got.stdout


@pytest.fixture
def user() -> Iterator[Rootless]:
    """The bundle, in a directory that the user may enter."""
    force.need_root()
    force.need_program("setpriv")
    directory = Path(tempfile.mkdtemp(prefix="rftest-rootless-"))
    directory.chmod(0o755)
    try:
        made = Rootless(directory)
        yield made
        made("delete", "--force", made.name)
    finally:
        shutil.rmtree(directory)


def test_a_user_runs_a_container_as_its_root(user: Rootless) -> None:
    """With one id, which is its own outside; every namespace is the container's."""
    script = "id -u; cat /proc/self/uid_map; echo x > /made; readlink /proc/self/ns/net; ls /dev/null"
    words = user.shell(script).output().split()
    assert words[:4] == ["0", "0", str(USER), "1"]
    assert words[4] != os.readlink("/proc/self/ns/net")
    assert (user.rootfs / "made").stat().st_uid == USER


def test_ranges_of_ids_are_set_by_newuidmap(user: Rootless) -> None:
    """From /etc/subuid and /etc/subgid; a file of id 1000 inside is of the range outside."""
    force.need_program("newuidmap")
    user.with_ranges().config["process"]["user"] = {"uid": 1000, "gid": 1000}
    (user.rootfs / "tmp").chmod(0o777)
    (user.rootfs / "open").mkdir()
    (user.rootfs / "open").chmod(0o777)
    assert user.shell("id -u; id -g; touch /open/mine").output().split() == ["1000", "1000"]
    status = (user.rootfs / "open/mine").stat()
    assert (status.st_uid, status.st_gid) == (FIRST + 999, FIRST + 999)


def test_ids_that_are_not_the_users_are_refused(user: Rootless) -> None:
    """newuidmap refuses, and nothing is left."""
    force.need_program("newuidmap")
    for key in ("uidMappings", "gidMappings"):
        user.config["linux"][key] = [{"containerID": 0, "hostID": 0, "size": 10}]
    got = user("run", user.name)
    assert got.returncode == 1
    assert "newuidmap refused the mapping" in got.stderr
    assert os.listdir(user.directory / "state") == []


def test_the_life_cycle_of_a_detached_container(user: Rootless) -> None:
    """create, start, state, ps, exec, list, kill and delete."""
    user.with_ranges().shell("echo $$ > /tmp/up; exec sleep 3600")
    assert user("create", user.name, capture=False).returncode == 0
    assert json.loads(user("state", user.name).stdout)["status"] == "created"
    assert user("start", user.name).returncode == 0
    wait_for(lambda: user("exec", user.name, "/bin/cat", "/tmp/up").stdout == "1\n", "the workload to run")
    state = json.loads(user("state", user.name).stdout)
    assert state["status"] == "running"
    assert state["pid"] in json.loads(user("ps", "--format", "json", user.name).stdout)
    got = user("exec", "--user", "7:7", user.name, "/bin/sh", "-c", "id -u; exit 5")
    assert (got.stdout, got.returncode) == ("7\n", 5), got.stderr
    assert user("list", "-q").stdout.split() == [user.name]
    assert user("kill", "--all", user.name, "KILL").returncode == 0
    wait_for(lambda: json.loads(user("state", user.name).stdout)["status"] == "stopped", "its end")
    assert user("delete", user.name).returncode == 0
    assert os.listdir(user.directory / "state") == []


@pytest.mark.parametrize("options", [(), ("--cgroup-manager", "disabled")])
def test_a_limit_without_a_cgroup_is_an_error(user: Rootless, options: tuple[str, ...]) -> None:
    """It is never omitted; device rules are enforced by the user namespace alone."""
    rules = [{"allow": False, "access": "rwm"}]
    user.config["linux"]["resources"] = {"devices": rules, "memory": {}, "cpu": {"cpus": ""}}
    user.output(*options)
    user.config["linux"]["resources"]["memory"] = {"limit": 1 << 26}
    got = user(*options, "run", user.name)
    assert got.returncode == 1
    assert "config: linux.resources.memory: the container has no cgroup" in got.stderr
    assert os.listdir(user.directory / "state") == []


def test_cve_2019_5736_an_interpreter_of_the_users_own_is_sealed(user: Rootless) -> None:
    """Row 34: a container that gets access to it must not write it for the user's next command."""
    mine = user.directory / "bin/python3"
    shutil.copy(os.path.realpath("/usr/bin/python3"), mine)
    environment = {"PYTHONPATH": str(ROOT / "runtime"), "PATH": os.environ["PATH"]}
    command = [str(mine), "-m", "ringfence_runtime", "install", str(user.executable)]
    subprocess.run(command, check=True, env=environment)
    os.chown(mine, USER, USER)
    user.shell("exec sleep 3600")
    assert user("create", user.name, capture=False).returncode == 0
    pid = json.loads(user("state", user.name).stdout)["pid"]
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:")
    with pytest.raises(OSError, match=r"Operation not permitted|Text file busy"):
        os.open(f"/proc/{pid}/exe", os.O_WRONLY)
    seals = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
    try:
        assert fcntl.fcntl(seals, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
    finally:
        os.close(seals)


def test_commands_that_need_a_cgroup_are_refused(user: Rootless) -> None:
    """pause, events and update of a running container."""
    user.shell("exec sleep 3600")
    assert user("run", "--detach", user.name, capture=False).returncode == 0
    for words in (("pause",), ("events", "--stats"), ("update", "--memory", "64m")):
        got = user(*words, user.name)
        assert got.returncode == 1, words
        assert "has no cgroup" in got.stderr


def test_a_cgroup_that_was_not_delegated_is_refused(user: Rootless) -> None:
    """By the kernel, in one line."""
    user.config["linux"]["cgroupsPath"] = f"/{user.name}"
    got = user("run", user.name)
    assert got.returncode == 1
    assert "cannot make the cgroup" in got.stderr
    assert os.listdir(user.directory / "state") == []


def test_a_cgroup_of_the_users_own_is_used(user: Rootless) -> None:
    """Delegated as by systemd: the directory and its cgroup.procs belong to the user."""
    from tests.support.cgroups import is_pure_v2, new_cgroup

    if not is_pure_v2():
        force.elsewhere("a cgroup can only be delegated to a user on a pure version 2 host")
    with new_cgroup("mine") as mine:
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(mine.path / name, USER, USER)
        mine.add(os.getpid())  # the process that moves must own the nearest common ancestor: run from within
        try:
            user.config["linux"]["cgroupsPath"] = f"/{mine.name}/inner"
            user.shell("exec sleep 3600")
            got = user("run", "--detach", user.name, capture=False)
            assert got.returncode == 0
            pid = json.loads(user("state", user.name).stdout)["pid"]
            assert (mine.path / "inner/cgroup.procs").read_text() == f"{pid}\n"
            assert user("delete", "--force", user.name).returncode == 0
            assert not (mine.path / "inner").exists()
        finally:
            (mine.path.parent / "cgroup.procs").write_text(str(os.getpid()))


def test_the_default_root_is_the_users_alone(tmp_path: Path) -> None:
    """In /tmp anyone can be there first: with a directory, a link, or too permissive a mode."""
    mine = tmp_path / "mine"
    assert private_directory(str(mine)) == str(mine)
    assert mine.stat().st_mode & 0o777 == 0o700
    assert private_directory(str(mine)) == str(mine)
    foreign, wide, link, file = (tmp_path / name for name in ("foreign", "wide", "link", "file"))
    foreign.mkdir(mode=0o700)
    os.chown(foreign, 1234, 1234)
    wide.mkdir()
    wide.chmod(0o770)
    link.symlink_to(mine)
    file.write_text("")
    for path in (foreign, wide, link, file):
        with pytest.raises(Error, match="is not a private directory of this user"):
            private_directory(str(path))
