# SPDX-License-Identifier: Apache-2.0
"""Files at LSM hooks: refused before the effect, with the same record as without LSM hooks.

Each refusal has its control: the same act without the rule.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from ringfence.abi import DIM_FACTS, Action, EventKind, Fact, Mechanism
from tests.kernel.lsm import REFUSED, evading, mounted, named
from tests.kernel.probes import Probes, results
from tests.kernel.rules import Rule
from tests.support.cgroups import Cgroup
from tests.support.hooks import hook_mechanism

pytestmark = pytest.mark.root
PROBES = {"lsm": True}
K = EventKind
TIOCGPTN = 0x80045430  # the number of a pty: a query without effect


def run(cgroup: Cgroup, act: str, *commands: str) -> dict[str, int]:
    """Run commands of act.c, armed in the container; return their results. They end by themselves."""
    done: subprocess.CompletedProcess[bytes] = cgroup.run([act, *commands], capture_output=True)
    assert done.returncode == 0, done
    return results(done)


def test_an_open_is_refused_before_its_effect(
    probes: Probes, cgroup: Cgroup, act: str, tmp_path: Path
) -> None:
    """EPERM, the process lives, O_TRUNC has no effect; the record has the file and the mechanism."""
    secret = tmp_path / "secret"
    secret.write_text("kept")
    command = f"open:{secret}:{os.O_WRONLY | os.O_TRUNC}"
    probes.enforce(named("secret"))
    assert run(cgroup, act, command) == {"open": -errno.EPERM}
    assert secret.read_text() == "kept"
    (event,) = probes.wait(cgroup, K.FILE_OPEN)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())
    assert (event.inode, event.path.endswith(b"/secret")) == (secret.stat().st_ino, True)
    probes.enforce()
    assert run(cgroup, act, command)["open"] >= 0
    assert secret.read_text() == ""


CALLS = [
    (K.SYS_MKNOD, {0: {0o100000}}, {}, ("mknod", "NEW", "-")),
    (K.SYS_CHMOD, {0: {0o4000}}, {0: 0o4000}, ("chmod", "FILE", "-")),
    (K.SYS_CHMOD, {0: {0o4000}}, {0: 0o4000}, ("setuid", "NEW", "-")),
    (K.SYS_CHMOD, {0: {0o4000}}, {0: 0o4000}, ("mknod", "NEW", "-")),
    (K.SYS_CHROOT, {}, {}, ("chroot", "/", "-")),
    (K.SYS_SYMLINK, {}, {}, ("symlink", "FILE", "NEW")),
    (K.SYS_IOCTL, {0: {TIOCGPTN}}, {}, ("ioctl", str(TIOCGPTN), "-")),
    (K.SYS_MOUNT, {}, {}, ("bind", "FILE", "NEW")),
    (K.SYS_MOUNT, {}, {}, ("fsmount", "tmpfs", ".")),
    (K.SYS_MOVE_MOUNT, {}, {}, ("fsmount", "tmpfs", "/mnt")),
]


@pytest.mark.parametrize(("kind", "operands", "masks", "words"), CALLS, ids=lambda value: str(value)[:24])
def test_a_call_is_refused_at_its_hook(
    probes: Probes,
    cgroup: Cgroup,
    evade: str,
    tmp_path: Path,
    kind: EventKind,
    operands: dict[int, set[int]],
    masks: dict[int, int],
    words: tuple[str, ...],
) -> None:
    """EPERM, and one record of the call; without the rule it succeeds."""
    (tmp_path / "file").write_text("x")

    def filled(new: str) -> list[str]:
        return [{"FILE": f"{tmp_path}/file", "NEW": f"{tmp_path}/{new}"}.get(word, word) for word in words]

    probes.enforce(Rule(kind, "deny", operands, masks))
    assert evading(cgroup, evade, *filled("first")) == REFUSED
    (event,) = probes.wait(cgroup, kind)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())
    probes.enforce()
    assert evading(cgroup, evade, *filled("second")).error == 0


def test_a_filesystem_is_matched_by_name_in_either_api(
    probes: Probes, cgroup: Cgroup, evade: str, tmp_path: Path
) -> None:
    """One rule on the type; another type passes."""
    probes.enforce(Rule(K.SYS_MOUNT, "deny", text=b"tmpfs\0"))
    assert evading(cgroup, evade, "mount", "tmpfs", tmp_path / "a", ".") == REFUSED
    assert evading(cgroup, evade, "fsmount", "tmpfs", ".") == REFUSED
    assert evading(cgroup, evade, "mount", "ramfs", tmp_path / "b", ".").error == 0
    assert evading(cgroup, evade, "fsmount", "ramfs", ".").error == 0
    target = bytes(tmp_path / "a")
    assert [event.strings for event in probes.wait(cgroup, K.SYS_MOUNT, 2)] == [
        (b"tmpfs", b"tmpfs", target),
        (b"tmpfs", b"", b""),
    ]


def test_a_parameter_is_refused_by_its_name(probes: Probes, cgroup: Cgroup, evade: str) -> None:
    """By the kernel's copy of the name, not by the caller's memory."""
    probes.enforce(Rule(K.SYS_FSCONFIG, "deny", text=b"size\0"))
    assert evading(cgroup, evade, "fsconfig", "tmpfs", "size", "1m") == REFUSED
    assert evading(cgroup, evade, "fsconfig", "tmpfs", "mode", "700").error == 0
    (event,) = probes.wait(cgroup, K.SYS_FSCONFIG)
    assert (event.strings, event.mechanism) == ((b"size", b"1m", b""), hook_mechanism())


def test_an_unmount_is_refused(probes: Probes, cgroup: Cgroup, evade: str, tmp_path: Path) -> None:
    """For example of a mount that hides something."""
    with mounted("-t", "tmpfs", "none", tmp_path):
        probes.enforce(Rule(K.SYS_UMOUNT, "deny"))
        assert evading(cgroup, evade, "umount", tmp_path, "-") == REFUSED
        (event,) = probes.wait(cgroup, K.SYS_UMOUNT)
        assert event.text == str(tmp_path).encode()
        probes.enforce()
        assert evading(cgroup, evade, "umount", tmp_path, "-").error == 0


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """A program that a rule can name."""
    path = tmp_path / "tool"
    shutil.copy2("/bin/true", path)
    return path


def test_a_program_is_refused_before_it_replaces_the_other(
    probes: Probes, cgroup: Cgroup, evade: str, tool: Path
) -> None:
    """execve fails and the caller lives on; it is reported once."""
    probes.enforce(named("tool", K.PROCESS_EXEC))
    assert evading(cgroup, evade, "exec", tool, "-") == REFUSED
    (event,) = probes.wait(cgroup, K.PROCESS_EXEC)
    assert (event.action, event.mechanism) == (Action.DENY, hook_mechanism())
    assert event.path == str(tool).encode()
    probes.enforce()
    assert cgroup.run([evade, "exec", str(tool), "-"]).returncode == 0


def test_a_forbidden_first_program_of_a_container_is_killed(
    probes: Probes, cgroup: Cgroup, tool: Path
) -> None:
    """Nothing is armed before it, so no hook is asked; it never runs an instruction."""
    probes.enforce(named("tool", K.PROCESS_EXEC))
    assert cgroup.run([str(tool)]).returncode == -signal.SIGKILL
    (event,) = probes.wait(cgroup, K.PROCESS_EXEC)
    assert (event.action, event.mechanism) == (Action.KILL, Mechanism.KILL)


def test_a_script_is_refused_by_its_own_name(
    probes: Probes, cgroup: Cgroup, evade: str, tmp_path: Path
) -> None:
    """Not only by its interpreter's name."""
    script = tmp_path / "tool"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    assert cgroup.run([evade, "exec", str(script), "-"]).returncode == 3
    probes.enforce(named("tool", K.PROCESS_EXEC))
    assert evading(cgroup, evade, "exec", script, "-") == REFUSED


def test_a_program_in_memory_is_refused(probes: Probes, cgroup: Cgroup, act: str) -> None:
    """By its type, whatever its name."""
    rule = Rule(K.PROCESS_EXEC, "deny", {DIM_FACTS: {Fact.MEMFD_EXE}}, {DIM_FACTS: Fact.MEMFD_EXE})
    probes.enforce(rule)
    assert run(cgroup, act, "memfd:/bin/true") == {"memfd": -errno.EPERM}


def test_a_file_is_not_mapped_for_execution(probes: Probes, cgroup: Cgroup, evade: str, tool: Path) -> None:
    """A program that is executed is mapped, too: it is
    killed then, because exec cannot return any more.
    """
    probes.enforce(named("tool", K.FILE_MAP))
    assert cgroup.run([evade, "exec", str(tool), "-"]).returncode < 0
    (event, *_) = probes.wait(cgroup, K.FILE_MAP)
    assert (event.action, event.mechanism, event.path[-5:]) == (Action.DENY, hook_mechanism(), b"/tool")
    assert cgroup.run(["/bin/cat", str(tool)], capture_output=True).returncode == 0


def test_a_host_process_is_never_refused(probes: Probes, tmp_path: Path) -> None:
    """The rules apply to containers only."""
    (tmp_path / "secret").write_text("x")
    probes.enforce(named("secret"))
    assert (tmp_path / "secret").read_text() == "x"
