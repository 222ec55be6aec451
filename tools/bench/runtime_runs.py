# SPDX-License-Identifier: Apache-2.0
"""One run of a container, timed from outside."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from struct import unpack

from ringfence_runtime.launcher.protocol import ENDED, RUNNING
from tests.support.cgroups import PREFIX

LAUNCHER = "launcher.sock"
_NULL = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
_STREAMS = [(os.POSIX_SPAWN_DUP2, _NULL, number) for number in range(2)]


def timed(command: list[str], directory: Path) -> float:
    """Milliseconds of a command in the bundle `directory`, from its start to its exit."""
    words = [*command[:-1], "--bundle", str(directory), command[-1]]
    start = time.perf_counter()
    pid = os.posix_spawnp(words[0], words, os.environ, file_actions=_STREAMS)
    status = os.waitpid(pid, 0)[1]
    milliseconds = (time.perf_counter() - start) * 1000
    assert status == 0, (words, status)
    return milliseconds


def by_socket(path: Path, words: list[str], directory: Path) -> float:
    """Milliseconds that the launcher takes for a command, from connecting to the workload's exit code."""
    texts = [str(directory), "22", str(len(words)), *words, "PATH=/usr/bin:/bin"]
    message = b"".join(os.fsencode(text) + b"\0" for text in texts)
    start = time.perf_counter()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(path))
        socket.send_fds(sock, [message], [_NULL] * 3)
        answers = [unpack("2i", sock.recv(8)), unpack("2i", sock.recv(8))]
    milliseconds = (time.perf_counter() - start) * 1000
    assert [what for what, _ in answers] == [RUNNING, ENDED], "the launcher did not take it"
    assert answers[1][1] == 0, answers
    return milliseconds


def processor_time(runs: dict[str, list[str]], directory: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of one run with everything in it, launcher and container too: by the
    cpuacct controller, so it says little about others' work at the same time. Empty without version 1 of it.
    """
    top = Path("/sys/fs/cgroup/cpuacct")
    if not (top / "cpuacct.usage").exists():
        return {}
    group = top / f"{PREFIX}bench-{os.getpid()}"
    group.mkdir()
    bundle = directory / "bundle-below"
    bundle.mkdir(exist_ok=True)
    config = json.loads((directory / "bundle/config.json").read_text())
    config["linux"]["cgroupsPath"] = f"/{group.name}/one"
    config["root"]["path"] = str(directory / "bundle/rootfs")
    (bundle / "config.json").write_text(json.dumps(config))
    try:
        return _in_group(group, runs, directory, bundle, rounds)
    finally:
        for path in Path("/sys/fs/cgroup").glob(f"*/{group.name}"):
            if path.parent.name == "unified" and not (path / "cgroup.procs").exists():
                shutil.rmtree(path)  # where version 2 is hidden, crun makes directories in its place
            else:
                path.rmdir()


def _in_group(
    group: Path, runs: dict[str, list[str]], directory: Path, bundle: Path, rounds: int
) -> dict[str, list[float]]:
    def join() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    def usage() -> float:
        return int((group / "cpuacct.usage").read_text()) / 1e6

    def one(words: list[str]) -> float:
        before = usage()
        command = [*words, "--bundle", str(bundle), "one"]
        subprocess.run(command, check=True, stdin=_NULL, stdout=_NULL, preexec_fn=join)
        time.sleep(0.03)  # what the launcher does after its answer belongs to it
        return usage() - before

    path = directory / "ringfence-runtime"
    (directory / LAUNCHER).unlink()  # the one that runs is outside of the group
    server = subprocess.Popen(
        [str(path), "launcher", "--socket", str(directory / LAUNCHER)],
        preexec_fn=join,
    )
    samples: dict[str, list[float]] = {name: [] for name in runs}
    try:
        while not (directory / LAUNCHER).exists():
            time.sleep(0.01)
        time.sleep(1)  # it listens before it has put its memory in order
        for _ in range(rounds):
            for name, words in runs.items():
                samples[name].append(one(words))
    finally:
        server.terminate()
        server.wait()
        time.sleep(0.1)
    return samples
