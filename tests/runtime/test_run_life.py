# SPDX-License-Identifier: Apache-2.0
"""Commands after `ringfence run --detach`: ps, exec, logs, stop, rm; and the state after crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.runtime.sandboxes import Sandboxes
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root


def test_a_detached_sandbox_is_listed_and_remembered(sandboxes: Sandboxes) -> None:
    """While it runs, and after its end until `rm`; its output, too."""
    name = sandboxes.detached(
        "--label", "tier=web", script="echo out; echo err >&2; echo more >> /dev/stdout; sleep 3600"
    )
    row = sandboxes.listed()[name]
    assert (row["status"], row["network"], row["labels"]) == ("running", "none", {"tier": "web"})
    wait_for(lambda: "more" in sandboxes("logs", name).stdout, "its output")
    assert sandboxes("logs", name).stdout == "out\nerr\nmore\n"
    assert "is running" in sandboxes("rm", name).stderr
    assert sandboxes("stop", "-t", "0", name).stdout == f"{name}\n"
    assert name not in sandboxes.listed()
    assert sandboxes.listed("--all")[name]["status"] == "stopped"
    assert sandboxes("logs", name).stdout == "out\nerr\nmore\n"
    assert (
        f"a sandbox {name} already exists"
        in sandboxes("run", *sandboxes.named(name=name), str(sandboxes.rootfs), "true").stderr
    )
    assert sandboxes("rm", name).stdout == f"{name}\n"
    assert sandboxes("logs", name).returncode == 1
    assert sandboxes.left() == []


def test_logs_follow_until_the_end(sandboxes: Sandboxes) -> None:
    """They end then."""
    name = sandboxes.detached(script="for n in 1 2 3; do echo $n; sleep 0.3; done")
    assert sandboxes("logs", "--follow", name).stdout == "1\n2\n3\n"


def test_logs_begin_at_the_last_lines(sandboxes: Sandboxes, tmp_path: Path) -> None:
    """Also of output without a last end of line, and of more than one block."""
    name = sandboxes.detached(script="seq 30000; printf last; exec sleep 3600")
    wait_for(lambda: sandboxes("logs", name).stdout.endswith("last"), "its output")
    assert sandboxes("logs", "--tail", "3", name).stdout == "29999\n30000\nlast"
    assert sandboxes("logs", "-n", "0", name).stdout == ""
    assert sandboxes("logs", "-n", "20000", name).stdout.startswith("10002\n")
    for count in ("30001", "40000", "all"):
        assert sandboxes("logs", "--tail", count, name).stdout.startswith("1\n2\n"), count
    assert sandboxes("logs", "--tail", "-1", name).returncode == 2


@pytest.mark.parametrize("options", [(), ("--quiet",), ("--detach",)])
def test_a_start_without_an_agent_says_so(sandboxes: Sandboxes, options: tuple[str, ...]) -> None:
    """One line, unless it is to be quiet."""
    got = sandboxes.run(*options)
    assert got.returncode == 0
    assert got.stderr == ("" if "--quiet" in options else
                          "ringfence: warning: no agent runs here: the sandbox has only its own restrictions,"
                          " and no alerts\n")  # fmt: skip


def test_a_sandbox_is_managed_without_the_image_root_of_its_start(sandboxes: Sandboxes) -> None:
    """Its record names it: its output is found, and `rm` frees its layer and its name."""
    name = sandboxes.detached(script="echo out; exec sleep 3600")
    wait_for(lambda: sandboxes("logs", name).stdout == "out\n", "its output")
    own, sandboxes.images = sandboxes.images, sandboxes.directory / "others"
    assert sandboxes("logs", name).stdout == "out\n"
    assert sandboxes("rm", "--force", name).stdout == f"{name}\n"
    assert not (own / "containers" / name).exists()
    sandboxes.images = own
    assert sandboxes.detached(name=name) == name


def test_exec_runs_in_the_same_sandbox(sandboxes: Sandboxes) -> None:
    """Its namespaces, restrictions, user; with its own status, input, variables and directory."""
    name = sandboxes.detached("--hostname", "box", "--cap-drop", "ALL")
    got = sandboxes(
        "exec",
        name,
        "sh",
        "-c",
        "hostname; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; exit 4",
    )
    assert (got.returncode, got.stdout) == (
        4,
        "box\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
    ), got.stderr
    got = sandboxes(
        "exec",
        "-i",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "7:8",
        name,
        "sh",
        "-c",
        "cat; pwd; echo $A; id -u; id -g",
        input="in\n",
    )
    assert got.stdout == "in\n/tmp\nb\n7\n8\n", got.stderr
    with (sandboxes.directory / "out").open("w") as out:
        command = sandboxes.argv("exec", name, "sh", "-c", "ls -l /proc/self/fd; echo again > /dev/stdout")
        subprocess.run(command, stdout=out, stdin=subprocess.DEVNULL, check=True, timeout=patience(60))
    lines = (sandboxes.directory / "out").read_text().splitlines()
    targets = [line.split(" -> ")[1] for line in lines if " -> " in line]
    assert len(targets) >= 3
    assert all(target.startswith(("pipe:", "/proc/")) for target in targets), lines
    assert lines[-1] == "again"
    assert sandboxes("exec", name, "nothing").returncode == 127
    got = sandboxes("exec", "-it", name, "true")
    assert (got.returncode, "standard input is not a terminal" in got.stderr) == (125, True)
    assert sandboxes("exec", sandboxes.name(), "true").returncode == 125


def test_stop_sends_a_signal_first(sandboxes: Sandboxes) -> None:
    """By the signal of `run`; a sandbox that ignores it is killed."""
    polite = sandboxes.detached(
        "--stop-signal", "USR1", script="trap 'echo bye; exit 0' USR1; echo up; while :; do sleep 0.05; done"
    )
    deaf = sandboxes.detached(
        "--stop-timeout", "1", script="trap '' TERM; echo up; while :; do sleep 0.05; done"
    )
    for name in (polite, deaf):
        wait_for(lambda name=name: sandboxes("logs", name).stdout == "up\n", "it to be up")  # type: ignore[misc]
    assert sandboxes("stop", polite, deaf).stdout == f"{polite}\n{deaf}\n"
    assert sandboxes("logs", polite).stdout == "up\nbye\n"
    assert not sandboxes.listed()


def test_rm_option_leaves_no_trace(sandboxes: Sandboxes) -> None:
    """`--rm` with --detach: the next command removes it."""
    name = sandboxes.detached("--rm", script="exit 0")
    wait_for(lambda: name not in sandboxes.listed("--all"), "it to be removed")
    assert sandboxes.left() == []


def test_keep_keeps_a_foreground_sandbox(sandboxes: Sandboxes) -> None:
    """Until `rm`."""
    name = sandboxes.name()
    assert (
        sandboxes("run", *sandboxes.named("--keep", name=name), str(sandboxes.rootfs), "true").returncode == 0
    )
    assert sandboxes.listed("--all")[name]["status"] == "stopped"
    assert sandboxes("rm", name).returncode == 0


def test_a_killed_command_leaves_what_rm_removes(sandboxes: Sandboxes) -> None:
    """kill -9 of `ringfence run` in the foreground: its
    workload keeps running, is listed, and can be removed.
    """
    name = sandboxes.name()
    command = sandboxes.argv(
        "run", *sandboxes.named(name=name), str(sandboxes.rootfs), "sh", "-c", "echo up; sleep 3600"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
    assert sandboxes.listed()[name]["status"] == "running"
    assert sandboxes("rm", "--force", name).returncode == 0
    assert sandboxes.left() == []


STEPS = (
    "ringfence.sandbox.place:Place.save",
    "ringfence_runtime.images:prepare_rootfs",
    "ringfence_runtime.images:open_rootfs",
    "ringfence.sandbox.oci:make_config",
    "ringfence_runtime.launch.parent:create",
    "ringfence_runtime.launch.parent:Launched.start",
    "ringfence.sandbox.remove:_delete",
    "ringfence_runtime.images:release_rootfs",
)


def killed_at(sandboxes: Sandboxes, step: str, name: str, *options: str, after: bool) -> int:
    """Run a sandbox whose command kills itself before
    or after one of its steps. Returns its status.
    """
    module, _, path = step.partition(":")
    words = [
        "run",
        *sandboxes.argv("run")[-4:],
        *sandboxes.named(*options, name=name),
        str(sandboxes.rootfs),
        "sleep",
        "0.2",
    ]
    script = f"""
import importlib, os, sys
import ringfence_runtime.seal
ringfence_runtime.seal.ensure_sealed = lambda: None
owner = importlib.import_module({module!r})
*outer, last = {path!r}.split('.')
for word in outer:
    owner = getattr(owner, word)
real = getattr(owner, last)
def step(*args, **kwargs):
    if {after}:
        real(*args, **kwargs)
    os.kill({"os.getppid()" if "links" in step else "os.getpid()"}, 9)
    os.kill(os.getpid(), 9)
setattr(owner, last, step)
from ringfence.cli.main import main
sys.exit(main({words!r}))
"""
    before = sandboxes.host.enter() if sandboxes.host else []
    return subprocess.run(
        [*before, sys.executable, "-c", script],
        check=False,
        env=sandboxes.environment,
        timeout=patience(60),
        capture_output=True,
    ).returncode


@pytest.mark.long
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_start_killed_at_any_step_is_swept(sandboxes: Sandboxes, step: str, after: bool) -> None:
    """The next command removes it, whether the workload
    had started or not; the name is free again.
    """
    name = sandboxes.name()
    assert killed_at(sandboxes, step, name, after=after) == -signal.SIGKILL
    wait_for(lambda: not sandboxes.listed("--all"), "it to be swept")
    assert sandboxes.left() == []
    assert sandboxes("run", *sandboxes.named(name=name), str(sandboxes.rootfs), "true").returncode == 0


def test_one_name_is_assigned_once(sandboxes: Sandboxes) -> None:
    """Of six simultaneous starts with one name, exactly
    one gets it, and the others report an error.
    """
    name = sandboxes.name()
    done: list[subprocess.CompletedProcess[str]] = []
    words = [*sandboxes.named("--detach", name=name), str(sandboxes.rootfs), "sleep", "3600"]
    threads = [threading.Thread(target=lambda: done.append(sandboxes("run", *words))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got.returncode for got in done) == [0, 125, 125, 125, 125, 125], [
        got.stderr for got in done
    ]
    assert all(f"a sandbox {name} already exists" in got.stderr for got in done if got.returncode)
    assert sandboxes.listed()[name]["status"] == "running"


def test_a_damaged_record_does_not_stop_the_others(sandboxes: Sandboxes) -> None:
    """A record that a full disk truncated: `ps` works, `rm --force` removes it."""
    name = sandboxes.detached()
    other = sandboxes.detached()
    Path(sandboxes.state / "sandboxes" / name / "sandbox.json").write_text('{"name": "')
    assert other in sandboxes.listed()
    assert sandboxes("rm", "--force", name).returncode == 0
    assert not os.path.exists(sandboxes.state / "sandboxes" / name)
