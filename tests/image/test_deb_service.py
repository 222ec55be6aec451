# SPDX-License-Identifier: Apache-2.0
"""The package under systemd's manager: from the installation to the first alert in three commands, an upgrade
while a container attacks, and a purge that leaves nothing.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.image.system import Machine, booted, overlay
from tests.support.agent import free_port
from tests.support.cgroups import PREFIX
from tests.support.container import Bundle, Container, new_container
from tests.support.force import missing, need_program
from tests.support.waiting import busy, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.package]
ROOT = Path(__file__).resolve().parents[2]
UNIT = "ringfence-agent"
LABEL = "packaged"
# Containers of other tests on this machine are not this agent's business.
DROP_IN = """\
[Service]
Environment=RINGFENCE_CONTAINERS_PATTERNS={prefix}{label}-* RINGFENCE_CONTAINERS_KNOWN=no
Environment=RINGFENCE_HTTP_LISTEN=127.0.0.1:{port}
StandardOutput=append:/run/agent.out
StandardError=append:/run/agent.log
"""
#: A process that stands still takes no signal but the last one.
WATCHED = "[Service]\nWatchdogSec=10\nTimeoutAbortSec=1\n"
ATTACK = "while :; do mount -t tmpfs x /tmp; echo $?; usleep 20000; done"
KILLED, DENIED = 128 + 9, 255  # statuses of busybox' mount
FIRST_ALERT_S = 60.0
INSTALL = ("apt-get", "install", "-y", "--no-install-recommends", "--allow-downgrades")
CONFIGURATION = "etc/ringfence/agent.yaml"
#: what the unit grants, as /proc/PID/status has it (capabilities(7), include/uapi/linux/capability.h)
GRANTED = {"BPF": 39, "PERFMON": 38, "NET_ADMIN": 12, "SYS_PTRACE": 19, "KILL": 5, "DAC_OVERRIDE": 1,
           "SYS_NICE": 23, "SYS_RESOURCE": 24}  # fmt: skip


#: a receiver that nobody is, and its queue on a disk that has no room
FULL = """\
mode: enforce
alerts:
  queue_dir: /var/lib/ringfence/queue
  webhook: [http://127.0.0.1:9/]
"""


class Packages(NamedTuple):
    """The package of this checkout, and the same content with a lower version: no release is older."""

    new: Path
    older: Path


@pytest.fixture(scope="module")
def packages(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Builds both."""
    for program in ("dpkg-deb", "apt-get", "runc", "nsenter"):
        need_program(program)
    needed = ("python3-yaml", "libbpf1", "libseccomp2")
    if subprocess.run(["dpkg-query", "-W", *needed], capture_output=True, check=False).returncode:
        missing("image", "packages that the package depends on are not installed: tools/deps image")
    directory = tmp_path_factory.mktemp("packages")
    words = [sys.executable, "-m", "tools.deb", "--wheel", str(wheel), "--output", str(directory / "new")]
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (package,) = (directory / "new").glob("*.deb")
    return Packages(package, _make_older(package, directory / "older.deb", directory / "older"))


@pytest.fixture
def machine(packages: Packages, tmp_path: Path) -> Iterator[Machine]:
    """A manager that runs, and both packages in its /tmp."""
    with overlay(tmp_path) as root:
        shutil.copy(packages.new, root / "tmp/ringfence.deb")
        shutil.copy(packages.older, root / "tmp/older.deb")
        with booted(root) as made:
            _write(made, f"etc/systemd/system/{UNIT}.service.d/test.conf",
                   DROP_IN.format(prefix=PREFIX, label=LABEL, port=free_port()))  # fmt: skip
            yield made


def _write(machine: Machine, path: str, text: str) -> None:
    """Writes a file of the running system. (The root is mounted here, too.)"""
    file = machine.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _make_older(package: Path, target: Path, work: Path) -> Path:
    subprocess.run(["dpkg-deb", "-R", package, work], check=True)
    control = work / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 0.0.1", control.read_text(), flags=re.M))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", work, target], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return target


def _alerts(machine: Machine) -> list[dict[str, Any]]:
    lines = machine.run("ringfence", "events", "--alerts", "-o", "json").stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_three_commands_to_the_first_alert(
    machine: Machine, bundle: Bundle, record_property: Callable[[str, object], None]
) -> None:
    """The documented way. By default the bundled policies only report."""
    began = time.monotonic()
    machine.do("apt-get", "install", "-y", "/tmp/ringfence.deb")
    assert machine.show(UNIT, "ActiveState") == "inactive", "its start is the administrator's decision"
    machine.do("systemctl", "enable", "--now", UNIT)
    with new_container(bundle, LABEL) as container:
        assert container.exec("mount", "-t", "tmpfs", "x", "/tmp").returncode == 0
        (alert, *_) = wait_for(lambda: _alerts(machine), "an alert")
        seconds = time.monotonic() - began
    assert alert["rule"]["id"] == "mount-call"
    assert alert["outcome"] in ("would-kill", "would-deny")
    record_property("seconds", round(seconds, 1))
    assert seconds < FIRST_ALERT_S * busy()
    _is_fenced(machine)
    _ends_and_starts_again(machine)
    _is_watched(machine)
    _serves_the_launcher(machine)


def _is_fenced(machine: Machine) -> None:
    """The agent has reported that it is ready, and the agent has the unit's rights and no others."""
    assert machine.show(UNIT, "StatusText") == "ready"
    status = machine.do("cat", f"/proc/{machine.show(UNIT, 'MainPID')}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    own = int(re.findall(r"^CapBnd:\s+(\w+)", Path("/proc/self/status").read_text(), re.M)[0], 16)
    assert int(fields["CapBnd"], 16) == own & sum(1 << number for number in GRANTED.values())
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def _is_watched(machine: Machine) -> None:
    """An agent that stands still is replaced."""
    _write(machine, f"etc/systemd/system/{UNIT}.service.d/watchdog.conf", WATCHED)
    machine.do("systemctl", "daemon-reload")
    machine.do("systemctl", "restart", UNIT)
    before = machine.show(UNIT, "MainPID")
    machine.do("kill", "-STOP", before)
    wait_for(lambda: machine.show(UNIT, "MainPID") not in ("0", before), "another agent")
    wait_for(lambda: machine.show(UNIT, "ActiveState") == "active", "the other agent to be ready")


def _ends_and_starts_again(machine: Machine) -> None:
    before = machine.show(UNIT, "MainPID")
    machine.do("kill", "-9", before)
    wait_for(lambda: machine.show(UNIT, "MainPID") not in ("0", before), "a new agent")
    wait_for(lambda: machine.show(UNIT, "ActiveState") == "active", "the new agent to be ready")
    machine.do("systemctl", "reload", UNIT)


def _serves_the_launcher(machine: Machine) -> None:
    unit = "ringfence-launcher"
    machine.do("systemctl", "enable", "--now", f"{unit}.socket")
    assert machine.show(f"{unit}.service", "ActiveState") == "inactive"
    connect = "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect('{}')"
    machine.do("python3", "-c", connect.format("/run/ringfence/launcher.sock"))
    wait_for(lambda: machine.show(f"{unit}.service", "ActiveState") == "active", "the launcher to start")


@contextlib.contextmanager
def _attacked(bundle: Bundle, directory: Path) -> Iterator[Path]:
    """A container that mounts again and again. Yields the file with the statuses of its attempts."""
    bundle.config["process"]["args"] = ["/bin/sh", "-c", ATTACK]
    name = f"{PREFIX}{LABEL}-{secrets.token_hex(3)}"
    container, codes = Container(name, bundle.write(name)), directory / "codes"
    try:
        with codes.open("wb") as file:
            container.start(stdout=file)
        _more(codes)
        yield codes
    finally:
        container.remove()


def _more(codes: Path) -> None:
    """Waits for attempts that begin after now."""
    began = len(codes.read_bytes().split())
    wait_for(lambda: len(codes.read_bytes().split()) > began + 5, "attempts")


def _none_worked(codes: Path) -> None:
    _more(codes)
    assert set(map(int, codes.read_bytes().split())) <= {KILLED, DENIED}


def _enforcing(machine: Machine, package: str) -> None:
    machine.do(*INSTALL, package)
    _write(machine, CONFIGURATION, "mode: enforce\n")
    machine.do("systemctl", "enable", "--now", UNIT)


def test_an_upgrade_under_attack_and_a_purge(machine: Machine, bundle: Bundle, tmp_path: Path) -> None:
    """No attempt succeeds while the agent is replaced by a newer and by an older one; each reports.

    Afterwards nothing is enforced, and nothing is left.
    """
    _enforcing(machine, "/tmp/older.deb")
    with _attacked(bundle, tmp_path) as codes:
        for package in ("ringfence", "older"):
            before = machine.show(UNIT, "MainPID")
            machine.do(*INSTALL, f"/tmp/{package}.deb")
            assert machine.show(UNIT, "ActiveState") == "active"
            assert machine.show(UNIT, "MainPID") != before
            _none_worked(codes)
            wait_for(lambda: _alerts(machine), "an alert of the new agent")
            kept = (machine.root / CONFIGURATION).read_text()
            assert kept == "mode: enforce\n", "the administrator's configuration stays"
        machine.do("apt-get", "purge", "-y", "ringfence")
        wait_for(lambda: b"\n0\n" in codes.read_bytes(), "an attempt that nobody stops")
    assert machine.run("pgrep", "-f", "/usr/bin/ringfence").stdout == ""
    assert machine.do("find", "/sys/fs/bpf", "-mindepth", "1", "-name", "*ringfence*") == ""
    left = machine.do("find", "/etc", "/usr", "/var/lib", "/run", "-iname", "*ringfence*").split()
    assert left == [f"/etc/systemd/system/{UNIT}.service.d"], "the drop-in of this test alone"


def test_an_upgrade_that_its_configuration_stops_leaves_the_enforcement(
    machine: Machine, bundle: Bundle, tmp_path: Path
) -> None:
    """A key of a newer version: apt succeeds and says what to do, and the journal names file, line and key.

    Nothing is tried again by itself, and no attempt succeeds meanwhile.
    """
    _enforcing(machine, "/tmp/older.deb")
    with _attacked(bundle, tmp_path) as codes:
        _write(machine, CONFIGURATION, "mode: enforce\nfrom_the_future: yes\n")
        done = machine.run(*INSTALL, "/tmp/ringfence.deb")
        assert done.returncode == 0, done.stderr
        said = done.stdout + done.stderr
        assert "ringfence: the new agent did not start; what was enforced still is" in said
        assert f"/{CONFIGURATION}:2:1: from_the_future: unknown key" in machine.log()
        assert machine.show(UNIT, "ActiveState") == "failed"
        assert machine.show(UNIT, "NRestarts") == "0"
        _none_worked(codes)
        _write(machine, CONFIGURATION, "mode: enforce\n")
        machine.do("systemctl", "start", UNIT)
        _none_worked(codes)


def test_a_package_that_is_there_by_half(machine: Machine) -> None:
    """Without a package that it needs, or a file of its own: a line and a hint. dpkg makes it whole again."""
    machine.do("dpkg", "--unpack", "--force-unsafe-io", "/tmp/ringfence.deb")
    assert "ringfence" in machine.do("ringfence", "version"), "unpacked, and not configured"
    probes = "/usr/lib/ringfence/ringfence/_bpf/ringfence.bpf.o"
    for name, command in (
        ("/usr/lib/python3/dist-packages/yaml", "ringfence agent --check"),
        ("/usr/lib/ringfence/structlog", "ringfence agent"),
        ("/usr/lib/ringfence/ringfence_linux", "ringfence-runtime state x"),
        (probes, "ringfence agent"),
    ):
        machine.do("mv", name, f"{name}.away")
        done = machine.run(*command.split())
        machine.do("mv", f"{name}.away", name)
        assert done.returncode in (1, 3), (name, done.stderr)
        assert "Traceback" not in done.stderr
        assert ": error: " in done.stderr, (name, done.stderr)
        assert Path(name).name.split(".")[0] in done.stderr
        assert "hint: " in done.stderr
        assert "install" in done.stderr.partition("hint: ")[2]
    machine.do("rm", probes)
    machine.do("dpkg", "-i", "--force-unsafe-io", "/tmp/ringfence.deb")
    machine.do("systemctl", "start", UNIT)


def test_a_read_only_etc_and_a_full_var(machine: Machine, bundle: Bundle, tmp_path: Path) -> None:
    """The agent writes nothing to /etc, and a full disk costs the queues alone: it starts, and still stops.

    An installation fails with dpkg's word, and the agent that runs is not touched.
    """
    machine.do(*INSTALL, "/tmp/older.deb")
    _write(machine, CONFIGURATION, FULL)
    machine.do("mkdir", "/var/lib/ringfence")
    machine.do("mount", "-t", "tmpfs", "-o", "size=64k", "none", "/var/lib/ringfence")
    assert machine.run("dd", "if=/dev/zero", "of=/var/lib/ringfence/full", "bs=4k").returncode == 1
    machine.do("mount", "--bind", "/etc", "/etc")
    machine.do("mount", "-o", "remount,bind,ro", "/etc")
    machine.do("systemctl", "start", UNIT)
    before = machine.show(UNIT, "MainPID")
    refused = machine.run("ringfence", "init", "--force")
    assert refused.returncode == 2
    assert f"ringfence: error: /{CONFIGURATION}: Read-only file system\nhint: " in refused.stderr
    with _attacked(bundle, tmp_path) as codes:
        done = machine.run(*INSTALL, "/tmp/ringfence.deb")
        assert done.returncode == 100
        assert "Read-only file system" in done.stdout + done.stderr
        _none_worked(codes)
        assert wait_for(lambda: _alerts(machine), "an alert")[0]["rule"]["id"] == "mount-call"
        assert machine.show(UNIT, "MainPID") == before
        word = "alerts wait in memory: their queue cannot be written"
        assert word in machine.do("cat", "/run/agent.log")
