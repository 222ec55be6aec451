# SPDX-License-Identifier: Apache-2.0
"""No process of a container changes what decides: not by itself, not with others that die for it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import WRITE_GENERATION
from ringfence.bpf import _libbpf
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.writer import OPEN, Writer
from tests.adversary.chains import CHAINS, HOWS, Chain, through
from tests.kernel.tamper import Target, target_of
from tests.kernel.test_self_defence import POLICY
from tests.support import force
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.policies import USERNS
from tests.support.scenes import program_fixture
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root
ROUNDS = int(os.environ.get("RINGFENCE_TAMPER_ROUNDS", "5"))
UNSHARES = "import os; os.unshare(os.CLONE_NEWUSER)"
#: a process that shares its descriptors with a child, which dies for a call
SHARES = """
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None)
CLONE_FILES, CLONE_NEWUSER = 0x400, 0x10000000
child = libc.syscall(56, CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0)
if not child:
    libc.unshare(CLONE_NEWUSER)
    os._exit(0)
while True:
    pass
"""
#: the same with a child that shares nothing, and one that dies after its exec
BENIGN = f"""
import os, subprocess, sys
child = os.fork()
if not child:
    os.unshare(os.CLONE_NEWUSER)
    os._exit(0)
os.waitpid(child, 0)
subprocess.run([sys.executable, "-c", {UNSHARES!r}])
print("alive")
"""

#: loads a program, while another thread, or another process, has the same descriptors
LOADS = """
import ctypes, os, signal, struct, sys, threading, time
libc = ctypes.CDLL(None)
CLONE_FILES, PROG_LOAD, SOCKET_FILTER = 0x400, 5, 1
if sys.argv[1] in ("process", "earlier"):
    child = libc.syscall(56, CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0)
    while not child and sys.argv[1] == "process":
        pass
    if not child:
        os._exit(0)
if sys.argv[1] == "earlier":
    os.waitpid(child, 0)
if sys.argv[1] == "threads":
    for _ in range(150):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xb7, 0, 0, 0, 0x95, 0, 0, 0))
words = SOCKET_FILTER, 2, ctypes.addressof(code), ctypes.addressof(ctypes.create_string_buffer(b"GPL"))
attr = ctypes.create_string_buffer(struct.pack("=IIQQ", *words), 128)
print("loaded" if libc.syscall(321, PROG_LOAD, attr, 128) >= 0 else "failed", flush=True)
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """An agent with the self-defence, and one rule that kills where it cannot deny."""
    force.need_root()
    directory = tmp_path_factory.mktemp("policies")
    (directory / "policy.yaml").write_text(POLICY)
    (directory / "users.yaml").write_text(USERNS)
    with target_of(directory, tmp_path_factory.mktemp("tamper")) as made:
        yield made


#: the program of the chains
chain = program_fixture(Path(__file__).parent / "chain.c", "-static")


@pytest.fixture
def cgroup(target: Target) -> Iterator[Cgroup]:
    """A container that the agent knows."""
    target.revive()
    with new_cgroup("victim") as made:
        assert made.run(["/bin/true"]).returncode == 0
        yield made


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("one", [one for one in CHAINS if one.what != "detach"], ids=lambda one: one.what)
def test_no_chain_of_killed_calls_changes_a_map(target: Target, chain: str, one: Chain, how: str) -> None:
    """One process opens the map, another one writes it: neither has an effect."""
    target.revive()
    assert through(target, chain, one, how, ROUNDS) == 0


def test_no_system_call_writes_a_map(target: Target) -> None:
    """All are frozen but those that decide nothing. Root of the host is refused, too."""
    target.revive()
    open_ones = set()
    for pin in (target.pins / "maps").iterdir():
        with target.map(pin.name) as found:
            if "frozen:\t1" not in Path(f"/proc/self/fdinfo/{found.fd}").read_text():
                open_ones.add(pin.name)
    assert open_ones == OPEN
    with target.map("generation") as found:
        with pytest.raises(PermissionError):
            found.set(0, 0)


def test_the_program_that_writes_serves_the_agent_alone(target: Target) -> None:
    """Another process that runs it, root on the host, changes nothing."""
    target.revive()
    fd = _libbpf.get_pinned(str(target.pins / "writer"))
    with target.map("generation") as generation:
        before = generation.get_int(0)
        with pytest.raises(PermissionError):
            Writer(fd).set(WRITE_GENERATION, bytes(4), bytes(8), 1)
        assert generation.get_int(0) == before
    os.close(fd)


def test_a_kill_with_shared_descriptors_condemns_the_container(target: Target, cgroup: Cgroup) -> None:
    """All of its processes die, and new ones; the alert names the call; the metric has it."""
    if NodeCapabilities.detect().lsm_hooks:
        force.elsewhere("a call is denied here, and nothing is left of it")
    bystander = cgroup.popen(["/bin/sleep", "1000"])
    done = cgroup.popen(["/usr/bin/python3", "-c", SHARES])
    assert done.wait(patience(30)) == -9
    assert bystander.wait(patience(30)) == -9
    alert = target.agent.wait_record(
        lambda record: (
            record["kind"] == "alert"
            and record["rule"]["id"] == "container-condemned"
            and record["container"].get("id") == cgroup.name
        ),
        "the alert",
    )
    assert alert["details"]["killed_for"] == "unshare"
    assert cgroup.run(["/bin/true"]).returncode == -9
    assert target.agent.metrics()["ringfence_condemned_containers_total", ()] >= 1


def test_a_load_with_descriptors_of_another_process_condemns(target: Target, cgroup: Cgroup) -> None:
    """The process that opens a map may be that other one, and its call may be in flight."""
    if NodeCapabilities.detect().lsm_hooks:
        force.elsewhere("a map is not opened here")
    done = cgroup.run(["/usr/bin/python3", "-c", LOADS, "process"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-9, "")
    alert = target.agent.wait_record(
        lambda record: (
            record["kind"] == "alert"
            and record["details"].get("what") == "load"
            and record["container"].get("id") == cgroup.name
        ),
        "the alert",
    )
    assert (alert["rule"]["id"], alert["details"]["call"]) == ("agent-tamper", "bpf")
    assert cgroup.run(["/bin/true"]).returncode == -9


@pytest.mark.parametrize("how", ["threads", "earlier"])
def test_a_load_by_one_process_is_no_attempt(target: Target, cgroup: Cgroup, how: str) -> None:
    """Programs that load programs have many threads. Another process had the descriptors, and is gone."""
    done = cgroup.run(["/usr/bin/python3", "-c", LOADS, how], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "loaded\n")
    assert cgroup.run(["/bin/true"]).returncode == 0


def test_an_ordinary_kill_condemns_nothing(target: Target, cgroup: Cgroup) -> None:
    """Neither of a child by fork, nor of a program that a vfork started."""
    before = target.agent.metrics()["ringfence_condemned_containers_total", ()]
    done = cgroup.run(["/usr/bin/python3", "-c", BENIGN], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n")
    time.sleep(1.5)  # longer than the agent takes to look
    assert target.agent.metrics()["ringfence_condemned_containers_total", ()] == before
    assert cgroup.run(["/bin/true"]).returncode == 0


def test_a_condemned_container_cannot_undo_it(target: Target, cgroup: Cgroup) -> None:
    """It stays condemned until it is gone; the next container in its slot is not."""
    if NodeCapabilities.detect().lsm_hooks:
        force.elsewhere("a call is denied here, and nothing is left of it")
    assert cgroup.popen(["/usr/bin/python3", "-c", SHARES]).wait(patience(30)) == -9
    for _ in range(3):
        assert cgroup.run(["/bin/true"]).returncode == -9
    cgroup.remove()
    wait_for(
        lambda: target.agent.metrics().get(("ringfence_container_condemned", (("container", cgroup.name),)))
        is None,
        "its end",
    )
    for _ in range(3):
        with new_cgroup("victim") as other:
            assert other.run(["/bin/true"]).returncode == 0


def test_a_detached_link_of_a_cgroup_is_attached_again(target: Target, chain: str) -> None:
    """One call takes effect where calls are killed: the record makes the agent repair it at once."""
    target.revive()
    [one] = [one for one in CHAINS if one.what == "detach"]
    through(target, chain, one, "turns", 1)  # returns when it is attached


def test_errors_of_the_program_are_those_of_the_call(target: Target) -> None:
    """EPERM, as from a frozen map."""
    fd = _libbpf.get_pinned(str(target.pins / "writer"))
    try:
        with pytest.raises(PermissionError) as caught:
            Writer(fd).pop(WRITE_GENERATION)
        assert caught.value.errno == errno.EPERM
    finally:
        os.close(fd)
