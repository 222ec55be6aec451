# SPDX-License-Identifier: Apache-2.0
"""Configurations that cover every operation of a launch, for both interpreters of the operations."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.runtime.conftest import Box

__all__ = ["CONFIGURATIONS", "PYTHON_ONLY", "fill"]

#: a change of a bundle: gives the options of `run` and those before the command
Change = Callable[[Box, Path], contextlib.AbstractContextManager[tuple[list[str], list[str]]]]
CONFIGURATIONS: dict[str, Change] = {}
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def fill(root: Path) -> None:
    """What the images of the configurations contain."""
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    for directory, mode in (("secret", 0o755), ("data", 0o751), ("tree", 0o700), ("deep", 0o711)):
        (root / directory).mkdir(mode=mode)
        (root / directory).chmod(mode)
        (root / directory / "file").write_text(f"in {directory}\n")
    (root / "link").symlink_to("/secret")
    (root / "private").mkdir(mode=0o700)
    os.chown(root / "private", 1000, 1000)
    (root / "bad").write_text("neither a program nor a script\n")
    (root / "bad").chmod(0o755)


def configuration(name: str) -> Callable[[Callable[[Box, Path], Any]], None]:
    """Adds a function that changes a bundle; it returns options of `run`, if there are any."""

    def add(change: Callable[[Box, Path], Any]) -> None:
        @contextlib.contextmanager
        def changed(box: Box, place: Path) -> Iterator[tuple[list[str], list[str]]]:
            got = change(box, place)
            if isinstance(got, Iterator):
                with contextlib.contextmanager(lambda: got)():
                    yield [], []
            else:
                options, globals_ = got or ([], [])
                yield options, globals_

        CONFIGURATIONS[name] = changed

    return add


def simple(name: str, **members: Any) -> None:
    """A configuration with these members of `linux`, `process` or the top, as LEVEL_MEMBER."""

    def change(box: Box, _: Path) -> None:
        for key, value in members.items():
            level, member = key.split("_", 1)
            (box.config if level == "top" else box.config[level])[member] = value

    configuration(name)(change)


def without_namespaces(box: Box, *kinds: str) -> None:
    """Leaves namespaces out."""
    spaces = box.config["linux"]["namespaces"]
    box.config["linux"]["namespaces"] = [each for each in spaces if each["type"] not in kinds]


def mount(box: Box, destination: str, kind: str, source: str, *options: str, **more: Any) -> None:
    """Adds a mount."""
    box.config["mounts"].append(
        {"destination": destination, "type": kind, "source": source, "options": list(options), **more}
    )


simple("default")
simple("read-only root", root_readonly=True)
simple("no root user", process_user={"uid": 1000, "gid": 1000, "additionalGids": [5, 7], "umask": 0o77})
simple("a user without an entry", process_user={"uid": 4321, "gid": 99})
simple("a home that is given", process_env=["PATH=/bin", "HOME=/given", "A=1", "A=2"])
simple("an empty home, and no path", process_env=["HOME=", "B=1"])
simple("no capabilities", process_capabilities={name: [] for name in SETS})
simple(
    "all capability sets",
    process_capabilities={name: ["CAP_KILL", "CAP_CHOWN"] for name in SETS},
    process_user={"uid": 1000, "gid": 1000},
)
simple(
    "inheritable beyond permitted",
    process_capabilities={
        "bounding": ["CAP_KILL", "CAP_CHOWN"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    },
)
simple("privileges may grow", process_noNewPrivileges=False)
simple("limits", process_rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}])
simple("another oom score", process_oomScoreAdj=321)
simple("personality", linux_personality={"domain": "LINUX32"})
simple("sysctls", linux_sysctl={"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"})
simple("names", top_hostname="other", top_domainname="example.org")
simple("a working directory that is missing", process_cwd="/a/b/c")
simple("a working directory behind a link", process_cwd="/link")
simple(
    "masked paths",
    process_env=["PATH=/bin", "HOME=/"],
    linux_maskedPaths=["/secret", "/etc/passwd", "/absent", "/etc/passwd/x", "/proc/keys"],
)
simple("masked links", linux_maskedPaths=["/link", "/link/file"])
simple("read-only paths", linux_readonlyPaths=["/data", "/etc/passwd", "/absent", "/proc", "/link"])
simple("masked and read-only", linux_maskedPaths=["/data/file"], linux_readonlyPaths=["/data"])
simple("no masks", linux_maskedPaths=[], linux_readonlyPaths=[])
for _kind in ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable"):
    simple(f"root propagation {_kind}", linux_rootfsPropagation=_kind)


@configuration("default capabilities")
def _default_capabilities(box: Box, _: Path) -> None:
    del box.config["process"]["capabilities"]


@configuration("default capabilities of a user")
def _default_capabilities_of_a_user(box: Box, _: Path) -> None:
    del box.config["process"]["capabilities"]
    box.config["process"]["user"] = {"uid": 1000, "gid": 1000}


@configuration("fewer namespaces")
def _fewer_namespaces(box: Box, _: Path) -> None:
    without_namespaces(box, "ipc", "cgroup")


@configuration("no host name of its own")
def _no_host_name(box: Box, _: Path) -> None:
    without_namespaces(box, "uts")
    del box.config["hostname"]


@configuration("joined namespaces")
def _joined(box: Box, _: Path) -> Iterator[None]:
    """Of a process that the test starts."""
    del box.config["hostname"]
    command = ["unshare", "-nuiC", "sh", "-c", "echo; exec sleep infinity"]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        for item in box.config["linux"]["namespaces"]:
            if item["type"] in ("network", "ipc", "uts", "cgroup"):
                name = {"network": "net"}.get(item["type"], item["type"])
                item["path"] = f"/proc/{holder.pid}/ns/{name}"
        yield
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


@configuration("the caller's keyring")
def _no_new_keyring(box: Box, _: Path) -> tuple[list[str], list[str]]:
    box.config["linux"]["maskedPaths"] = []
    return ["--no-new-keyring"], []


@configuration("a keyring of its own")
def _own_keyring(box: Box, _: Path) -> None:
    box.config["linux"]["maskedPaths"] = []


@configuration("no cgroup")
def _no_cgroup(box: Box, _: Path) -> tuple[list[str], list[str]]:
    mount(box, "/sys/fs/cgroup", "cgroup", "cgroup", "ro")
    return [], ["--cgroup-manager", "disabled"]


@configuration("cgroups")
def _cgroups(box: Box, _: Path) -> None:
    mount(box, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")


@configuration("cgroups that can be written")
def _writable_cgroups(box: Box, _: Path) -> None:
    mount(box, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "rprivate")


@configuration("cgroups of the host")
def _host_cgroups(box: Box, _: Path) -> None:
    without_namespaces(box, "cgroup")
    mount(box, "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "ro")


@configuration("the version 2 cgroup")
def _unified(box: Box, _: Path) -> None:
    mount(box, "/sys/fs/cgroup", "cgroup2", "cgroup2", "nosuid", "ro")


@configuration("bind mounts")
def _binds(box: Box, place: Path) -> None:
    (place / "source").mkdir()
    (place / "source/file").write_text("of the host\n")
    source = str(place / "source")
    mount(box, "/data", "bind", source, "rbind", "ro", "nosuid", "noexec", "nodev")
    mount(box, "/new/directory", "bind", source, "bind", "rro", "noatime", "nosymfollow")
    mount(box, "/etc/passwd", "bind", f"{source}/file", "bind", "ro")
    mount(box, "/new/file", "bind", f"{source}/file", "bind", "dev", "rprivate")
    mount(box, "/link/below", "bind", source, "rbind", "rnosuid", "nodiratime")


@configuration("propagation of bind mounts")
def _propagation(box: Box, place: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "rftest", str(place)], check=True)
    subprocess.run(["mount", "--make-shared", str(place)], check=True)
    try:
        box.config["linux"]["rootfsPropagation"] = "rslave"
        for word in ("rshared", "shared", "rslave", "slave", "rprivate", "private", "unbindable"):
            mount(box, f"/mounts/{word}", "bind", str(place), "rbind", word)
        mount(box, "/mounts/none", "bind", str(place), "rbind")
        yield
    finally:
        subprocess.run(["umount", "--recursive", str(place)], check=True)


@configuration("id-mapped")
def _idmapped(box: Box, place: Path) -> None:
    (place / "source").mkdir()
    (place / "source/file").touch()
    os.chown(place / "source/file", 1000, 1000)
    ranges = [{"containerID": 1000, "hostID": 0, "size": 1}]
    mount(box, "/data", "bind", str(place / "source"), "rbind", uidMappings=ranges, gidMappings=ranges)


@configuration("filesystems")
def _filesystems(box: Box, place: Path) -> None:
    for name in ("lower", "upper"):
        (place / name).mkdir(exist_ok=True)
    mount(box, "/data", "tmpfs", "tmpfs", "nosuid", "size=64k")
    mount(box, "/new/tmpfs", "tmpfs", "tmpfs", "ro", "noexec", "rnodev", "mode=1777,nr_inodes=10")
    mount(box, "/new/tmpfs/below", "tmpfs", "tmpfs", "ro")
    mount(box, "/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev")
    mount(box, "/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k")
    mount(box, "/tree", "tmpfs", "", "strictatime", "slave")
    mount(box, "/overlay", "overlay", "overlay", f"lowerdir={place}/lower:{place}/upper")
    mount(box, "relative/place", "tmpfs", "tmpfs", "dirsync")


@configuration("devices")
def _devices(box: Box, _: Path) -> None:
    box.config["linux"]["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 5, "gid": 7},
        {"path": "/dev/below/block", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o622},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o444},
        {"path": "/elsewhere", "type": "u", "major": 1, "minor": 3},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
    ]


@configuration("no filesystem at /dev")
def _image_dev(box: Box, _: Path) -> None:
    kept = [each for each in box.config["mounts"] if not each["destination"].startswith("/dev")]
    box.config["mounts"] = kept
    box.config["linux"]["devices"] = [{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}]


@configuration("devices of the host")
def _host_dev(box: Box, place: Path) -> None:
    """A directory with the default devices stands for the host's."""
    directory = place / "devices"
    directory.mkdir()
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("urandom", 9)):
        os.mknod(directory / name, 0o20666, os.makedev(1, minor))
    kept = [each for each in box.config["mounts"] if not each["destination"].startswith("/dev")]
    box.config["mounts"] = kept
    mount(box, "/dev", "bind", str(directory), "rbind", "ro")


@configuration("seccomp")
def _seccomp(box: Box, _: Path) -> None:
    box.config["linux"]["seccomp"] = seccomp("SCMP_ACT_ALLOW", "chroot")


@configuration("seccomp without no_new_privs")
def _seccomp_and_privileges(box: Box, _: Path) -> None:
    box.config["process"]["noNewPrivileges"] = False
    box.config["linux"]["seccomp"] = seccomp("SCMP_ACT_ALLOW", "chroot")


def seccomp(default: str, *refused: str) -> dict[str, Any]:
    """A profile."""
    rules = [{"names": list(refused), "action": "SCMP_ACT_ERRNO"}]
    return {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules}


@configuration("a file that cannot be executed")
def _not_executable(box: Box, _: Path) -> None:
    box.args("/bad")


@configuration("a program on the path")
def _on_the_path(box: Box, _: Path) -> None:
    box.config["process"]["env"] = ["PATH=/nowhere:/secret:/bin"]
    box.config["process"]["args"][0] = "sh"


@configuration("everything")
def _everything(box: Box, place: Path) -> None:
    for name in ("bind mounts", "devices", "cgroups", "seccomp"):
        with CONFIGURATIONS[name](box, place):
            pass
    box.config["linux"]["maskedPaths"] += ["/secret", "/etc/group", "/deep/file"]
    box.config["linux"]["readonlyPaths"] += ["/tree"]
    box.config["linux"]["sysctl"] = {"kernel.msgmax": "4096"}
    box.config["process"]["user"] = {"uid": 0, "gid": 0, "umask": 0o27}
    box.config["process"]["env"].append("HOME=/")
    capabilities = box.config["process"]["capabilities"]
    capabilities["inheritable"] = capabilities["ambient"] = ["CAP_KILL"]


def _terminal(config: dict[str, Any]) -> None:
    config["process"]["terminal"] = True


def _hook(kind: str) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.update(hooks={kind: [{"path": "/bin/true"}]})


def _user_namespace(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"].append({"type": "user"})
    ids = [{"containerID": 0, "hostID": 0, "size": 65536}]
    config["linux"].update(uidMappings=ids, gidMappings=ids)


def _time_namespace(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"].append({"type": "time"})


def _with(level: str, member: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config[level].__setitem__(member, value)


def _mount_with(*options: str, destination: str = "/data", source: str = "tmpfs") -> Any:
    def change(config: dict[str, Any]) -> None:
        kind = "bind" if source.startswith("/") else "tmpfs"
        item = {"destination": destination, "type": kind, "source": source, "options": list(options)}
        config["mounts"].append(json.loads(json.dumps(item)))

    return change


#: changes after which an operation has no lowered form
PYTHON_ONLY: dict[str, Callable[[dict[str, Any]], None]] = {
    "terminal": _terminal,
    **{kind: _hook(kind) for kind in ("prestart", "createRuntime", "createContainer", "startContainer")},
    "user namespace": _user_namespace,
    "time namespace": _time_namespace,
    "scheduler": _with("process", "scheduler", {"policy": "SCHED_BATCH", "nice": 5}),
    "io priority": _with("process", "ioPriority", {"class": "IOPRIO_CLASS_IDLE", "priority": 0}),
    "memory policy": _with("linux", "memoryPolicy", {"mode": "MPOL_DEFAULT"}),
    "landlock": _with("linux", "landlock", {}),
    "no arguments": _with("process", "args", []),
    "copy up": _mount_with("tmpcopyup"),
    "copied link": _mount_with("rbind", "copy-symlink", source="/etc"),
    "destination without links": _mount_with("rbind", "dest-nofollow", source="/etc"),
    "a mount at /": _mount_with(destination="/"),
}
