# SPDX-License-Identifier: Apache-2.0
"""The native init and the Python init execute the same operations: the containers must not differ.

Each configuration is launched twice with the same bundle, by an installation that has only the native init
(`install --no-fallback`) and by one that has only Python (`install --no-init`). The container describes
itself, and so does the tree that it leaves. Every operation with a lowered form occurs in a configuration.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence_runtime.cgroup import Cgroup
from ringfence_runtime.launch.operations.base import Operation
from ringfence_runtime.launch.operations.sequence import launch_operations
from ringfence_runtime.launch.plan import Options, Plan
from ringfence_runtime.spec import parse_config
from tests.runtime.configurations import CONFIGURATIONS, PYTHON_ONLY, fill
from tests.runtime.conftest import ROOT, Box, Runtime
from tests.support import force
from tests.support.container import make_rootfs

pytestmark = pytest.mark.root

# What the container says about itself: one section for each `== NAME`.
PROBE = r"""
say() { echo "== $1"; shift; "$@" 2>&1; }
say mounts cat /proc/$$/mountinfo
say status grep -E '^(Umask|Uid|Gid|Groups|Sig[PBIC]|ShdPnd|Cap|NoNewPrivs|Seccomp|Threads)' /proc/$$/status
say cpus grep -E '^(Cpus|Mems)_allowed_list' /proc/$$/status
say limits cat /proc/$$/limits
say oom cat /proc/$$/oom_score_adj
say cgroup cat /proc/$$/cgroup
say namespaces sh -c 'for n in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$n; done'
say descriptors ls /proc/$$/fd
say session cut -d' ' -f6,7,8 /proc/$$/stat
say environment env
say directory pwd
say umask sh -c umask
say names sh -c 'hostname; cat /proc/sys/kernel/domainname'
say machine uname -m
say loopback sh -c 'ip addr show lo | grep -v valid_lft'
say sysctls cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax
say devices sh -c 'cd /dev && stat -c "%n %F %a %u %g %t:%T" * | sort'
say links sh -c 'cd /dev && for l in fd stdin stdout stderr ptmx; do readlink $l; done'
say root sh -c 'stat -c "%n %F %a %u %g" / /* /tmp/* /data/* /etc/* | sort'
say keys sh -c "awk '/_ses/ {print \$5, \$6, \$7, \$8, \$9}' /proc/keys | sort"
say writes sh -c 'for f in / /proc/sys /sys /dev /tmp /data /etc; do touch $f/touched && echo $f; done'
say arguments cat /proc/$$/cmdline
"""
READS = r"""
say contents sh -c 'cat /etc/passwd /secret/file /link/file /data/file; ls /secret /data /tree /etc'
"""


class Pair:
    """One bundle for both interpreters."""

    def __init__(self, box: Box, native: Path, python: Path) -> None:
        self.box = box
        self.executables = {"native": native, "python": python}

    def prepare(self) -> None:
        """A new root filesystem: a container creates files in it."""
        if self.box.rootfs.exists():
            shutil.rmtree(self.box.rootfs)
        make_rootfs(self.box.rootfs, busybox=force.need_program("busybox"))
        fill(self.box.rootfs)

    def observe(self, which: str, options: list[str], globals_: list[str]) -> dict[str, Any]:
        """What is seen of a container that this interpreter makes."""
        self.prepare()
        runtime = Runtime(self.executables[which], self.box.runtime.root)
        self.box.write()
        words = [*globals_, "run", *options, self.box.name]
        got = runtime(*words, cwd=self.box.directory, umask=0o022)
        sections = re.split(r"^== ", got.stdout, flags=re.MULTILINE)
        seen: dict[str, Any] = {"code": got.returncode, "errors": got.stderr, "before": sections[0]}
        seen |= {head: body.splitlines() for head, _, body in (each.partition("\n") for each in sections[1:])}
        if "mounts" in seen:
            seen["mounts"] = normal_mounts(seen["mounts"])
        if "namespaces" in seen:
            seen["namespaces"] = [normal_namespace(link) for link in seen["namespaces"]]
        if "keys" in seen:
            seen["keys"] = [line for line in seen["keys"] if line.endswith(f"_ses.{self.box.name}:")]
        return seen | {"tree": tree(self.box.rootfs)}

    def differences(self, *options: str, globals_: list[str] | None = None) -> dict[str, Any]:
        """(native, Python) of each section in which the two containers differ."""
        native = self.observe("native", list(options), globals_ or [])
        python = self.observe("python", list(options), globals_ or [])
        assert "the native init cannot" not in native["errors"], native["errors"]
        assert "fell back" not in native["errors"], native["errors"]
        assert len(native) > 10 or native["code"] != 0, native
        keys = native.keys() | python.keys()
        return {key: (native.get(key), python.get(key)) for key in keys if native.get(key) != python.get(key)}


def normal_mounts(lines: list[str]) -> list[str]:
    """mountinfo in the order of the places, without the numbers that differ between mount namespaces.

    The kernel lists bind mounts by their age, and only Python makes those of cgroups in the container.
    """
    rows = [(line.partition(" - ")[0].split(" "), line.partition(" - ")[2]) for line in lines]
    places = {left[0]: left[4] for left, _ in rows}
    rows.sort(key=lambda row: (row[0][4], places.get(row[0][1], ""), row[0][3], row[1]))
    groups: dict[str, str] = {}
    devices: dict[str, str] = {}
    found = []
    for (_, parent, device, base, place, options, *tags), right in rows:
        pairs = [tag.partition(":") for tag in tags]
        named = [f"{word}:{groups.setdefault(group, str(len(groups)))}" for word, _, group in pairs]
        device = devices.setdefault(device, str(len(devices)))
        words = [places.get(parent, "(outside)"), device, base, place, options, *named, "-", right]
        found.append(" ".join(words))
    return found


def normal_namespace(link: str) -> str:
    """Whether it is the host's; the number of any other differs."""
    kind = link.partition(":")[0]
    return link if link == os.readlink(f"/proc/self/ns/{kind}") else f"{kind}: not the host's"


def tree(root: Path) -> list[str]:
    """Every file below the root filesystem, as the host sees it."""
    found = []
    for directory, directories, names in os.walk(root):
        for name in sorted([*directories, *names]):
            path = Path(directory, name)
            status = path.lstat()
            kind = stat.filemode(status.st_mode)
            points = os.readlink(path) if path.is_symlink() else ""
            owner = f"{status.st_uid}:{status.st_gid} {status.st_rdev}"
            found.append(f"{path.relative_to(root)} {kind} {owner} {points}")
    return sorted(found)


def installed(directory: Path, package: Path, *words: str) -> Path:
    """An executable of the runtime below `package`."""
    path = directory / "ringfence-runtime"
    directory.mkdir(parents=True, exist_ok=True)
    environment = {"PYTHONPATH": str(package), "PATH": os.environ["PATH"]}
    command = ["/usr/bin/python3", "-m", "ringfence_runtime", "install", *words, str(path)]
    subprocess.run(command, check=True, env=environment)
    return path


@pytest.fixture(scope="module")
def interpreters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An installation with only the native init, and one with only Python."""
    force.need_root()
    force.need_program("gcc")
    top = tmp_path_factory.mktemp("interpreters")
    package = ROOT / "runtime"
    native = installed(top / "native", package, "--no-fallback")
    return native, installed(top / "python", package, "--no-init")


@pytest.fixture
def pair(box: Box, interpreters: tuple[Path, Path]) -> Pair:
    """A bundle for both."""
    box.shell(PROBE + READS)
    return Pair(box, *interpreters)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_both_interpreters_make_the_same_container(pair: Pair, name: str, tmp_path: Path) -> None:
    """Seen from inside and in the tree that it leaves."""
    with CONFIGURATIONS[name](pair.box, tmp_path) as (options, globals_):
        assert pair.differences(*options, globals_=globals_) == {}


@pytest.mark.parametrize("name", PYTHON_ONLY)
def test_a_launch_that_cannot_be_lowered_is_pythons(pair: Pair, name: str) -> None:
    """Without Python the runtime refuses it, and says which operation is the reason."""
    PYTHON_ONLY[name](pair.box.config)
    pair.prepare()
    pair.box.runtime = Runtime(pair.executables["native"], pair.box.runtime.root)
    assert "the native init cannot" in pair.box.refused()


def test_an_unexpected_error_is_refused_without_python(pair: Pair) -> None:
    """The native init notices a device node that exists, and only Python knows what to do."""
    kept = [each for each in pair.box.config["mounts"] if not each["destination"].startswith("/dev")]
    pair.box.config["mounts"] = kept
    pair.prepare()
    os.mknod(pair.box.rootfs / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    pair.box.runtime = Runtime(pair.executables["native"], pair.box.runtime.root)
    assert "fell back to Python, which this installation forbids" in pair.box.refused()


@pytest.mark.parametrize("which", ["native", "python"])
def test_create_and_start_make_the_container_of_run(pair: Pair, which: str) -> None:
    """The init that waits on a socket is the same as the one that waits on its channel."""
    box = pair.box
    expected = pair.observe(which, [], [])
    pair.prepare()
    box.shell(f"({PROBE}{READS}) > /output").write()
    box.runtime = Runtime(pair.executables[which], box.runtime.root)
    assert box.do("create", capture=False, umask=0o022).returncode == 0
    if which == "native":
        assert Path(f"/proc/{box.state()['pid']}/cmdline").read_bytes() == b"ringfence-init\0"
    assert box.do("start").returncode == 0
    box.wait("stopped")
    sections = re.split(r"^== ", (box.rootfs / "output").read_text(), flags=re.MULTILINE)[1:]
    seen = {head: body.splitlines() for head, _, body in (each.partition("\n") for each in sections)}
    for key in (
        "status",
        "limits",
        "oom",
        "environment",
        "directory",
        "umask",
        "devices",
        "cgroup",
        "writes",
    ):
        assert seen[key] == expected[key]
    assert normal_mounts(seen["mounts"]) == expected["mounts"]


def subclasses(top: type[Operation]) -> Iterator[type[Operation]]:
    """All classes below, at every depth."""
    for each in top.__subclasses__():
        yield each
        yield from subclasses(each)


def operations_of(box: Box) -> set[type[Operation]]:
    """The kinds of operations that the bundle's configuration leads to, for a hybrid host."""
    config = parse_config(json.dumps(box.config).encode())
    plan = Plan(config, str(box.directory), Options())
    plan.namespaces = {name: -1 for name, path in plan.joins.items() if path}
    dirs = {"": "/sys/fs/cgroup/unified/x", "pids": "/sys/fs/cgroup/pids/x"}
    container: Any = SimpleNamespace(id="x", cgroup=Cgroup("/x", dirs))
    return {type(each) for each in launch_operations(plan, container, None)}


def test_every_lowered_operation_is_compared(box: Box, tmp_path: Path) -> None:
    """No operation gets a lowered form without a configuration that uses it."""
    used: set[type[Operation]] = set()
    original = json.dumps(box.config)
    for index, change in enumerate(CONFIGURATIONS.values()):
        box.config = json.loads(original)
        place = tmp_path / str(index)
        place.mkdir()
        with change(box, place):
            used |= operations_of(box)
    # The launcher passes streams; a host with version 2 only, or with version 1 only, mounts its cgroups.
    elsewhere = {"TakeStreams"}
    lowered = {each for each in subclasses(Operation) if each.lower is not Operation.lower}
    concrete = {each for each in lowered if each.describe is not Operation.describe}
    missing = {each.__name__ for each in concrete - used} - elsewhere - {"MountOperation"}
    assert not missing


# (module, text, what replaces it): each of them breaks one interpreter.
SET = (
    '            program.call("prctl", syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE,'
    " number, 0, 0)\n"
)
PRIVILEGES = '        target.program.call("prctl", syscalls.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)\n'
READ_ONLY = "        target.set_attributes(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY, recursive=True)\n"
LOOPBACK = "            fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, _LOOPBACK_UP)\n"
BREAKS: dict[str, tuple[str, str, str]] = {
    "the mask of a directory can be written": ("protection", "*_EMPTY), HARD), found)", "*_EMPTY)), found)"),
    "a masked file is not masked": ("protection", "        target.move(node, found)\n", ""),
    "a read-only path can be written": ("protection", READ_ONLY, ""),
    "an ambient capability is missing": ("identity", SET, "            pass\n"),
    "no_new_privs is missing": ("identity", PRIVILEGES, "        pass\n"),
    "the loopback interface is down": ("isolation", LOOPBACK, "            pass\n"),
    "the umask is that of the launch": (
        "settings",
        "        os.umask(self.value)\n",
        "        os.umask(0)\n",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", BREAKS)
def test_the_comparison_notices_an_interpreter_that_differs(pair: Pair, name: str, tmp_path: Path) -> None:
    """A copy of the runtime with a mistake in one interpreter is found."""
    file, text, replacement = BREAKS[name]
    package = tmp_path / "package"
    shutil.copytree(ROOT / "runtime", package)
    source = package / f"ringfence_runtime/launch/operations/{file}.py"
    assert source.read_text().count(text) == 1
    source.write_text(source.read_text().replace(text, replacement))
    pair.executables = {
        "native": installed(tmp_path / "native", package, "--no-fallback"),
        "python": installed(tmp_path / "python", package, "--no-init"),
    }
    with CONFIGURATIONS["everything"](pair.box, tmp_path) as (options, globals_):
        assert pair.differences(*options, globals_=globals_)
