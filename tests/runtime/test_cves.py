# SPDX-License-Identifier: Apache-2.0
"""Regression tests named after the CVEs of runtimes (ESCAPES rows 33-44): each the host side trusting the
image.

The attacks are harmless: they aim at files of the test's own, or try to open for writing and write nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.runtime.conftest import Box

pytestmark = pytest.mark.root
BOTH_INITS = True


def bind(box: Box, source: Path, destination: str, *options: str) -> None:
    """Add a bind mount."""
    box.config["mounts"].append(
        {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}
    )


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host's that no container may reach."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "victim").write_text("untouched")
    return path


@pytest.mark.parametrize("link", ["{outside}", "../../../../../../../..{outside}", "/a/../..{outside}"])
def test_cve_2021_30465_mount_through_a_symlink(box: Box, outside: Path, tmp_path: Path, link: str) -> None:
    """Row 33: a volume whose mount point is a symlink out of the root; it is resolved inside."""
    (box.rootfs / "mnt").rmdir() if (box.rootfs / "mnt").exists() else None
    (box.rootfs / "mnt").symlink_to(link.format(outside=outside))
    source = tmp_path / "volume"
    source.mkdir()
    (source / "planted").write_text("x")
    bind(box, source, "/mnt/deep")
    assert box.args("/bin/cat", "/mnt/deep/planted").output() == "x"
    assert sorted(os.listdir(outside)) == ["victim"]


def test_cve_2017_1002101_symlink_in_the_middle(box: Box, outside: Path, tmp_path: Path) -> None:
    """Row 33: the directory before the last is the link."""
    (box.rootfs / "data").symlink_to(str(outside.parent))
    source = tmp_path / "volume"
    source.mkdir()
    bind(box, source, "/data/outside/made")
    assert box.args("/bin/true").run().returncode == 0
    assert sorted(os.listdir(outside)) == ["victim"]


@pytest.mark.parametrize("how", ["argument", "interpreter", "link"])
def test_cve_2019_5736_the_runtimes_own_program(box: Box, how: str) -> None:
    """Row 34: a workload that is the runtime's own program cannot be used to write it.

    Whatever is executed, /proc/self/exe of the process before it lies on a read-only mount.
    """
    if how == "argument":
        box.args("/proc/self/exe", "-c", "print(open('/proc/self/exe', 'r+b'))")
    elif how == "link":
        (box.rootfs / "entry").symlink_to("/proc/self/exe")
        box.args("/entry", "-c", "print(open('/proc/self/exe', 'r+b'))")
    else:
        (box.rootfs / "entry").write_text("#!/proc/self/exe -c\n")
        (box.rootfs / "entry").chmod(0o755)
        box.args("/entry")
    got = box.run()
    assert "BufferedRandom" not in got.stdout
    # And directly: the process that waits to be started is ours, on a read-only mount, and not dumpable.
    waiting = box
    waiting.config["process"]["args"] = ["/bin/sleep", "60"]
    waiting.write()
    assert waiting.do("create", capture=False).returncode == 0
    pid = waiting.state()["pid"]
    fd = os.open(f"/proc/{pid}/exe", os.O_PATH)
    try:
        assert os.fstatvfs(fd).f_flag & 1
    finally:
        os.close(fd)
    with pytest.raises(OSError, match=r"Read-only|Text file busy"):
        os.open(f"/proc/{pid}/exe", os.O_WRONLY)
    assert os.stat(f"/proc/{pid}/environ").st_uid == 0


@pytest.mark.parametrize("fd", range(3, 12))
def test_cve_2024_21626_working_directory_through_a_descriptor(box: Box, fd: int) -> None:
    """Row 35: cwd=/proc/self/fd/N must not lead to the host."""
    if fd == 3:
        box.config["process"]["cwd"] = "/proc/self/fd/3"
        box.args("/bin/true").run()
    box.config["process"]["cwd"] = f"/proc/self/fd/{fd}"
    got = box.shell("cat ../../../../etc/hostname 2>/dev/null; pwd").run()
    if got.returncode == 0:
        assert got.stdout.strip().startswith("/")
        assert Path("/etc/hostname").read_text() not in got.stdout
    else:
        assert "process.cwd" in got.stderr


def test_cve_2024_21626_no_descriptor_leaks(box: Box) -> None:
    """Row 35: exactly three descriptors inside, also for exec."""
    assert box.shell("ls /proc/$$/fd; true").output().split() == ["0", "1", "2"]
    box.args("/bin/sleep", "3600").start()
    assert box.exec("/bin/sh", "-c", "ls /proc/$$/fd; true").stdout.split() == ["0", "1", "2"]
    got = box.runtime("exec", "--cwd", "/proc/self/fd/7", box.name, "/bin/pwd")
    assert got.returncode != 0


def test_cve_2025_31133_dev_null_of_the_image(box: Box, outside: Path) -> None:
    """Row 36: /dev/null in the image is a symlink; a masked path must still be the real null device."""
    box.config["mounts"] = [
        item for item in box.config["mounts"] if not item["destination"].startswith("/dev")
    ]
    (box.rootfs / "dev/null").symlink_to("/victim")
    (box.rootfs / "victim").write_text("shown")
    box.config["linux"]["maskedPaths"] = ["/etc/passwd"]
    got = box.shell("cat /etc/passwd; stat -c %t:%T /etc/passwd").run()
    # Refused because of the symlink, or masked by the host's verified device: never the image's file.
    assert "shown" not in got.stdout
    assert got.returncode != 0 or "1:3" in got.stdout


def test_cve_2025_31133_masked_path_that_is_a_symlink(box: Box, outside: Path) -> None:
    """Row 36: the path to mask leads out of the root; what is masked lies inside."""
    (box.rootfs / "secret").symlink_to(str(outside / "victim"))
    box.config["linux"]["maskedPaths"] = ["/secret"]
    assert box.args("/bin/true").run().returncode == 0
    assert (outside / "victim").read_text() == "untouched"


def test_cve_2025_52565_console_is_a_symlink(box: Box, outside: Path, tmp_path: Path) -> None:
    """Row 37: /dev/console of the image leads elsewhere; the terminal is bound nowhere but there."""
    import socket

    box.config["mounts"] = [
        item for item in box.config["mounts"] if item["destination"] not in ("/dev", "/dev/pts")
    ]
    (box.rootfs / "dev/console").symlink_to("/proc/sysrq-trigger")
    (box.rootfs / "dev/pts").mkdir()
    (box.rootfs / "dev/ptmx").symlink_to("/etc/passwd")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(tmp_path / "console"))
    server.listen(1)
    box.config["process"]["terminal"] = True
    box.args("/bin/true").write()
    log = tmp_path / "log"
    words = ["--log", str(log), "run", "--detach", "--console-socket", str(tmp_path / "console"), box.name]
    got = box.runtime(*words, cwd=box.directory, capture=False)
    server.close()
    assert got.returncode != 0
    assert "magic" in log.read_text()


def test_cve_2025_52881_procfs_writes_go_to_our_own_procfs(box: Box, outside: Path, tmp_path: Path) -> None:
    """Row 38: /proc of the container is replaced by a directory that sends sysctl writes elsewhere."""
    fake = tmp_path / "fake"
    (fake / "sys/kernel").mkdir(parents=True)
    (fake / "sys/kernel/msgmax").symlink_to(str(outside / "victim"))
    (fake / "sys/net/ipv4").mkdir(parents=True)
    (fake / "sys/net/ipv4/ip_forward").write_text("fake")
    box.config["mounts"][0] = {
        "destination": "/proc",
        "type": "bind",
        "source": str(fake),
        "options": ["rbind"],
    }
    box.config["linux"]["sysctl"] = {"kernel.msgmax": "4097", "net.ipv4.ip_forward": "1"}
    box.config["linux"]["readonlyPaths"] = box.config["linux"]["maskedPaths"] = []
    assert box.args("/bin/true").run().returncode == 0
    assert (outside / "victim").read_text() == "untouched"
    assert (fake / "sys/net/ipv4/ip_forward").read_text() == "fake"


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_cve_2019_19921_proc_is_a_symlink(box: Box, name: str) -> None:
    """Row 38: the image's /proc or /sys is a symlink, so the mount would land elsewhere: refused."""
    (box.rootfs / name).rmdir()
    (box.rootfs / "elsewhere").mkdir()
    (box.rootfs / name).symlink_to("elsewhere")
    assert "symlink" in box.refused()


def test_cve_2023_27561_nothing_covers_a_file_of_procfs(box: Box, tmp_path: Path) -> None:
    """Row 38: a bind on /proc/self would feed the runtime's own lookups."""
    bind(box, tmp_path, "/proc/self/attr")
    assert "procfs" in box.refused()


@pytest.mark.parametrize("target", ["{outside}", "../../../..{outside}", "/"])
def test_cve_2026_41579_dev_is_a_symlink(box: Box, outside: Path, target: str) -> None:
    """Row 39: the image's /dev leads to the host; no node and no link may be made there."""
    shutil.rmtree(box.rootfs / "dev")
    (box.rootfs / "dev").symlink_to(target.format(outside=outside))
    box.config["mounts"] = [
        item for item in box.config["mounts"] if not item["destination"].startswith("/dev")
    ]
    box.config["linux"]["devices"] = [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3}]
    box.refused()
    assert sorted(os.listdir(outside)) == ["victim"]


def test_cve_2026_47766_device_path_is_a_symlink(box: Box, outside: Path) -> None:
    """Row 39: the node's own name is a link out of the root; its owner and mode stay as they are."""
    box.config["mounts"] = [
        item for item in box.config["mounts"] if not item["destination"].startswith("/dev")
    ]
    (box.rootfs / "dev/mine").symlink_to(str(outside / "victim"))
    box.config["linux"]["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o777, "uid": 55}
    ]
    before = (outside / "victim").stat()
    box.refused()
    assert (outside / "victim").stat() == before


def test_cve_2022_23648_text_of_the_image_stays_text(box: Box) -> None:
    """Row 41: annotations are copied, never read as paths, options or terminal codes."""
    box.config["annotations"] = {"run.oci.handler": "/bin/sh", "org.x": "\x1b[31m$(touch /tmp/rftest-x)"}
    box.start()
    assert box.state()["annotations"]["run.oci.handler"] == "/bin/sh"
    assert "\x1b" not in box.do("state").stdout
    assert not Path("/tmp/rftest-x").exists()


def test_cve_2019_14271_nothing_of_the_image_is_loaded(box: Box) -> None:
    """Row 42: after the root is changed, the runtime imports and loads nothing: the image has poisoned
    copies.
    """
    import sys

    poison = "raise SystemExit(open('/poisoned', 'w').write('x'))\n"
    for place in {*sys.path, str(Path(__file__).resolve().parents[2] / "runtime"), "/usr/lib/python3.11"}:
        if not place.startswith("/"):
            continue
        target = box.rootfs / place.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        for name in (
            "pwd",
            "grp",
            "difflib",
            "encodings/idna",
            "linecache",
            "traceback",
            "ringfence_runtime/launch/hooks",
        ):
            (target / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
            (target / f"{name}.py").write_text(poison)
    box.config["process"]["user"] = {"uid": 0, "gid": 0, "additionalGids": [7]}
    box.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    assert box.args("/bin/true").run().returncode == 0
    assert box.args("/nonexistent").run().returncode != 0
    assert not (box.rootfs / "poisoned").exists()


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer"])
def test_cve_2025_23266_hooks_get_no_loader_variables(box: Box, tmp_path: Path, kind: str) -> None:
    """Row 43: neither the container's environment nor LD_* of any origin reaches a hook."""
    box.config["process"]["env"] += ["LD_PRELOAD=/proc/self/cwd/x.so", "FROM_IMAGE=1"]
    where = "/hook-env" if kind == "startContainer" else str(tmp_path / "hook-env")
    box.config["hooks"] = {
        kind: [
            {
                "path": "/bin/sh",
                "args": ["sh", "-c", f"env > {where}"],
                "env": ["PATH=/bin:/usr/bin", "LD_PRELOAD=/x.so", "LD_LIBRARY_PATH=/x", "MINE=1"],
            }
        ]
    }
    got = box.args("/bin/true").run()
    assert got.returncode == 0, got.stderr
    text = ((box.rootfs / "hook-env") if kind == "startContainer" else tmp_path / "hook-env").read_text()
    assert "MINE=1" in text
    assert "LD_" not in text
    assert "FROM_IMAGE" not in text


def test_cve_2024_0132_a_link_swapped_during_the_launch(box: Box, outside: Path, tmp_path: Path) -> None:
    """Rows 33 and 44: a process of the host swaps a directory and a link all the while; no mount lands
    outside.
    """
    import subprocess

    source = tmp_path / "volume"
    source.mkdir()
    (source / "planted").write_text("x")
    (box.rootfs / "a").mkdir()
    (box.rootfs / "b").symlink_to(str(outside))
    swap = (
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\n"
        "while True: libc.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2)\n"
    )
    command = ["/usr/bin/python3", "-c", swap, str(box.rootfs / "a"), str(box.rootfs / "b")]
    bind(box, source, "/a/deep/er")
    box.config["process"]["args"] = ["/bin/true"]
    with subprocess.Popen(command) as swapper:
        try:
            for _ in range(15):
                box.run()
                assert sorted(os.listdir(outside)) == ["victim"]
        finally:
            swapper.kill()
