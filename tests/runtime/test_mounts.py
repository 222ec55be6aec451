# SPDX-License-Identifier: Apache-2.0
"""The container's files: mounts of every kind, masks, read-only paths, devices."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.support import force

pytestmark = pytest.mark.root
BOTH_INITS = True


def test_idmapped_mount(box: Box, tmp_path: Path) -> None:
    """A file of the host's id 1000 belongs to 0 inside."""
    source = tmp_path / "data"
    source.mkdir()
    (source / "file").write_text("x")
    os.chown(source / "file", 1000, 1000)
    ranges = [{"containerID": 1000, "hostID": 0, "size": 1}]
    box.config["mounts"].append(
        {
            "destination": "/data",
            "type": "bind",
            "source": str(source),
            "options": ["rbind"],
            "uidMappings": ranges,
            "gidMappings": ranges,
        }
    )
    got = box.args("/bin/stat", "-c", "%u %g", "/data/file").run()
    if "cannot be id-mapped" in got.stderr:
        force.elsewhere(
            "this kernel cannot id-map the filesystem of the temporary directory (tmpfs: from 6.3)"
        )
    assert got.stdout.split() == ["0", "0"], got.stderr


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_source_that_an_earlier_mount_makes(box: Box, tmp_path: Path, below: str) -> None:
    """A bind mount of a path of the root filesystem shows what the container has there, not the host."""
    rootfs = Path(box.directory, box.config["root"]["path"])
    (rootfs / "made/below").mkdir(parents=True)
    (rootfs / "made/covered").touch()
    (rootfs / "made/below/covered").touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "seen").touch()
    (tmp_path / "below/seen").touch()
    box.config["mounts"] += [
        {"destination": "/made", "type": "bind", "source": str(tmp_path), "options": ["bind"]},
        {"destination": "/again", "type": "bind", "source": f"{rootfs}/made{below}", "options": ["bind"]},
    ]
    got = box.args("/bin/find", "/again", "-type", "f", "-maxdepth", "1").run()
    assert (got.stdout, got.stderr) == ("/again/seen\n", "")


def test_a_source_that_an_earlier_mount_lacks(box: Box, tmp_path: Path) -> None:
    """An error with the path: a file of the host that the mount covers is none of the container's."""
    rootfs = Path(box.directory, box.config["root"]["path"])
    (rootfs / "made").mkdir()
    (rootfs / "made/covered").touch()
    source = f"{rootfs}/made/covered"
    box.config["mounts"] += [
        {"destination": "/made", "type": "bind", "source": str(tmp_path), "options": ["bind"]},
        {"destination": "/again", "type": "bind", "source": source, "options": ["bind"]},
    ]
    assert f"mounts[6]: cannot open the source {source}: No such file or directory" in box.refused()


def test_an_option_clears_what_the_source_has(box: Box, tmp_path: Path) -> None:
    """A source without programs, devices or writes has them in the container, if its options say so."""
    source = tmp_path / "fenced"
    source.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "ro,noexec,nosuid,nodev,noatime", "rftest", str(source)]
    subprocess.run(made, check=True)
    try:
        words = ["rw", "exec", "suid", "dev", "atime"]
        for options, expected in (
            (["rbind"], {"ro", "noexec", "nosuid", "nodev", "noatime"}),
            (["rbind", *words], {"rw"}),
            (["rbind", *(f"r{word}" for word in words)], {"rw"}),
        ):
            box.config["mounts"][5:] = [
                {"destination": "/data", "type": "bind", "source": str(source), "options": options}
            ]
            line = box.shell("grep ' /data ' /proc/self/mountinfo").output()
            assert set(line.split()[5].split(",")) - {"relatime"} == expected, options
    finally:
        subprocess.run(["umount", str(source)], check=True)


def test_a_label_for_mounts_needs_selinux(box: Box) -> None:
    """It is not ignored."""
    if Path("/sys/fs/selinux/enforce").exists():
        force.elsewhere("this host has SELinux")
    box.config["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0"
    assert "config: linux.mountLabel: " in box.refused()


def test_the_hosts_tree_is_not_visible(box: Box) -> None:
    """No mount of the host is left in the container's table, and / is the container's."""
    table = box.args("/bin/cat", "/proc/self/mountinfo").output().splitlines()
    assert len(table) < 20
    assert table[0].split()[3] == str(box.rootfs) or str(box.rootfs).endswith(table[0].split()[3])
    assert not any(" shared:" in line for line in table)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host on a shared mount, as all are under systemd."""
    place = tmp_path / "shared"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "rftest", str(place)], check=True)
    subprocess.run(["mount", "--make-shared", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--recursive", str(place)], check=True)


def peers(table: str, place: str) -> set[str]:
    """Returns the propagation of the mount at a place: `shared:N`, `master:N`."""
    [line] = [line for line in table.splitlines() if line.split()[4] == place]
    return set(line.split(" - ")[0].split()[6:])


@pytest.mark.parametrize("root", ["", "private", "rprivate", "slave", "rslave", "rshared"])
@pytest.mark.parametrize("own", ["", "rprivate", "rslave", "rshared"])
def test_a_mount_has_its_own_propagation_whatever_the_root_has(
    box: Box, shared: Path, root: str, own: str
) -> None:
    """A shared mount stays a peer of its source; a private one is not, even below a shared root."""
    if root:
        box.config["linux"]["rootfsPropagation"] = root
    options = ["rbind", *([own] if own else [])]
    box.config["mounts"].append(
        {"destination": "/s", "type": "bind", "source": str(shared), "options": options}
    )
    [host] = peers(Path("/proc/self/mountinfo").read_text(), str(shared))
    inside = peers(box.args("/bin/cat", "/proc/self/mountinfo").output(), "/s")
    if own == "rshared":
        assert host in inside
    elif own == "rslave":
        assert inside == {f"master:{host.partition(':')[2]}"}
    elif own == "rprivate" or root == "rprivate":
        assert inside == set()
    else:
        assert host not in inside  # it receives, at most


def test_a_bound_cgroup_is_no_peer_of_the_hosts(box: Box) -> None:
    """Without a cgroup namespace the directories themselves are bound."""
    spaces = box.config["linux"]["namespaces"]
    box.config["linux"]["namespaces"] = [each for each in spaces if each["type"] != "cgroup"]
    box.config["mounts"].append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
    )
    table = box.args("/bin/cat", "/proc/self/mountinfo").output().splitlines()
    assert any(line.split()[4].startswith("/sys/fs/cgroup") for line in table)
    assert not any(" shared:" in line for line in table)


def test_mounts_do_not_reach_the_host(box: Box) -> None:
    """Not even when the bundle lies on a shared mount."""
    before = Path("/proc/self/mountinfo").read_text()
    box.start()
    assert Path("/proc/self/mountinfo").read_text() == before


def test_read_only_root_and_paths(box: Box) -> None:
    """Neither the root, a read-only path nor a read-only mount can be written."""
    box.config["root"]["readonly"] = True
    targets = "/x /proc/sys/kernel/domainname /sys/x"
    script = f"for f in {targets}; do {{ echo 1 > $f; }} 2>/dev/null && echo $f; done; echo end"
    assert box.shell(script).output() == "end\n"


def test_masked_paths_are_empty(box: Box, tmp_path: Path) -> None:
    """A file reads as /dev/null, a directory as an empty one."""
    (box.rootfs / "secret").mkdir()
    (box.rootfs / "secret/file").write_text("x")
    box.config["linux"]["maskedPaths"] += ["/secret", "/etc/passwd", "/absent"]
    got = box.shell("ls /secret | wc -l; wc -c < /etc/passwd; stat -c %t:%T /etc/passwd").output().split()
    assert got == ["0", "0", "1:3"]


def test_a_masked_directory_can_be_searched(box: Box) -> None:
    """`find /` and `du` of a user without capabilities report no error."""
    (box.rootfs / "secret").mkdir()
    (box.rootfs / "secret/file").write_text("x")
    box.config["linux"]["maskedPaths"] += ["/secret"]
    box.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    del box.config["process"]["capabilities"]
    got = box.shell("find /secret; touch /secret/new").run()
    assert got.stdout == "/secret\n"
    assert "find" not in got.stderr
    assert "Read-only file system" in got.stderr


def new_tmpfs(box: Box, destination: str, *options: str) -> None:
    """Add a tmpfs."""
    box.config["mounts"].append(
        {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)}
    )


def test_a_tmpfs_on_a_created_mount_point_is_writable_for_all(box: Box) -> None:
    """It has 1777, at the second start, too; on an existing directory it has the mode of that."""
    (box.rootfs / "old").mkdir(mode=0o750)
    for path in ("/new/below", "/old"):
        new_tmpfs(box, path)
    new_tmpfs(box, "/own", "size=1m,mode=700")
    box.shell("stat -c %a /new /new/below /old /own")
    for _ in range(2):
        assert box.output().split() == ["755", "1777", "750", "700"]


def test_read_only_filesystems_are_sealed_after_what_lies_below(box: Box) -> None:
    """A `ro` of /dev, or of a tmpfs that has mount points, devices or the working directory in it."""
    box.config["mounts"][1]["options"].append("ro")
    for path, option in (("/a", "ro"), ("/a/b", "rro"), ("/a/b/c", "rw"), ("/d", "ro"), ("/w", "ro")):
        new_tmpfs(box, path, option)
    box.config["linux"]["devices"] = [{"path": "/d/null", "type": "c", "major": 1, "minor": 3}]
    box.config["process"]["cwd"] = "/w/here"
    got = box.shell("pwd; ls -d /d/null /dev/pts/ptmx; touch /dev/x /a/x /a/b/x /a/b/c/x /d/x /w/x").run()
    assert got.stdout.split() == ["/w/here", "/d/null", "/dev/pts/ptmx"]
    refused = [line.split()[1] for line in got.stderr.splitlines() if "Read-only file system" in line]
    assert refused == ["/dev/x:", "/a/x:", "/a/b/x:", "/d/x:", "/w/x:"]


def test_a_copied_up_tmpfs_can_be_read_only(box: Box) -> None:
    """It is filled first."""
    (box.rootfs / "data").mkdir()
    (box.rootfs / "data/file").write_text("copied\n")
    new_tmpfs(box, "/data", "tmpcopyup", "ro")
    got = box.shell("cat /data/file; touch /data/new").run()
    assert got.stdout == "copied\n"
    assert "Read-only file system" in got.stderr


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_file_over_a_directory_is_named(box: Box, tmp_path: Path, kind: str) -> None:
    """And a directory over a file: the kernel says EINVAL to both."""
    (tmp_path / "file").touch()
    source = tmp_path / "file" if kind == "file" else tmp_path
    target = "/bin" if kind == "file" else "/etc/passwd"
    box.config["mounts"].append(
        {"destination": target, "type": "bind", "source": str(source), "options": ["rbind"]}
    )
    source_is, target_is = ("not a directory", "a directory") if kind == "file" else ("a directory", "not a ")
    expected = f"mounts[5]: the source {source} is {source_is}, but {target} in the container is {target_is}"
    assert expected in box.refused()


def test_options_without_effect_on_a_bind_mount_are_reported(box: Box, tmp_path: Path) -> None:
    """Otherwise a typing error would silently omit an attribute."""
    options = ["bind", "ro", "noexce", "dirsync"]
    box.config["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(tmp_path), "options": options}
    )
    got = box.args("/bin/true").run()
    assert got.returncode == 0, got.stderr
    assert "mounts[5].options: 'noexce, dirsync' means nothing to a bind mount" in got.stderr


def test_recursive_attributes(box: Box, tmp_path: Path) -> None:
    """`rro` makes the mounts below read-only, too; `ro` only the one."""
    source = tmp_path / "tree"
    (source / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "rftest", str(source / "below")], check=True)
    try:
        for word, expected in (("ro", "written\n"), ("rro", "")):
            box.config["mounts"][-1] = {
                "destination": "/tree",
                "type": "bind",
                "source": str(source),
                "options": ["rbind", word],
            }
            box.shell(
                "touch /tree/x 2>/dev/null && echo wrong; touch /tree/below/x 2>/dev/null && echo written"
            )
            assert box.run().stdout == expected
    finally:
        subprocess.run(["umount", str(source / "below")], check=True)


def test_default_devices_and_links(box: Box) -> None:
    """The six nodes with their numbers, the links, and a pty multiplexer of its own."""
    box.shell("cd /dev; stat -c '%n %t:%T %a' null zero full random urandom tty; readlink ptmx; readlink fd")
    got = box.output().splitlines()
    assert [line.split()[1] for line in got[:6]] == ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"]
    assert {line.split()[2] for line in got[:6]} == {"666"}
    assert got[6:] == ["pts/ptmx", "/proc/self/fd"]


def test_a_device_of_the_configuration(box: Box) -> None:
    """With its owner and its mode."""
    box.config["linux"]["devices"] = [
        {"path": "/dev/sub/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 5, "gid": 6}
    ]
    assert box.args("/bin/stat", "-c", "%t:%T %a %u %g", "/dev/sub/mine").output().split() == [
        "1:5",
        "640",
        "5",
        "6",
    ]


def test_a_bound_dev_is_not_written_to(box: Box, tmp_path: Path) -> None:
    """It is the host's: configured devices are looked up there, and never created."""
    place = tmp_path / "dev"
    place.mkdir()
    os.mknod(place / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    box.config["mounts"] = [
        *(each for each in box.config["mounts"] if not each["destination"].startswith("/dev")),
        {"destination": "/dev", "type": "bind", "source": str(place), "options": ["rbind"]},
    ]
    box.config["linux"]["devices"] = [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]
    assert box.args("/bin/true").run().returncode == 0
    for device, why in (("/dev/zero", "No such file"), ("/dev/null", "another file is there")):
        box.config["linux"]["devices"] = [{"path": device, "type": "c", "major": 1, "minor": 5}]
        assert why in box.refused()
    assert os.listdir(place) == ["null"]


def test_devices_that_are_not_allowed_fail(box: Box) -> None:
    """A node can be created, and not opened; the same for /dev/kmsg."""
    box.config["process"]["capabilities"]["bounding"].append("CAP_MKNOD")
    box.config["process"]["capabilities"]["effective"].append("CAP_MKNOD")
    box.config["process"]["capabilities"]["permitted"].append("CAP_MKNOD")
    box.shell(
        "mknod /tmp/k c 1 11; cat /dev/null && echo null; cat /tmp/k 2>/dev/null && echo kmsg; echo end"
    )
    box.config["mounts"][-1]["options"] = []
    assert box.output().split() == ["null", "end"]


def test_tmpfs_copies_what_it_covers(box: Box) -> None:
    """tmpcopyup."""
    (box.rootfs / "data").mkdir(mode=0o751)
    (box.rootfs / "data/file").write_text("kept")
    (box.rootfs / "data/link").symlink_to("/etc/passwd")
    box.config["mounts"].append(
        {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    )
    got = box.shell("cat /data/file; readlink /data/link; stat -c %a /data; echo x > /data/file").output()
    assert got.split() == ["kept/etc/passwd", "751"]
    assert (box.rootfs / "data/file").read_text() == "kept"


def copied_up(box: Box) -> Box:
    """With a tmpfs that copies /data up."""
    (box.rootfs / "data").mkdir()
    mount = {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    box.config["mounts"].append(mount)
    return box


def test_the_size_copied_into_a_tmpfs_is_bounded(box: Box) -> None:
    """A sparse file of an image would fill the memory of the host with zeros."""
    copied_up(box)
    with (box.rootfs / "data/sparse").open("w") as file:
        file.truncate(1 << 40)
    message = box.refused()
    assert f"mounts[{len(box.config['mounts']) - 1}]" in message
    assert "too much to copy" in message


def test_a_deep_tree_is_copied_or_refused_with_an_error(box: Box) -> None:
    """A hundred levels are accepted; two thousand are refused, without an internal error."""
    top = copied_up(box).rootfs / "data"
    deep = top.joinpath(*["d"] * 100)
    deep.mkdir(parents=True)
    (deep / "file").write_text("found")
    assert box.args("/bin/cat", "/data/" + "d/" * 100 + "file").output() == "found"
    here = os.open(deep, os.O_RDONLY)
    for _ in range(1900):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        assert "too deep" in box.refused()
    finally:
        subprocess.run(["rm", "-rf", str(top)], check=True)


def test_overlay_mount(box: Box, tmp_path: Path) -> None:
    """A filesystem with options of its own."""
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/file").write_text("lower")
    options = [f"lowerdir={tmp_path}/lower", f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work"]
    box.config["mounts"].append(
        {"destination": "/o", "type": "overlay", "source": "overlay", "options": options}
    )
    assert box.shell("cat /o/file; echo new > /o/file").output() == "lower"
    assert (tmp_path / "upper/file").read_text() == "new\n"
