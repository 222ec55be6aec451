# SPDX-License-Identifier: Apache-2.0
"""Compiles, verifies and attaches a probe with bcc in a child process, and takes over its descriptors.

The child (ringfence.bpf._bcc_child) is limited in memory and time. Any failure of it, including a
crash or a hang, becomes an error of this probe. LLVM is never loaded into this process.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ringfence.errors import Error, ProbeError, Problem
from ringfence.files import read_regular
from ringfence.probes.compose import Hook, compose, flags, hooks
from ringfence.probes.definition import Definition
from ringfence.probes.diagnose import explain
from ringfence.probes.headers import has_raw_tracepoint, header_tree
from ringfence_linux.numbers import number

__all__ = ["Attached", "Workshop", "find_python"]

_CHILD = Path(__file__).parents[1] / "bpf" / "_bcc_child.py"
_SYSTEM_PYTHON = "/usr/bin/python3"
_MAX_SOURCE, _MAX_SAID, _MAX_ANSWER = 1 << 20, 16 << 20, 1 << 17
_MAX_FDS = 253  # SCM_MAX_FD: the maximum of one message
_OLD = 900  # seconds: no compilation takes so long
_OUTPUT_MAX = 1 << 18  # bytes kept from the end of the child's output
_TOO_MUCH = "the probe has too many programs, or its event too many members, to pass to the agent"
INSTALL_BCC = "apt-get install python3-bpfcc bpftool (Fedora: dnf install python3-bcc bpftool)"


@dataclass(frozen=True, slots=True)
class Attached:
    """An attached probe. The caller owns the descriptors; closing `links` detaches it."""

    size: int  # of the event's struct
    shape: tuple[tuple[str, str, int, int, int], ...]  # name, C type, offset, size, elements or 0
    hooks: tuple[str, ...]
    ring: int
    counts: int
    terms: int
    links: tuple[int, ...]
    seconds: float

    def close(self) -> None:
        """Detaches the probe and closes all descriptors."""
        for fd in (*self.links, self.ring, self.counts, self.terms):
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where and with which limits probes are compiled. `maps`: the agent's, by name; empty without one."""

    directory: Path  # accessible to root only; holds header trees and files being compiled
    subsystem: str = ""  # v1 controller of the hierarchy with the containers; empty: version 2
    maps: Mapping[str, int] | None = None
    headers: str = "btf"
    memory: int = 768 << 20
    seconds: float = 30.0

    def tidy(self) -> None:
        """Removes files of an agent that ended while it was compiling."""
        for path in self.directory.glob("load-*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _OLD:
                    shutil.rmtree(path, ignore_errors=True)

    def build(self, probe: Definition, *, attach: bool = True) -> Attached:
        """Compiles and verifies, and attaches if `attach`. Raises Error; ProbeError with the places."""
        began = time.monotonic()
        source = _read(probe)
        found = tuple(hooks(source))
        python = find_python()
        tree = header_tree(self.directory / "headers") if self.headers == "btf" else None
        _check_hooks(probe, found, tree)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="load-", dir=self.directory))
        try:
            request = self._request(probe, source, work, tree, attach=attach)
            answer, fds, said = self._run(python, request, work, tree)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if "stage" in answer:
            raise _refusal(probe, found, answer, said)
        ring, counts, terms, *links = fds
        shape = tuple((str(n), str(t), int(o), int(s), int(e)) for n, t, o, s, e in answer["shape"])
        seconds = time.monotonic() - began
        size, names = int(answer["size"]), tuple(answer["hooks"])
        return Attached(size, shape, names, ring, counts, terms, tuple(links), seconds)

    def _request(
        self, probe: Definition, source: str, work: Path, tree: Path | None, *, attach: bool
    ) -> dict[str, Any]:
        text, pins, include = work / "probe.c", work / "pins", work / "include"
        for directory in (pins, include):
            directory.mkdir(mode=0o700)
        (include / "ringfence.h").touch()
        text.write_text(compose(probe, source))
        seconds = max(1, int(self.seconds))
        return {
            "text": str(text),
            "flags": flags(probe, self.subsystem, str(pins) if self.maps else "", include),
            "headers": str(tree / "include") if tree else "",
            "maps": list(self.maps or ()),
            "pins": str(pins),
            "nr_bpf": number("bpf"),
            "attach": attach,
            "limits": {"memory": self.memory, "seconds": seconds, "output": _MAX_SAID},
        }

    def _run(
        self, python: str, request: Mapping[str, Any], work: Path, tree: Path | None
    ) -> tuple[dict[str, Any], list[int], str]:
        """Returns the child's answer, its descriptors and output; a missing answer is replaced."""
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "HOME": "/"}
        if tree is not None:
            environment["BCC_KERNEL_SOURCE"] = str(tree)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, (work / "said").open("w+b") as said:
            with theirs:
                child = subprocess.Popen(
                    [python, "-I", str(_CHILD), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, cwd="/",
                    pass_fds=[theirs.fileno()], start_new_session=True,
                )  # fmt: skip
            with _ended(child):
                ours.settimeout(self.seconds)
                try:
                    socket.send_fds(ours, [json.dumps(request).encode()], list((self.maps or {}).values()))
                    message, fds, lost, _ = socket.recv_fds(ours, _MAX_ANSWER, _MAX_FDS)
                except TimeoutError:
                    late = f"took more than {self.seconds:.0f} s (`probes.timeout`) and was killed"
                    return {"stage": "time", "subject": "", "message": late}, [], ""
                except ConnectionError:  # the child ended before it read the request
                    message, fds, lost = b"", [], 0
                except OSError as error:  # the child waits for a request that will not arrive
                    return {"stage": "child", "subject": "", "message": str(error)}, [], ""
                if not message:
                    message = json.dumps(_crash(child)).encode()
            if fds and lost & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                for fd in fds:
                    os.close(fd)
                return {"stage": "child", "subject": "", "message": _TOO_MUCH}, [], ""
            for fd in fds:
                os.set_inheritable(fd, False)
            return json.loads(message), fds, _tail(said)


@contextlib.contextmanager
def _ended(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kills and reaps the child after the block."""
    try:
        yield
    finally:
        # The child has answered or timed out; it is not needed any more.
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        child.wait()


def _crash(child: subprocess.Popen[bytes]) -> dict[str, str]:
    """Returns the answer for a child that ended without one."""
    status = child.wait()
    how = f"status {status}"
    if status < 0:
        how = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    if -status == signal.SIGXCPU:
        how += ": it used too much CPU time (`probes.timeout`)"
    return {"stage": "crash", "subject": "", "message": f"bcc's process ended with {how}"}


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _OUTPUT_MAX))
    return file.read().decode("utf-8", "replace")


def _read(probe: Definition) -> str:
    try:
        data = read_regular(probe.source, _MAX_SOURCE)
    except OSError as error:
        text = f"cannot be read: {error.strerror}"
        text = "is not a C source of at most 1 MiB" if error.errno == errno.EFBIG else text
        raise ProbeError([Problem(str(probe.source), 0, 0, "", text)]) from None
    if b"\0" in data:
        raise ProbeError([Problem(str(probe.source), 0, 0, "", "is not a C source of at most 1 MiB")])
    return data.decode("utf-8", "replace")


def _check_hooks(probe: Definition, found: tuple[Hook, ...], tree: Path | None) -> None:
    """Finds mistakes before bcc is started, which takes a second."""
    problems = []
    for hook in found:
        if hook.kind == "lsm":
            text = "a probe can only observe: LSM_PROBE is not allowed (use a policy to deny)"
            problems.append(Problem(str(probe.source), hook.line, 0, "", text))
        elif hook.kind == "raw_tracepoint" and tree and not has_raw_tracepoint(tree, hook.name):
            text = f"this kernel has no raw tracepoint {hook.name}"
            problems.append(Problem(str(probe.source), hook.line, 0, "", text))
    if problems:
        raise ProbeError(problems)


def _refusal(probe: Definition, found: tuple[Hook, ...], answer: Mapping[str, str], said: str) -> Error:
    if answer["stage"] == "bcc":
        return Error(
            f"custom probes need bcc, which is not installed ({answer['message']})", hint=INSTALL_BCC
        )
    return ProbeError(explain(probe, found, answer, said), log=said)


def find_python() -> str:
    """Returns an interpreter with bcc: this one, or the system's, for which distributions build it."""
    if importlib.util.find_spec("bcc") is not None:
        return sys.executable
    if Path(_SYSTEM_PYTHON).exists():
        return _SYSTEM_PYTHON
    raise Error("custom probes need bcc, which is not installed", hint=INSTALL_BCC)
