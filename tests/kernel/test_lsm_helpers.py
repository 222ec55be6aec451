# SPDX-License-Identifier: Apache-2.0
"""Usermode helpers, which the kernel runs by itself: in virtual machines only, with and without
LSM hooks.

core_pattern, modprobe, release_agent and uevent_helper are really written.
"""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ringfence.abi import HELPER_CORE, HELPER_OTHER, Action, EventKind, Mechanism
from ringfence.daemon.defence.usermode_helpers import UsermodeHelpers, find, keys
from tests.kernel.lsm import mounted
from tests.kernel.probes import BOTH_WAYS, Probes, results
from tests.kernel.rules import Rule
from tests.support import force
from tests.support.cgroups import PREFIX, Cgroup
from tests.support.hooks import hook_mechanism
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("in_a_machine"), BOTH_WAYS]
K = EventKind
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


UNKNOWN = Rule(K.KERNEL_HELPER, "kill", {1: {0}})
MODPROBE = Path("/proc/sys/kernel/modprobe")


@contextmanager
def setting(path: Path, value: str) -> Iterator[None]:
    """A sysctl with that value; restored at the end."""
    before = path.read_text()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)


def marking(directory: Path, name: str, more: str = "") -> tuple[Path, Path]:
    """A script that everyone may run and that creates a marker file, and that file."""
    for path in (directory, *directory.parents[:3]):
        path.chmod(0o755)
    script, mark = directory / name, directory / f"{name}.ran"
    script.write_text(f"#!/bin/sh\necho ran >{mark}\n{more}\n")
    script.chmod(0o755)
    return script, mark


def helper_records(probes: Probes, path: Path, before: int) -> list[Any]:
    """Returns the helper records from `before` on for
    that script (without a hook: its interpreter).
    """
    names = (str(path).encode(), b"/usr/bin/dash", b"/bin/dash")
    return [event for event in probes.events(None, K.KERNEL_HELPER)[before:] if event.path in names]


def wait_for_modprobe() -> None:
    """Make the kernel run modprobe and wait for its end: no kernel here has the module AF_ROSE."""
    with pytest.raises(OSError, match="not supported"):
        socket.socket(11, socket.SOCK_SEQPACKET)


def test_a_program_that_the_kernel_waits_for_is_a_helper(
    probes: Probes, cgroup: Cgroup, tmp_path: Path
) -> None:
    """modprobe by its setting: its parent is a waiting worker, not kthreadd."""
    script, mark = marking(tmp_path, "modprobe")
    with setting(MODPROBE, str(script)):
        wait_for_modprobe()
        wait_for(mark.exists, "the control: it runs")
        mark.unlink()
        probes.enforce(UNKNOWN)
        before = len(probes.events(None, K.KERNEL_HELPER))
        wait_for_modprobe()
        event = wait_for(lambda: helper_records(probes, script, before), "the helper's record")[0]
    assert (event.action, event.container) == (Action.KILL, 0)
    assert not mark.exists()


def test_a_real_release_agent_does_not_run(probes: Probes, cgroup: Cgroup, tmp_path: Path) -> None:
    """Of a named v1 hierarchy, which no boot option
    turns off: it runs when the last process leaves.
    """
    script, mark = marking(tmp_path, "agent")
    hierarchy = tmp_path / "v1"
    hierarchy.mkdir()

    def emptied(name: str) -> None:
        """Returns a group that had a process, and has none any more."""
        group = hierarchy / name
        group.mkdir()
        (group / "notify_on_release").write_text("1")
        done = ["sh", "-c", f"echo $$ >{group}/cgroup.procs"]
        subprocess.run(done, check=True)

    with mounted("-t", "cgroup", "-o", f"none,name={PREFIX}release", "none", hierarchy):
        (hierarchy / "release_agent").write_text(str(script))
        emptied("control")
        wait_for(mark.exists, "the control: it runs")
        mark.unlink()
        probes.enforce(UNKNOWN)
        before = len(probes.events(None, K.KERNEL_HELPER))
        emptied("attack")
        event = wait_for(lambda: helper_records(probes, script, before), "the helper's record")[0]
        for name in ("control", "attack"):
            wait_for(lambda name=name: _removed(hierarchy / name), "the group to be free")  # type: ignore[misc]
    assert event.action == Action.KILL
    assert not mark.exists()


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


def test_a_uevent_helper_does_not_run(probes: Probes, cgroup: Cgroup, tmp_path: Path) -> None:
    """Where the kernel has it (CONFIG_UEVENT_HELPER)."""
    switch = Path("/sys/kernel/uevent_helper")
    if not switch.exists():
        force.elsewhere("this kernel has no uevent_helper")
    script, mark = marking(tmp_path, "uevent")
    with setting(switch, str(script)):
        Path("/sys/class/mem/null/uevent").write_text("change")
        wait_for(mark.exists, "the control: it runs")
        mark.unlink()
        probes.enforce(UNKNOWN)
        before = len(probes.events(None, K.KERNEL_HELPER))
        Path("/sys/class/mem/null/uevent").write_text("change")
        wait_for(lambda: helper_records(probes, script, before), "the helper's record")
    assert not mark.exists()


def test_programs_that_a_known_helper_executes_are_not_checked(
    probes: Probes, cgroup: Cgroup, tmp_path: Path
) -> None:
    """A wrapper: it is checked once, when the kernel runs it."""
    inner, mark = marking(tmp_path, "inner")
    wrapper, _ = marking(tmp_path, "wrapper", more=f"exec {inner}")
    table = probes.kernel.map("helpers")
    known = keys(find({str(wrapper): HELPER_OTHER}))
    table.update_batch(known)
    probes.enforce(UNKNOWN)
    with setting(MODPROBE, str(wrapper)):
        wait_for_modprobe()
        wait_for(mark.exists, "what the wrapper executes")
    for key in known:
        table.delete(key)


def test_an_upgrade_of_a_helper_is_known_at_the_next_check(
    probes: Probes, cgroup: Cgroup, tmp_path: Path
) -> None:
    """A new file renamed over it, as packages do. The
    inode's number may be reused: that is no helper.
    """
    script, mark = marking(tmp_path, "modprobe")
    helpers = UsermodeHelpers(probes.kernel.map("helpers"), [script])
    probes.enforce(UNKNOWN)
    with setting(MODPROBE, str(script)):
        wait_for_modprobe()
        wait_for(mark.exists, "the one that was there")
        mark.unlink()
        fresh, _ = marking(tmp_path, "modprobe.new")
        fresh.write_text(script.read_text())
        fresh.rename(script)
        helpers.refresh()
        wait_for_modprobe()
        wait_for(mark.exists, "the new one")
    probes.kernel.map("helpers").delete_all()


def test_a_known_program_is_refused_as_a_core_dump_handler(
    probes: Probes, cgroup: Cgroup, handler: Path, tmp_path: Path
) -> None:
    """core_pattern takes arguments: modprobe would run the commands
    of an attacker's configuration. A known program under another name
    is refused, too, such as systemctl, to which poweroff is a link.
    """
    table = probes.kernel.map("helpers")
    mark = handler.parent / "mark"
    alias = handler.with_name("alias")
    alias.symlink_to(handler.name)
    for known in (keys(find({str(handler): HELPER_OTHER})), keys(find({str(alias): HELPER_CORE}))):
        table.update_batch(known)
        probes.enforce(UNKNOWN)
        before = len(probes.events(None, K.KERNEL_HELPER))
        _crash()
        wait_for(lambda before=before: probes.events(None, K.KERNEL_HELPER)[before:], "its record")  # type: ignore[misc]
        assert not mark.exists()
        for key in known:
            table.delete(key)


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[Path]:
    """A script that the kernel uses as its core handler; core_pattern is restored."""
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(0o755)
    script = tmp_path / "handler"
    script.write_text(f"#!/bin/sh\ncat >/dev/null\necho ran >>{tmp_path}/mark\n")
    script.chmod(0o755)
    before = CORE_PATTERN.read_text()
    CORE_PATTERN.write_text(f"|{script}")
    yield script
    CORE_PATTERN.write_text(before)


def _crash() -> None:
    subprocess.run(["/bin/sh", "-c", "kill -SEGV $$"], check=False, stderr=subprocess.DEVNULL)


def test_an_unknown_helper_does_not_run(probes: Probes, handler: Path, cgroup: Cgroup) -> None:
    """However core_pattern was written: the helper is
    killed where the kernel would run it. Known ones run.
    """
    mark = handler.parent / "mark"
    probes.enforce(Rule(K.KERNEL_HELPER, "kill", {1: {0}}))
    before = len(probes.events(None, K.KERNEL_HELPER))
    _crash()
    event = wait_for(lambda: probes.events(None, K.KERNEL_HELPER)[before:], "the helper's record")[0]
    assert event.action == Action.KILL
    assert event.mechanism in (hook_mechanism(), Mechanism.KILL)
    assert event.container == 0
    assert not mark.exists()
    # The same crash, and the same program: now the node knows it.
    table = probes.kernel.map("helpers")
    known = keys(find({str(handler): HELPER_CORE}))
    table.update_batch(known)
    _crash()
    wait_for(mark.exists, "the handler to run")
    for key in known:
        table.delete(key)


def test_a_helper_is_reported_in_audit_mode(probes: Probes, handler: Path, cgroup: Cgroup) -> None:
    """With the program that was run, and it runs."""
    probes.enforce(Rule(K.KERNEL_HELPER, "alert", {1: {0}}))
    before = len(probes.events(None, K.KERNEL_HELPER))
    _crash()
    wait_for((handler.parent / "mark").exists, "the handler to run")
    event = wait_for(lambda: probes.events(None, K.KERNEL_HELPER)[before:], "the helper's record")[0]
    assert event.action == Action.ALERT
    assert event.path in (str(handler).encode(), b"/usr/bin/dash", b"/bin/dash")


def test_a_host_program_is_no_helper(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """Only children of kthreadd are checked."""
    probes.enforce(Rule(K.KERNEL_HELPER, "kill"))
    before = len(probes.events(None, K.KERNEL_HELPER))
    assert subprocess.run(["/bin/true"], check=False).returncode == 0
    assert results(cgroup.run([act, "setuid:0"], capture_output=True))["setuid"] in (0, -errno.EPERM)
    assert len(probes.events(None, K.KERNEL_HELPER)) == before
