# SPDX-License-Identifier: Apache-2.0
"""What is too deep, too long or gone counts as the worst: nothing passes because it was missing.

Buffers for texts: test_lsm_starved.py.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import EventKind
from tests.kernel.lsm import mounted
from tests.kernel.probes import BOTH_WAYS, HOOKS_DECIDE, Probes, results
from tests.kernel.rules import Rule
from tests.kernel.starving import Act
from tests.support.cgroups import Cgroup

pytestmark = pytest.mark.root
K = EventKind
FLAGS = 1  # operand of file.link: what its text does
CLIMBS = 2
CHROOTED = 0  # operand of chroot
LEVELS = 256  # RF_WALK_DEPTH of probes/include/path.h

#: Stacks a root on the root of its mount namespace, ever again, and prints a line for each.
STACKING = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def done(result):
    if result:
        raise SystemExit(f"refused {ctypes.get_errno()}")
os.chdir("/tmp")
for _ in range(20):
    os.makedirs("stacked", exist_ok=True)
    done(libc.mount(b"none", b"stacked", b"tmpfs", 0, None))
    os.chdir("stacked")
    done(libc.mount(b".", b"/", None, 0x2000, None))
    done(libc.chroot(b"."))
    print("passed", flush=True)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own."""
    with mounted("-t", "tmpfs", "none", tmp_path):
        yield tmp_path


def refused(done: subprocess.CompletedProcess[bytes], name: str) -> bool:
    """True if the container's call failed with EPERM, or its process was killed in it."""
    return done.returncode == -signal.SIGKILL or results(done)[name] == -errno.EPERM


def opens(cgroup: Cgroup, act: str, path: str, within: Path) -> bool:
    """Open a file by a relative path. Returns True if it was not refused."""
    done = cgroup.run([act, f"open:{path}:0"], capture_output=True, cwd=within)
    if refused(done, "open"):
        return False
    assert results(done)["open"] >= 0, done
    return True


def make_file(directory: Path, levels: list[str]) -> None:
    """A file `f` that deep. The path may be longer than a call accepts."""
    at = os.open(directory, os.O_RDONLY)
    for level in levels:
        os.mkdir(level, dir_fd=at)
        below = os.open(level, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=at))
    os.close(at)


@BOTH_WAYS
@pytest.mark.parametrize("depth", [10, 70, LEVELS - 2])
def test_a_rule_on_a_directory_holds_deep_below_it(
    probes: Probes, cgroup: Cgroup, act: str, disk: Path, depth: int
) -> None:
    """And that on another directory does not."""
    make_file(disk, ["d"] * depth)
    probes.enforce(Rule(K.FILE_OPEN, "deny", text=b"/d/d/d/"))
    assert not opens(cgroup, act, "d/" * depth + "f", disk)
    probes.enforce(Rule(K.FILE_OPEN, "deny", text=b"/d/e/"))
    assert opens(cgroup, act, "d/" * depth + "f", disk)


@BOTH_WAYS
def test_a_file_whose_path_is_too_deep_may_be_any(
    probes: Probes, cgroup: Cgroup, act: str, disk: Path
) -> None:
    """So a rule on any path of its filesystem refuses it, and an alert does not."""
    depth = LEVELS + 20
    make_file(disk, ["d"] * depth)
    probes.enforce(Rule(K.FILE_OPEN, "deny", text=b"/no/such\0"))
    assert not opens(cgroup, act, "d/" * depth + "f", disk)
    probes.enforce(Rule(K.FILE_OPEN, "alert", text=b"/no/such\0"))
    assert opens(cgroup, act, "d/" * depth + "f", disk)


@BOTH_WAYS
def test_a_rule_on_a_directory_holds_below_names_of_any_length(
    probes: Probes, cgroup: Cgroup, act: str, disk: Path
) -> None:
    """A path of 6,000 characters, of which a walk keeps the first ones."""
    levels = [f"{number:0240}" for number in range(25)]
    make_file(disk, levels)
    half = "/".join(levels[:12])
    rest = "/".join([*levels[12:], "f"])
    probes.enforce(Rule(K.FILE_OPEN, "deny", text=b"/" + levels[0][:100].encode()))
    assert not opens(cgroup, act, rest, disk / half)
    probes.enforce(Rule(K.FILE_OPEN, "deny", text=b"/" + levels[1][:100].encode() + b"x"))
    assert opens(cgroup, act, rest, disk / half)


@BOTH_WAYS
def test_the_alert_of_a_long_path_shows_its_head(
    probes: Probes, cgroup: Cgroup, act: str, disk: Path
) -> None:
    """Not what a walk had first."""
    levels = [chr(97 + number) * 100 for number in range(20)]
    make_file(disk, levels)
    probes.enforce(Rule(K.FILE_OPEN, "alert", text=b"/" + levels[0].encode()))
    assert opens(cgroup, act, "/".join([*levels, "f"]), disk)
    (event,) = [e for e in probes.wait(cgroup, K.FILE_OPEN) if e.rule == 0]
    assert event.path == ("/" + "/".join(levels)).encode()[:255]


@BOTH_WAYS
def test_a_root_below_too_many_others_counts_as_a_changed_one(
    probes: Probes, cgroup: Cgroup, by_hook: bool
) -> None:
    """The walk to the first root has an end. Before it, the root is known to be the namespace's."""
    probes.enforce(Rule(K.SYS_CHROOT, "deny", {CHROOTED: {1}}))
    done = cgroup.run([sys.executable, "-c", STACKING], capture_output=True, text=True)
    passed = done.stdout.count("passed")
    assert 10 < passed < 18, done
    assert done.returncode == (1 if by_hook else -signal.SIGKILL)


@HOOKS_DECIDE
def test_a_link_whose_text_is_too_long_may_climb(
    probes: Probes, cgroup: Cgroup, act: str, disk: Path
) -> None:
    """Only its first 255 characters are examined."""
    probes.enforce(Rule(K.FILE_LINK, "deny", {FLAGS: {CLIMBS}}, {FLAGS: CLIMBS}))
    for text, refuses in (("a/" * 100, False), ("a/" * 150, True), ("a/" * 50 + "../b", True)):
        done = cgroup.run([act, f"sys:88:={text}:={disk}/link"], capture_output=True)
        assert refused(done, "sys") is refuses, text
        (disk / "link").unlink(missing_ok=True)


@BOTH_WAYS
def test_a_task_whose_slot_has_another_owner_does_not_go_on(
    probes: Probes, cgroup: Cgroup, act: str, disk: Path
) -> None:
    """No rules are known for it: its connections are refused, and it is killed at its next call."""
    with Act(probes, cgroup, act, "connect:127.0.0.1:9", "connect:127.0.0.1:9", "open:/proc/uptime:0") as one:
        assert one.call() == -errno.EINPROGRESS or one.process.poll() is None
        slots = probes.kernel.map("slots")
        at, value = probes.slot(cgroup), slots.get(probes.slot(cgroup))
        assert value is not None
        assert value.count(cgroup.id.to_bytes(8, "little")) == 1
        other = (cgroup.id + 1).to_bytes(8, "little")
        slots.set(at, value.replace(cgroup.id.to_bytes(8, "little"), other))
        try:
            assert one.call() in (-errno.EPERM, None)
            assert one.process.poll() is not None or one.call() is None
            assert one.status() == -signal.SIGKILL
        finally:
            slots.set(at, value)
