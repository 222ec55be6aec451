# SPDX-License-Identifier: Apache-2.0
"""`ringfence run` and related commands with private
state and images, in the host's network or another.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import force
from tests.support.cgroups import PREFIX
from tests.support.container import make_rootfs
from tests.support.waiting import patience, wait_for

__all__ = ["Host", "Sandboxes", "connect", "host", "listening", "sandboxes"]

Done = subprocess.CompletedProcess[str]
UPLINK, HOST_ADDRESS, OUTSIDE_ADDRESS = "uplink", "192.0.2.1", "192.0.2.2"


class Host:
    """A network namespace in the role of the host, with
    one link (`uplink`) to another, the outside world.
    """

    def __init__(self) -> None:
        self.inner = self._namespace()
        self.outer = self._namespace()
        self("ip", "link", "set", "lo", "up")
        self("ip", "link", "add", UPLINK, "type", "veth", "peer", "name", "world")
        self("ip", "link", "set", "world", "netns", str(self.outer.pid))
        for namespace, link, address in (
            (self.inner, UPLINK, HOST_ADDRESS),
            (self.outer, "world", OUTSIDE_ADDRESS),
        ):
            self("ip", "address", "add", f"{address}/24", "dev", link, into=namespace)
            self("ip", "link", "set", link, "up", into=namespace)
        self("ip", "route", "add", "10.0.0.0/8", "via", HOST_ADDRESS, into=self.outer)

    def _namespace(self) -> subprocess.Popen[bytes]:
        holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        wait_for(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != own, "a network namespace")
        wait_for(lambda: Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n", "its holder")
        return holder

    def enter(self, *, outside: bool = False) -> list[str]:
        """Returns the words before a command."""
        return ["nsenter", f"--net=/proc/{(self.outer if outside else self.inner).pid}/ns/net", "--"]

    def __call__(self, *words: str, into: subprocess.Popen[bytes] | None = None, check: bool = True) -> str:
        """Run a command in it. Returns its output."""
        holder = into or self.inner
        command = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--", *words]
        got = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience(60))
        assert got.returncode == 0 or not check, got.stderr
        return got.stdout

    def forward(self, on: bool) -> None:
        """Set its forwarding sysctl, which is private to the namespace."""
        self("sh", "-c", f"echo {int(on)} > /proc/sys/net/ipv4/ip_forward")

    def links(self) -> set[str]:
        """Returns the names of its links."""
        return {link["ifname"] for link in json.loads(self("ip", "-j", "link"))}

    def tables(self) -> set[str]:
        """Returns the names of its nftables tables."""
        force.need_program("nft")
        listed = json.loads(self("nft", "-j", "list", "tables"))["nftables"]
        return {each["table"]["name"] for each in listed if "table" in each}

    def close(self) -> None:
        """End both namespaces."""
        for holder in (self.inner, self.outer):
            holder.kill()
            holder.wait()


class Sandboxes:
    """The commands. Names begin with the tests' prefix, and so do the cgroups."""

    def __init__(self, directory: Path, host: Host | None = None) -> None:
        self.directory = directory
        self.host = host
        self.given: list[str] = []
        self.state = directory / "state"
        self.images = directory / "images"
        self.rootfs = make_rootfs(directory / "rootfs", busybox=force.need_program("busybox"))
        self.environment = {**os.environ, "RINGFENCE_ENROLL_SOCKET": str(directory / "nobody.sock")}

    def name(self) -> str:
        """Returns a new name."""
        self.given.append(f"{PREFIX}{secrets.token_hex(5)}")
        return self.given[-1]

    def argv(self, command: str, *words: str) -> list[str]:
        """Returns the complete command line."""
        before = self.host.enter() if self.host else []
        roots = ["--state-root", str(self.state), "--image-root", str(self.images)]
        return [*before, sys.executable, "-m", "ringfence", command, *roots, *words]

    def __call__(self, command: str, *words: str, **options: Any) -> Done:
        """Run one command."""
        options.setdefault("stdin", None if "input" in options else subprocess.DEVNULL)
        if options["stdin"] is None:
            del options["stdin"]
        options.setdefault("timeout", patience(60))
        options.setdefault("env", self.environment)
        return subprocess.run(
            self.argv(command, *words), capture_output=True, text=True, check=False, **options
        )

    def named(self, *options: str, name: str = "") -> list[str]:
        """Returns options with a name, and a cgroup of the tests."""
        return ["--name", name or self.name(), "--cgroup-parent", "/", *options]

    def run(self, *options: str, words: Sequence[str] = ("true",), source: str = "", **more: Any) -> Done:
        """`ringfence run OPTIONS SOURCE WORDS`."""
        return self("run", *self.named(*options), source or str(self.rootfs), *words, **more)

    def shell(self, script: str, *options: str, **more: Any) -> str:
        """Returns the output of a shell script in a sandbox; it must succeed."""
        got = self.run(*options, words=("sh", "-c", script), **more)
        assert got.returncode == 0, got.stderr
        return got.stdout

    def detached(self, *options: str, script: str = "exec sleep 3600", name: str = "") -> str:
        """Start one in the background. Returns its name."""
        name = name or self.name()
        got = self("run", *self.named("--detach", *options, name=name), str(self.rootfs), "sh", "-c", script)
        assert (got.returncode, got.stdout) == (0, f"{name}\n"), got.stderr
        return name

    def listed(self, *options: str) -> dict[str, dict[str, Any]]:
        """Returns `ringfence ps -o json`, by name."""
        got = self("ps", "-o", "json", *options)
        assert got.returncode == 0, got.stderr
        return {row["name"]: row for row in json.loads(got.stdout)}

    def refused(self, *options: str, words: Sequence[str] = ("true",), source: str = "") -> str:
        """Returns the message of a run that must fail with 125. Nothing is left of it."""
        got = self.run(*options, words=words, source=source)
        assert got.returncode == 125, (got.returncode, got.stdout, got.stderr)
        assert "Traceback" not in got.stderr
        lines = got.stderr.splitlines()
        assert lines[0].startswith("ringfence: error: "), got.stderr
        assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), got.stderr
        return got.stderr

    def left(self) -> list[str]:
        """Returns everything that is recorded of sandboxes."""
        places = [self.state / "sandboxes", self.state / "runtime", self.images / "containers"]
        found = [str(path) for place in places if place.is_dir() for path in place.iterdir()]
        found += [str(path) for path in (self.state / "networks").glob("*.json")]
        top = Path("/sys/fs/cgroup")
        running = set(self.listed()) if found else set()
        for name in set(self.given) - running:
            found += [str(path) for path in (top / name, *top.glob(f"*/{name}")) if path.exists()]
        return found

    def close(self) -> None:
        """Remove all, with force; nothing may be left."""
        names = [path.name for path in (self.state / "sandboxes").glob("*")]
        if names:
            got = self("rm", "--force", *names)
            assert got.returncode == 0, got.stderr
        assert not self.left()


@pytest.fixture
def host() -> Iterator[Host]:
    """A private network in the role of the host's."""
    force.need_root()
    force.need_program("ip")
    made = Host()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def sandboxes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sandboxes]:
    """The commands; in the network of `host` if the test uses that fixture, too."""
    force.need_root()
    made = Sandboxes(tmp_path, request.getfixturevalue("host") if "host" in request.fixturenames else None)
    try:
        yield made
    finally:
        made.close()


def connect(host: Host, address: str, port: int, *, outside: bool = False, wait: float = 3.0) -> str:
    """Returns a server's answer to a connection from the host, or from outside; else `refused` or
    `nothing`.

    A server that answers one at a time is asked three times.
    """
    script = (
        "import socket, time\n"
        "said = ''\n"
        "for _ in range(3):\n"
        "    try:\n"
        f"        with socket.create_connection(({address!r}, {port}), {patience(wait)}) as s:\n"
        "            said = s.recv(100).decode().strip()\n"
        "        break\n"
        "    except ConnectionRefusedError: said = 'refused'; time.sleep(0.3)\n"
        "    except OSError: said = 'nothing'; break\n"
        "print(said)\n"
    )
    holder = host.outer if outside else host.inner
    return host(sys.executable, "-S", "-c", script, into=holder).strip()


@contextlib.contextmanager
def listening(host: Host, address: str, port: int) -> Iterator[None]:
    """A server of the host on a port, for the time of a `with` block."""
    script = f"import socket, time; s = socket.create_server(({address!r}, {port}))\n"
    script += "print('up', flush=True); time.sleep(600)"
    command = [*host.enter(), sys.executable, "-S", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"
        try:
            yield
        finally:
            server.send_signal(signal.SIGKILL)
