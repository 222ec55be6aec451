# SPDX-License-Identifier: Apache-2.0
"""Throughput and latency of sandboxes' networks beside the same without a sandbox, and beside runc with the
CNI plugins.

Everything happens in network namespaces made for it. All servers are up at the same time, one file system for
all, and the rounds go through the cases in turn, so that the machine's mood is shared.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.runtime.sandboxes import HOST_ADDRESS, UPLINK, Host, Sandboxes
from tests.support.cgroups import PREFIX
from tools.bench.record import Measurement, Row, row

PLUGINS = Path("/usr/lib/cni")
RUNC = "runc with CNI"
SECONDS = 1


class Case(NamedTuple):
    """A way from a client to a server."""

    name: str
    address: str
    port: int
    """of iperf3; sockperf has the next one"""
    outside: bool = False
    base: str = ""
    """the case that it is compared with"""


def file_system(rootfs: Path) -> None:
    """busybox, iperf3 and sockperf, with the libraries that they need."""
    for name in ("iperf3", "sockperf"):
        program = shutil.which(name)
        assert program is not None, f"needs {name}"
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in [program, *re.findall(r"(/\S+) \(0x", listed)]:
            target = rootfs / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def serve(port: int) -> str:
    """The shell script of a server."""
    latency = f"/usr/bin/sockperf server --tcp -p {port + 1} >/dev/null 2>&1"
    return f"/usr/bin/iperf3 -s -p {port} >/dev/null & exec {latency}"


@contextlib.contextmanager
def bare(enter: list[str], port: int) -> Iterator[None]:
    """The same servers without any sandbox."""
    server = subprocess.Popen([*enter, "sh", "-c", serve(port)], start_new_session=True)
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


class Cni:
    """The bridge, macvlan and portmap plugins, called as an engine calls them."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.directory = directory
        self.made: list[tuple[dict[str, Any], str, dict[str, str]]] = []

    def _call(self, command: str, config: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
        own = {"CNI_COMMAND": command, "CNI_PATH": str(PLUGINS), "PATH": os.environ["PATH"]}
        plugin = [*self.host.enter(), str(PLUGINS / config["type"])]
        got = subprocess.run(
            plugin,
            input=json.dumps(config),
            capture_output=True,
            text=True,
            check=False,
            env=own | environment,
        )
        assert got.returncode == 0, got.stdout + got.stderr
        return dict(json.loads(got.stdout)) if got.stdout else {}

    def add(self, name: str, namespace: int, config: dict[str, Any]) -> dict[str, Any]:
        """ADD, undone by `close`."""
        config = {"cniVersion": "0.4.0", "name": name, **config}
        environment = {
            "CNI_CONTAINERID": name,
            "CNI_NETNS": f"/proc/{namespace}/ns/net",
            "CNI_IFNAME": "eth0",
        }
        self.made.append((config, name, environment))
        return self._call("ADD", config, environment)

    def ipam(self, subnet: str, *, way_out: bool = False, **more: str) -> dict[str, Any]:
        """host-local, with its files in our directory."""
        routes = [{"dst": "0.0.0.0/0"}] if way_out else []
        ranges = [[{"subnet": subnet, **more}]]
        return {"type": "host-local", "ranges": ranges, "dataDir": f"{self.directory}/ipam", "routes": routes}

    def close(self) -> None:
        """DEL of all, last first."""
        for config, _, environment in reversed(self.made):
            self._call("DEL", config, environment)


@contextlib.contextmanager
def runc(directory: Path, rootfs: Path, name: str, namespace: int, port: int) -> Iterator[None]:
    """A container by runc in a network namespace that is there."""
    bundle = directory / name
    bundle.mkdir()
    subprocess.run(["runc", "spec", "--bundle", str(bundle)], check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"].update(terminal=False, args=["sh", "-c", serve(port)])
    config["process"].pop("rlimits", None)
    config["root"] = {"path": str(rootfs), "readonly": False}
    config["linux"]["cgroupsPath"] = f"/{name}"
    for space in config["linux"]["namespaces"]:
        if space["type"] == "network":
            space["path"] = f"/proc/{namespace}/ns/net"
    (bundle / "config.json").write_text(json.dumps(config))
    command = ["runc", "--root", str(directory / "runc")]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*command, "run", "--detach", name], cwd=bundle, check=True, **pipes)  # type: ignore[call-overload]
    try:
        yield
    finally:
        subprocess.run([*command, "delete", "--force", name], check=True)


def peers(
    stack: contextlib.ExitStack, host: Host, directory: Path, rootfs: Path
) -> tuple[list[Case], list[str]]:
    """runc's cases, and notes on what could not be had."""
    if not (PLUGINS / "bridge").exists() or shutil.which("runc") is None:
        return [], ["no CNI plugins or no runc here: no peer was measured"]
    cni = Cni(host, directory)
    cases, notes = [], []
    inside = namespace(stack)
    bridge = {
        "type": "bridge",
        "bridge": "cnibr",
        "isGateway": True,
        "ipMasq": shutil.which("iptables") is not None,
    }
    result = cni.add(
        f"{PREFIX}cni-bridge", inside, {**bridge, "ipam": cni.ipam("10.88.0.0/24", way_out=True)}
    )
    address = result["ips"][0]["address"].partition("/")[0]
    stack.callback(cni.close)
    stack.enter_context(runc(directory, rootfs, f"{PREFIX}cni-bridge", inside, 5401))
    cases.append(Case(f"bridge, {RUNC}", address, 5401, base="bare veth"))
    if shutil.which("iptables"):
        ports = [{"hostPort": 6401 + n, "containerPort": 5401 + n, "protocol": "tcp"} for n in (0, 1)]
        config = {"type": "portmap", "runtimeConfig": {"portMappings": ports}, "prevResult": result}
        cni.add(f"{PREFIX}cni-bridge", inside, config)
        cases.append(Case(f"published port, {RUNC}", HOST_ADDRESS, 6401, base="bare veth"))
    else:
        notes.append("no iptables here: the CNI plugins' published port and masquerading were not measured")
    inside = namespace(stack)
    config = {
        "type": "macvlan",
        "master": UPLINK,
        "mode": "bridge",
        "ipam": cni.ipam("192.0.2.0/24", rangeStart="192.0.2.90"),
    }
    address = cni.add(f"{PREFIX}cni-macvlan", inside, config)["ips"][0]["address"].partition("/")[0]
    stack.enter_context(runc(directory, rootfs, f"{PREFIX}cni-macvlan", inside, 5501))
    cases.append(Case(f"macvlan, {RUNC}", address, 5501, outside=True, base="bare uplink"))
    return cases, notes


def namespace(stack: contextlib.ExitStack) -> int:
    """The process that holds a new network namespace."""
    own = os.readlink("/proc/self/ns/net")
    holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
    stack.callback(holder.wait)
    stack.callback(holder.kill)
    while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
        time.sleep(0.01)
    return holder.pid


def ours(stack: contextlib.ExitStack, sandboxes: Sandboxes) -> list[Case]:
    """Our cases."""
    stack.callback(sandboxes.close)

    def start(port: int, *options: str) -> str:
        name = sandboxes.detached(*options, script=serve(port))
        return str(next(iter(sandboxes.listed()[name].get("addresses", ["127.0.0.1"])), ""))

    start(5101, "--network", "host")
    address = start(5201, "--network", "bridge", "-p", "6201:5201", "-p", "6202:5202")
    outer = start(5301, "--network", f"macvlan:{UPLINK},subnet=192.0.2.0/24,ip=192.0.2.80")
    return [
        Case("host", "127.0.0.1", 5101, base="bare loopback"),
        Case("bridge", address, 5201, base="bare veth"),
        Case("published port", HOST_ADDRESS, 6201, base="bare veth"),
        Case("macvlan", outer, 5301, outside=True, base="bare uplink"),
    ]


def throughput(host: Host, case: Case) -> float:
    """Gbit/s of one TCP stream, as the server received it."""
    command = [
        *host.enter(outside=case.outside),
        "iperf3",
        "-c",
        case.address,
        "-p",
        str(case.port),
        "-t",
        str(SECONDS),
        "-J",
    ]
    got = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS + 10)
    said = json.loads(got.stdout)
    assert "error" not in said, said["error"]
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


def latency(host: Host, case: Case) -> float:
    """Microseconds of half a round trip of 14 bytes over TCP, the median of a second."""
    command = [*host.enter(outside=case.outside), "sockperf", "ping-pong", "--tcp", "-i", case.address]
    command += ["-p", str(case.port + 1), "-t", str(SECONDS)]
    got = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS + 10)
    found = re.search(r"percentile 50\.0+\s*=\s*([0-9.]+)", got.stdout)
    assert found is not None, got.stdout
    return float(found[1])


def wait_until_up(host: Host, cases: list[Case]) -> None:
    """Until every server answers."""
    for case in cases:
        failed: Exception | None = None
        for _ in range(30):
            try:
                latency(host, case)
                throughput(host, case)
                break
            except (subprocess.SubprocessError, AssertionError) as error:
                failed = error
                time.sleep(0.1)
        else:
            raise AssertionError(f"{case.name}: no server answers: {failed}")


def starts(sandboxes: Sandboxes, rounds: int) -> list[Row]:
    """What a network adds to a start: `ringfence run ... true`, in ms."""
    modes = {"none": "none", "host": "host", "bridge": "bridge", "macvlan": f"macvlan:{UPLINK}"}
    samples: dict[str, list[float]] = {name: [] for name in modes}
    for _ in range(rounds):
        for name, mode in modes.items():
            begun = time.perf_counter()
            got = sandboxes.run("--network", mode)
            samples[name].append((time.perf_counter() - begun) * 1000)
            assert got.returncode == 0, got.stderr
    return [
        row(f"start to end of `true`, --network {name}", values, "ms") for name, values in samples.items()
    ]


def measure(*, quick: bool = False) -> Measurement:
    """All cases, in turn."""
    rounds = 2 if quick else 7
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rf-net-")))
        host = Host()
        stack.callback(host.close)
        host.forward(True)
        sandboxes = Sandboxes(directory, host)
        file_system(sandboxes.rootfs)
        cases = [
            Case("bare loopback", "127.0.0.1", 5001),
            Case("bare veth", "198.51.100.2", 5001),
            Case("bare uplink", HOST_ADDRESS, 5001, outside=True),
        ]
        stack.enter_context(bare(host.enter(), 5001))
        plain = namespace(stack)
        cable(host, plain)
        stack.enter_context(bare(["nsenter", f"--net=/proc/{plain}/ns/net", "--"], 5001))
        cases += ours(stack, sandboxes)
        theirs, notes = peers(stack, host, directory, sandboxes.rootfs)
        cases += theirs
        wait_until_up(host, cases)
        speed: dict[str, list[float]] = {case.name: [] for case in cases}
        delay: dict[str, list[float]] = {case.name: [] for case in cases}
        for _ in range(rounds):
            for case in cases:
                speed[case.name].append(throughput(host, case))
                delay[case.name].append(latency(host, case))
        rows = [row(f"{name}: throughput", values, "Gb/s", best=False) for name, values in speed.items()]
        rows += [row(f"{name}: latency", values, "us", best=False) for name, values in delay.items()]
        rows += starts(sandboxes, 3 if quick else 15)
    method = f"iperf3 (one TCP stream), sockperf ping-pong (TCP), {SECONDS} s each, {rounds} rounds; medians"
    return Measurement("network", method, rows, [], [*notes, *compared(cases, speed, delay)])


def cable(host: Host, plain: int) -> None:
    """A pair of links with nothing between."""
    host("ip", "link", "add", "bare0", "type", "veth", "peer", "name", "bare1", "netns", str(plain))
    host("ip", "address", "add", "198.51.100.1/24", "dev", "bare0")
    host("ip", "link", "set", "bare0", "up")
    into = ["nsenter", f"--net=/proc/{plain}/ns/net", "--", "ip"]
    subprocess.run([*into, "address", "add", "198.51.100.2/24", "dev", "bare1"], check=True)
    subprocess.run([*into, "link", "set", "bare1", "up"], check=True)


def compared(cases: list[Case], speed: dict[str, list[float]], delay: dict[str, list[float]]) -> list[str]:
    """Each case by its base, round by round."""
    notes = []
    for case in cases:
        if case.base:
            faster = statistics.median(a / b for a, b in zip(speed[case.name], speed[case.base], strict=True))
            slower = statistics.median(a / b for a, b in zip(delay[case.name], delay[case.base], strict=True))
            notes.append(
                f"{case.name}: {faster:.0%} of the throughput of {case.base}, {slower:.0%} of its latency"
            )
    return notes
