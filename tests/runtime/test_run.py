# SPDX-License-Identifier: Apache-2.0
"""`ringfence run` as a user sees it, with real sandboxes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.runtime.images.layouts import Layout, directory, file, layer
from tests.runtime.sandboxes import Sandboxes
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root

FOURTEEN = 0x00000000A80425FB  # Docker's, as /proc shows them


@pytest.mark.parametrize(
    ("words", "status"),
    [(("true",), 0), (("sh", "-c", "exit 7"), 7), (("sh", "-c", "sh -c 'kill -9 $$'; exit $?"), 137)],
)
def test_the_status_is_the_workloads(sandboxes: Sandboxes, words: tuple[str, ...], status: int) -> None:
    """128 + N for a signal; nothing is left."""
    assert sandboxes.run(words=words).returncode == status
    assert sandboxes.left() == []


def test_streams_are_separate_and_input_is_optional(sandboxes: Sandboxes) -> None:
    """Without --interactive there is no input."""
    got = sandboxes.run("--quiet", words=("sh", "-c", "echo out; echo err >&2"))
    assert (got.stdout, got.stderr) == ("out\n", "err\n")
    big = "x" * 300_000
    assert sandboxes.run("-i", words=("cat",), input=big).stdout == big
    assert sandboxes.run(words=("cat",), input="never read").stdout == ""


def test_no_descriptor_of_the_host_goes_in(sandboxes: Sandboxes, tmp_path: Path) -> None:
    """Not the terminal, not a file; therefore /dev/stdout can be reopened under Landlock."""
    with (tmp_path / "out").open("w") as out:
        command = sandboxes.argv(
            "run", *sandboxes.named("-i"), str(sandboxes.rootfs), "sh", "-c",
            "ls -l /proc/self/fd >&2; echo again > /dev/stdout",
        )  # fmt: skip
        got = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, text=True, check=True
        )
    targets = [line.split(" -> ")[1] for line in got.stderr.splitlines() if " -> " in line]
    assert len(targets) >= 3
    assert all(target.startswith(("pipe:", "/proc/")) for target in targets), got.stderr
    assert (tmp_path / "out").read_text() == "again\n"


def test_a_closed_reader_ends_the_writer(sandboxes: Sandboxes) -> None:
    """`ringfence run ... yes

    head`: the workload's writes fail (a first process ignores SIGPIPE).
    """
    command = sandboxes.argv("run", *sandboxes.named(), str(sandboxes.rootfs), "yes")
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(patience(60)) == 1
        assert b"Broken pipe" in process.stderr.read()


def test_the_restrictions_are_active_by_default(sandboxes: Sandboxes) -> None:
    """Fourteen capabilities, no new privileges,
    seccomp, masks, no network, own hostname, few tasks.
    """
    got = sandboxes.shell(
        "cat /proc/self/status; ls /sys/class/net; hostname; head -c1 /proc/kcore | wc -c; cat /proc/1/cgroup"
    )
    facts = dict(line.split(":\t", 1) for line in got.splitlines() if ":\t" in line)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(facts[name], 16) == FOURTEEN
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert facts["CapAmb"] == facts["CapInh"] == "0" * 16
    assert got.splitlines()[-4:] if False else "\nlo\n" in got
    assert "eth0" not in got


def test_landlock_keeps_it_below_its_root(sandboxes: Sandboxes) -> None:
    """It cannot mount, even with the capability and without seccomp; with landlock=off it can."""
    script = "mount -t tmpfs none /tmp && echo mounted || echo refused"
    open_ = ("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")
    assert sandboxes.shell(script, *open_).endswith("refused\n")
    assert sandboxes.shell(script, *open_, "--security-opt", "landlock=off").endswith("mounted\n")


def test_a_writable_root_can_be_written(sandboxes: Sandboxes) -> None:
    """Also at its top, where Landlock's derived rules would refuse it; --read-only refuses."""
    assert sandboxes.shell("mkdir /data && echo x > /data/y && mv /data/y /tmp/z && cat /tmp/z") == "x\n"
    assert "refused" in sandboxes.shell("mkdir /more 2>/dev/null || echo refused", "--read-only")


def image(tmp_path: Path, busybox: Path, **process: object) -> str:
    """An OCI layout of a busybox with users; `process` is merged into its configuration."""
    made = Layout(tmp_path / "layout")
    files = layer(
        directory(b"bin"), file(b"bin/busybox", busybox.read_bytes(), mode=0o755), directory(b"etc"),
        directory(b"data"),
        file(b"data/seed", b"seed\n"),
        file(b"etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n"),
        file(b"etc/group", b"web:x:34:\nextra:x:40:web\n"),
    )  # fmt: skip
    made.add(made.image(files, config=process))
    return str(tmp_path / "layout")


def test_the_image_defines_the_process(sandboxes: Sandboxes, tmp_path: Path) -> None:
    """Entrypoint, Cmd, Env, User with its groups, WorkingDir; each can be overridden."""
    source = image(
        tmp_path, sandboxes.rootfs / "bin/busybox", Entrypoint=["/bin/busybox", "sh", "-c"],
        Cmd=["/bin/busybox id; /bin/busybox pwd; echo $WHO $HOME $HOSTNAME"],
        Env=["WHO=image"], User="web", WorkingDir="/data",
    )  # fmt: skip
    got = sandboxes.run("--hostname", "box", source=source, words=())
    assert got.returncode == 0, got.stderr
    assert got.stdout == "uid=33(web) gid=34(web) groups=40(extra)\n/data\nimage /srv box\n"
    got = sandboxes.run(
        "-u",
        "0:40",
        "-e",
        "WHO=me",
        "-w",
        "/etc",
        source=source,
        words=("/bin/busybox id; /bin/busybox pwd; echo $WHO",),
    )
    assert got.stdout == "uid=0(root) gid=40(extra)\n/etc\nme\n"
    got = sandboxes.run("--entrypoint", "/bin/busybox", source=source, words=("echo", "hi"))
    assert got.stdout == "hi\n"
    assert "no user 'nobody'" in sandboxes.refused("-u", "nobody", source=source, words=())


def test_cve_2026_53488_labels_of_an_image_are_no_annotations(sandboxes: Sandboxes, tmp_path: Path) -> None:
    """An image cannot request anything of the runtime or the agent (row 41 of the escape
    checklist).

    --label of its user can.
    """
    asked = {
        "ringfence.io/policy": "none", "ringfence.io/require-agent": "true", "ringfence.io/userns": "auto",
        "org.ringfence.landlock": "derive", "run.oci.hooks.prestart": "/bin/touch /tmp/rftest-label",
        "io.kubernetes.cri.sandbox-id": "x", "org.ringfence.name": "somebody-else",
    }  # fmt: skip
    source = image(tmp_path, sandboxes.rootfs / "bin/busybox", Labels=asked)
    name = sandboxes.name()
    words = (source, "/bin/busybox", "sleep", "3600")
    got = sandboxes("run", *sandboxes.named("--detach", "--label", "mine=1", name=name), *words)
    assert got.returncode == 0, got.stderr
    config = json.loads((sandboxes.state / "runtime" / name / "config.json").read_text())
    given = config["annotations"]
    assert given.pop("org.opencontainers.image.ref.name")
    assert given == {"mine": "1", "org.ringfence.name": name}
    assert not any(space["type"] == "user" for space in config["linux"]["namespaces"])


def test_volumes_of_a_read_only_image_are_writable(sandboxes: Sandboxes, tmp_path: Path) -> None:
    """With the image's contents at that place."""
    source = image(
        tmp_path, sandboxes.rootfs / "bin/busybox", Volumes={"/data": {}}, Cmd=["/bin/busybox", "true"]
    )
    script = (
        "/bin/busybox cat /data/seed; echo new > /data/file && echo written; echo x > /etc/x || echo refused"
    )
    got = sandboxes.run("--read-only", source=source, words=("/bin/busybox", "sh", "-c", script))
    assert got.stdout == "seed\nwritten\nrefused\n", got.stderr


def test_an_image_of_the_store_by_its_name(sandboxes: Sandboxes, tmp_path: Path) -> None:
    """import, list, inspect, run, in use, rm."""
    layout = image(tmp_path, sandboxes.rootfs / "bin/busybox", Cmd=["/bin/busybox", "sleep", "3600"])

    def images(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ringfence", "image", "--image-root", str(sandboxes.images), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert images("import", layout, "--name", "tiny").returncode == 0
    assert "tiny:latest" in images("list").stdout
    assert json.loads(images("inspect", "tiny").stdout)["names"] == ["tiny:latest"]
    name = sandboxes.name()
    got = sandboxes("run", *sandboxes.named("--detach", name=name), "tiny")
    assert got.stdout == f"{name}\n", got.stderr
    assert "/bin/busybox sleep 3600" in sandboxes("ps").stdout
    refused = images("rm", "tiny")
    assert refused.returncode == 1
    assert refused.stderr.startswith("ringfence: error: image 'tiny' is in use by ")
    assert sandboxes("rm", "-f", name).returncode == 0
    assert images("rm", "tiny").returncode == 0
    assert "there is no image 'tiny'" in sandboxes.refused(source="tiny")


def test_mounts_and_devices(sandboxes: Sandboxes, tmp_path: Path) -> None:
    """Volumes, read-only ones, tmpfs, a device of the host."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "in").write_text("in\n")
    options = [
        "-v",
        f"{shared}:/rw",
        "-v",
        f"{shared}:/ro:ro",
        "--mount",
        "type=tmpfs,target=/scratch,tmpfs-size=1m",
    ]
    script = "cat /rw/in; echo out > /rw/out; echo no > /ro/no || echo refused; df /scratch | tail -n1; "
    script += "ls -l /dev/extra"
    got = sandboxes.shell(script, *options, "--device", "/dev/zero:/dev/extra:r").splitlines()
    assert got[:2] == ["in", "refused"]
    assert got[2].split()[1] == "1024"
    assert "1,   5" in got[3]
    assert (shared / "out").read_text() == "out\n"
    assert "not a path" in sandboxes.refused("-v", "data:/data")
    assert "does not exist" in sandboxes.refused("-v", f"{tmp_path}/missing:/data")


def test_limits_are_in_the_cgroup(sandboxes: Sandboxes) -> None:
    """The default keeps a fork bomb small."""
    name = sandboxes.detached("--memory", "64m", "--cpus", "0.5", "--ulimit", "nofile=99:100")
    top = Path("/sys/fs/cgroup")

    def read(*candidates: str) -> str:
        return next(path.read_text().strip() for word in candidates for path in [top / word] if path.exists())

    assert read(f"memory/{name}/memory.limit_in_bytes", f"{name}/memory.max") == str(64 << 20)
    assert read(f"pids/{name}/pids.max", f"{name}/pids.max") == "2048"
    assert read(f"cpu/{name}/cpu.cfs_quota_us", f"{name}/cpu.max").split()[0] == "50000"
    assert sandboxes("exec", name, "sh", "-c", "ulimit -n; ulimit -Hn").stdout in ("99\n100\n", "99\n99\n")
    assert (
        read(f"pids/{sandboxes.detached('--pids-limit', '-1')}/pids.max") == "max"
        if (top / "pids").exists()
        else True
    )


def test_sysctls_of_its_own_namespaces(sandboxes: Sandboxes) -> None:
    """The host's are refused."""
    assert (
        sandboxes.shell("cat /proc/sys/net/ipv4/ip_default_ttl", "--sysctl", "net.ipv4.ip_default_ttl=99")
        == "99\n"
    )
    assert "kernel.core_pattern" in sandboxes.refused("--sysctl", "kernel.core_pattern=x")


def test_signals_reach_the_workload(sandboxes: Sandboxes) -> None:
    """SIGTERM and SIGINT of the command are forwarded to the workload."""
    for number, word in ((signal.SIGTERM, "TERM"), (signal.SIGINT, "INT")):
        script = f"trap 'echo got; exit 5' {word}; echo up; while :; do sleep 0.05; done"
        command = sandboxes.argv("run", *sandboxes.named(), str(sandboxes.rootfs), "sh", "-c", script)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            process.send_signal(number)
            assert process.stdout.readline() == "got\n"
            assert process.wait(patience(60)) == 5


def test_a_terminal_has_the_callers_size_and_follows_it(sandboxes: Sandboxes) -> None:
    """Typed text arrives, Ctrl-C is the sandbox's own, SIGWINCH transfers a new size."""
    pid, master = pty.fork()
    if pid == 0:
        script = (
            "trap 'echo broken' INT; stty size; read line; echo read $line; read line;"
            " while ! stty size | grep -q '^44 88'; do sleep 0.05; done; exit 3"
        )
        argv = sandboxes.argv("run", *sandboxes.named("-it"), str(sandboxes.rootfs), "sh", "-c", script)
        termios.tcsetwinsize(0, (33, 77))
        os.execvpe(argv[0], argv, sandboxes.environment)
    seen = b""

    def said(wanted: bytes) -> bool:
        nonlocal seen
        os.set_blocking(master, False)
        try:
            seen += os.read(master, 4096)
        except (BlockingIOError, OSError):
            pass
        return wanted in seen

    wait_for(lambda: said(b"33 77"), "the first size")
    os.write(master, b"hello\n")
    wait_for(lambda: said(b"read hello"), "the line")
    os.write(master, b"\x03")
    wait_for(lambda: said(b"broken"), "the interrupt")
    termios.tcsetwinsize(master, (44, 88))
    os.kill(pid, signal.SIGWINCH)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    os.close(master)


def test_files_of_the_sandbox_cover_those_of_the_image(sandboxes: Sandboxes, tmp_path: Path) -> None:
    """hosts is a symlink out, resolv.conf one within,
    hostname is missing: none is followed or written to.
    """
    victim = tmp_path / "victim"
    victim.write_text("untouched\n")
    etc = sandboxes.rootfs / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "inner").write_text("inner\n")
    for name in ("hosts", "resolv.conf", "hostname"):
        (etc / name).unlink(missing_ok=True)
    (etc / "hosts").symlink_to(victim)
    (etc / "resolv.conf").symlink_to("/etc/inner")
    script = "cat /etc/hosts /etc/hostname /etc/resolv.conf; cat /etc/inner"
    options = (
        "--hostname",
        "box",
        "--add-host",
        "db:192.0.2.9",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "a.test",
    )
    got = sandboxes.shell(script, *options)
    assert got == (
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        "127.0.1.1\tbox\n192.0.2.9\tdb\nbox\n"
        "nameserver 192.0.2.53\nsearch a.test\ninner\n"
    )
    assert victim.read_text() == "untouched\n"
    assert (etc / "hosts").is_symlink()


@pytest.mark.parametrize(
    ("options", "words", "status", "said"),
    [
        (["--memory", "lots"], ["true"], 125, "--memory: 'lots' is not a size"),
        (["-v", "/a"], ["true"], 125, "is not HOST:CONTAINER[:OPTIONS]"),
        (["--cap-add", "EVERYTHING"], ["true"], 125, "--cap-add: unknown capability 'EVERYTHING'"),
        (["--network", "magic"], ["true"], 125, "--network: 'magic' is not one of none, host, bridge[:NAME]"),
        (["--network", "host", "-p", "80:80"], ["true"], 125, "--publish needs a bridge"),
        (["--network", "macvlan:a/b"], ["true"], 125, "not a valid link name"),
        (["--network", "bridge:..\x1b[2J"], ["true"], 125, "not a valid network name"),
        (["-p", "99999:80"], ["true"], 125, "a port is at most 65535"),
        (["-p", "[::1]:80:80"], ["true"], 125, "publish on 127.0.0.1"),
        (["--security-opt", "sandbox=off"], ["true"], 125, "--security-opt: 'sandbox=off' is not known"),
        (["--dns", "server"], ["true"], 125, "--dns: 'server' is not an address"),
        (["--hostname", "a\nb"], ["true"], 125, "--hostname: 'a\\nb' is not a valid host name"),
        (["--privileged"], ["true"], 125, "hint: grant what is needed: --cap-add"),
        (["-t", "-d"], ["true"], 125, "no process would hold the terminal"),
        (["-i", "-t"], ["true"], 125, "standard input is not a terminal"),
        (["--name", "../up"], ["true"], 125, "invalid character"),
        ([], [], 125, "no command is given"),
        ([], ["nothing"], 127, "not found in $PATH"),
        ([], ["/bin"], 126, "permission denied"),
    ],
)  # fmt: skip
def test_invalid_requests_are_errors_of_two_lines(
    sandboxes: Sandboxes, options: list[str], words: list[str], status: int, said: str
) -> None:
    """An error, at most a hint, docker's exit codes, nothing left, no control character."""
    got = sandboxes(
        "run", "--cgroup-parent", "/", "--name", sandboxes.name(), *options, str(sandboxes.rootfs), *words
    )
    assert got.returncode == status, got.stderr
    assert said in got.stderr
    lines = got.stderr.splitlines()
    assert lines[0].startswith("ringfence: error: ")
    assert len(lines) <= 2
    assert "\x1b" not in got.stderr
    assert sandboxes.left() == []


@pytest.mark.parametrize("network", ["none", "host"])
def test_a_start_without_links_imports_no_pyroute2(sandboxes: Sandboxes, network: str) -> None:
    """Nor asyncio; a bridge does, in a process of its own."""
    words = [
        "run",
        *sandboxes.argv("run")[-4:],
        *sandboxes.named("--network", network),
        str(sandboxes.rootfs),
        "true",
    ]
    script = (
        "import sys\nfrom ringfence.cli.main import main\n"
        f"code = main({words!r})\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(code, sorted(loaded & {'pyroute2', 'asyncio', 'structlog', 'yaml'}))"
    )
    got = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=sandboxes.environment
    )
    assert got.stdout == "0 []\n", got.stderr
