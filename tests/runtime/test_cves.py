# SPDX-License-Identifier: Apache-2.0
"""Regression tests named after the CVEs of runtimes (rows 33-44 of the escape checklist).

In each, the host side trusted the image. The attacks are harmless: they target files of the test,
or try to open for writing and write nothing.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.conftest import ROOT, Box, Runtime
from tests.runtime.hostile import bind, outside
from tests.support import force
from tests.support.cgroups import PREFIX
from tests.support.waiting import wait_for

__all__ = ["outside"]
pytestmark = pytest.mark.root
BOTH_INITS = True


PROFILE = """
profile {name} flags=(attach_disconnected) {{
  file,
  network,
  capability,
  signal,
  deny /denied w,
}}
"""


@pytest.fixture
def apparmor() -> Iterator[str]:
    """A profile that is loaded for the time of the test."""
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    if not enabled.exists() or enabled.read_text() != "Y\n":
        force.elsewhere("this kernel has no AppArmor")
    parser = force.need_program("apparmor_parser")
    name = f"{PREFIX}profile"
    text = PROFILE.format(name=name)
    options = ["--skip-cache", "--abort-on-error"]
    subprocess.run([parser, "--replace", *options], input=text, text=True, check=True)
    yield name
    subprocess.run([parser, "--remove", *options], input=text, text=True, check=True)


@pytest.mark.parametrize("how", ["argument", "interpreter", "link"])
def test_cve_2019_5736_the_runtimes_own_program(box: Box, how: str) -> None:
    """Row 34: a workload that is the runtime's own program cannot be used to write it.

    Whatever is executed, /proc/self/exe of the previous process is on a read-only mount.
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


@pytest.fixture
def own_programs(request: pytest.FixtureRequest, box: Box, tmp_path: Path) -> Path:
    """The container's runtime on an interpreter that nothing else executes, so it is never busy."""
    python = tmp_path / "python3"
    shutil.copy(os.path.realpath("/usr/bin/python3"), python)
    executable = tmp_path / "ringfence-runtime"
    environment = {"PYTHONPATH": str(ROOT / "runtime"), "PATH": os.environ["PATH"]}
    command = [str(python), "-m", "ringfence_runtime", "install", str(executable)]
    small = request.node.callspec.params["executable"] == "small"
    subprocess.run([*command, *([] if small else ["--no-init"])], check=True, env=environment)
    box.runtime = Runtime(executable, box.runtime.root)
    return tmp_path


def test_cve_2019_5736_the_process_before_the_workload_is_sealed(box: Box, own_programs: Path) -> None:
    """Row 34: the program of a process before the workload cannot be written through it.

    Not even when nothing executes it any more (then the kernel itself has no objection).
    """
    box.args("/bin/sleep", "600").write()
    assert box.do("create", capture=False).returncode == 0
    pid = box.state()["pid"]
    program = os.open(f"/proc/{pid}/exe", os.O_PATH)
    [path] = [each for each in own_programs.iterdir() if os.path.samestat(os.stat(program), each.stat())]
    assert os.stat(f"/proc/{pid}/environ").st_uid == 0  # it is not dumpable
    try:
        assert os.fstatvfs(program).f_flag & os.ST_RDONLY
        assert box.do("delete", "--force").returncode == 0
        wait_for(lambda: not Path(f"/proc/{pid}/exe").exists(), "its end")
        with pytest.raises(OSError) as refused:
            os.open(f"/proc/self/fd/{program}", os.O_WRONLY)
        assert refused.value.errno == errno.EROFS
        # The twin: by its own name it can be written, so nothing but the mount prevented it.
        os.close(os.open(path, os.O_WRONLY))
    finally:
        os.close(program)


@pytest.mark.parametrize("fd", range(3, 12))
def test_cve_2024_21626_working_directory_through_a_descriptor(box: Box, fd: int) -> None:
    """Row 35: cwd=/proc/self/fd/N must not lead to the host."""
    if fd == 3:
        box.config["process"]["cwd"] = "/proc/self/fd/3"
        box.args("/bin/true").run()
    box.config["process"]["cwd"] = f"/proc/self/fd/{fd}"
    got = box.shell("cat ../../../../etc/hostname 2>/dev/null; pwd").run()
    assert got.returncode != 0
    assert "process.cwd" in got.stderr
    assert Path("/etc/hostname").read_text() not in got.stdout


def test_cve_2024_21626_no_descriptor_leaks(box: Box) -> None:
    """Row 35: exactly three descriptors inside, also for exec."""
    assert box.shell("ls /proc/$$/fd; true").output().split() == ["0", "1", "2"]
    box.args("/bin/sleep", "3600").start()
    assert box.exec("/bin/sh", "-c", "ls /proc/$$/fd; true").stdout.split() == ["0", "1", "2"]
    got = box.runtime("exec", "--cwd", "/proc/self/fd/7", box.name, "/bin/pwd")
    assert got.returncode != 0


def test_cve_2025_31133_dev_null_of_the_image(box: Box, outside: Path) -> None:
    """Row 36: /dev/null in the image is a symlink; a
    masked path must still be the real null device.
    """
    box.config["mounts"] = [
        item for item in box.config["mounts"] if not item["destination"].startswith("/dev")
    ]
    (box.rootfs / "dev/null").symlink_to("/victim")
    (box.rootfs / "victim").write_text("shown")
    box.config["linux"]["maskedPaths"] = ["/etc/passwd"]
    got = box.shell("cat /etc/passwd; stat -c %t:%T /etc/passwd").run()
    # Refused because of the symlink, or masked by the host's verified device: never the image's
    # file.
    assert "shown" not in got.stdout
    assert got.returncode != 0 or "1:3" in got.stdout


def test_cve_2025_31133_masked_path_that_is_a_symlink(box: Box, outside: Path) -> None:
    """Row 36: the path to mask leads out of the root; the masked file is inside."""
    (box.rootfs / "secret").symlink_to(str(outside / "victim"))
    box.config["linux"]["maskedPaths"] = ["/secret"]
    assert box.args("/bin/true").run().returncode == 0
    assert (outside / "victim").read_text() == "untouched"


def test_cve_2025_52565_console_is_a_symlink(box: Box, outside: Path, tmp_path: Path) -> None:
    """Row 37: /dev/console of the image is a link;
    the terminal is bound only at its target inside.
    """
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


@pytest.fixture
def fake(box: Box, outside: Path, tmp_path: Path) -> Path:
    """A directory instead of /proc that redirects the runtime's writes."""
    made = tmp_path / "fake"
    (made / "sys/kernel").mkdir(parents=True)
    (made / "sys/kernel/msgmax").symlink_to(str(outside / "victim"))
    (made / "sys/net/ipv4").mkdir(parents=True)
    (made / "sys/net/ipv4/ip_forward").write_text("fake")
    for name in ("self", "thread-self"):
        (made / name / "attr/apparmor").mkdir(parents=True)
        for file in ("attr/exec", "attr/apparmor/exec"):
            (made / name / file).write_text("fake")
    box.config["mounts"][0] = {
        "destination": "/proc",
        "type": "bind",
        "source": str(made),
        "options": ["rbind"],
    }
    box.config["linux"]["readonlyPaths"] = box.config["linux"]["maskedPaths"] = []
    return made


def test_cve_2025_52881_procfs_writes_go_to_the_runtimes_procfs(box: Box, outside: Path, fake: Path) -> None:
    """Row 38: /proc of the container is replaced by a directory that redirects sysctl writes."""
    box.config["linux"]["sysctl"] = {"kernel.msgmax": "4097", "net.ipv4.ip_forward": "1"}
    assert box.args("/bin/true").run().returncode == 0
    assert (outside / "victim").read_text() == "untouched"
    assert (fake / "sys/net/ipv4/ip_forward").read_text() == "fake"


@pytest.mark.parametrize("command", ["run", "exec"])
def test_cve_2025_52881_labels_go_to_the_runtimes_procfs(
    box: Box, fake: Path, apparmor: str, command: str
) -> None:
    """Row 38: the same for the label of the workload, which then has it.

    A write to a file of the container would have succeeded without confining the process.
    """
    label = ["/bin/cat", "/mnt/self/attr/current"]
    box.config["mounts"].append({"destination": "/mnt", "type": "proc", "source": "proc"})
    if command == "run":
        box.config["process"]["apparmorProfile"] = apparmor
        assert box.args(*label).output() == f"{apparmor} (enforce)\n"
    else:
        box.start()
        assert box.exec(*label).stdout == "unconfined\n"
        got = box.runtime("exec", "--apparmor", apparmor, box.name, *label)
        assert got.stdout == f"{apparmor} (enforce)\n", got.stderr
    assert {path.read_text() for path in fake.rglob("exec")} == {"fake"}
    box.do("delete", "--force")
    box.config["process"]["apparmorProfile"] = "rftest-no-such-profile"
    assert "process.apparmorProfile" in box.refused()


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
    """Row 39: the node's own name is a link out of the root; its owner and mode stay unchanged."""
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


def test_cve_2026_53489_53492_nothing_is_restored_from_a_checkpoint(box: Box, tmp_path: Path) -> None:
    """Row 41: the author of a checkpoint would decide what the host mounts, opens and executes."""
    (tmp_path / "config.dump").write_text("{}")
    for command in ("checkpoint", "restore"):
        got = box.runtime(command, "--image-path", str(tmp_path), box.name)
        assert got.returncode == 1
        assert "not supported" in got.stderr
    assert not (box.runtime.root / box.name).exists()


@pytest.mark.parametrize("option", ["--pid-file", "--pidfd-socket"])
def test_cve_2026_53492_a_link_where_a_file_is_written(
    box: Box, outside: Path, tmp_path: Path, option: str
) -> None:
    """Row 41: a file that a container could have put at
    such a place is replaced or refused, never followed.
    """
    place = tmp_path / "place"
    place.symlink_to(outside / "victim")
    box.args("/bin/true").write()
    box.do("run", option, str(place))
    assert (outside / "victim").read_text() == "untouched"


def test_cve_2022_23648_text_of_the_image_stays_text(box: Box) -> None:
    """Row 41: annotations are copied, never read as paths, options or terminal codes."""
    box.config["annotations"] = {"run.oci.handler": "/bin/sh", "org.x": "\x1b[31m$(touch /tmp/rftest-x)"}
    box.start()
    assert box.state()["annotations"]["run.oci.handler"] == "/bin/sh"
    assert "\x1b" not in box.do("state").stdout
    assert not Path("/tmp/rftest-x").exists()


def test_cve_2019_14271_nothing_of_the_image_is_loaded(box: Box) -> None:
    """Row 42: after the root is changed, the runtime imports and loads nothing.

    The image has poisoned copies.
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
