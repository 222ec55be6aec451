# SPDX-License-Identifier: Apache-2.0
"""Agent resources removed or changed by root of the host are restored, counted and reported."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import CONTAINER, GENERATIONS
from ringfence.cli.client import request
from tests.kernel.tamper import LABEL, Target, target_of
from tests.kernel.test_self_defence_limits import userns
from tests.support import force
from tests.support.bpf_write import write_word
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.policies import USERNS, one_rule
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
CONNECTS = one_rule(
    "connects",
    "{id: connect, title: x, severity: high, attack: [T1046], event: network.connect, match: {port: 9},"
    " action: deny}",
)
CONNECT = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """An agent with two rules: one kills at a call's entry, one denies by cgroup-BPF."""
    force.need_root()
    directory = tmp_path_factory.mktemp("policies")
    (directory / "users.yaml").write_text(USERNS)
    (directory / "connects.yaml").write_text(CONNECTS)
    with target_of(directory, tmp_path_factory.mktemp("watched")) as made:
        yield made


@pytest.fixture
def cgroup(target: Target) -> Iterator[Cgroup]:
    """A container that is known and protected."""
    target.revive()
    with new_cgroup(LABEL) as made:
        assert userns(made)
        yield made


def count(target: Target, what: str) -> float:
    """Returns ringfence_tampered_total of that kind."""
    return target.agent.metrics()["ringfence_tampered_total", (("what", what),)]


def wait_reported(target: Target, what: str, before: float, times: int = 1) -> None:
    """Wait until it was counted and reported."""
    wait_for(lambda: count(target, what) >= before + times, f"{what} to be counted")
    target.agent.wait_record(
        lambda one: one["rule"]["id"] == "agent-tampered" and one["details"]["what"] == what
        if one["kind"] == "alert"
        else False,
        "the finding",
    )


def test_a_changed_generation_is_restored(target: Target, cgroup: Cgroup) -> None:
    """0 would mean that no rule decides."""
    before = count(target, "generation")
    with target.map("generation") as word:
        number = word.get_int(0)
        with pytest.raises(PermissionError):
            word.set(0, 0)
        write_word(word, 0, 0, 0)
        wait_reported(target, "generation", before)
        assert word.get_int(0) == number
    assert userns(cgroup)


def test_a_containers_profile_is_restored(target: Target, cgroup: Cgroup) -> None:
    """A word of its slot."""
    before = count(target, "profile")
    with target.map("containers") as containers, target.map("slots") as slots:
        slot = int.from_bytes(containers.get(cgroup.id) or b"", "little")
        memory = slots.mapped()
        offset = CONTAINER.offset_of("profile")
        at = slot * CONTAINER.size + offset
        spoil = 0x3F0000003F  # for both generations

        def spoiled() -> bool:
            """Change it again until it is found: a change before
            the container has its policies is overwritten.
            """
            if count(target, "profile") > before:
                return True
            write_word(slots, slot, offset, spoil)
            return False

        wait_for(spoiled, "the watchdog to find it")
        wait_reported(target, "profile", before)
        # A change made after the last check and before the count was read is found at the next
        # check.
        with target.map("generation") as word:
            live = word.get_int(0) % GENERATIONS * 4
        wait_for(lambda: memory[at + live : at + live + 4] != spoil.to_bytes(8, "little")[:4], "the profile")
        memory.close()
    assert userns(cgroup)


def test_a_detached_link_is_attached_again(target: Target, cgroup: Cgroup) -> None:
    """Only links to cgroups can be detached; the link
    is attached and pinned again, and denies again.
    """
    bpftool = force.need_program("bpftool")

    def denied() -> bool:
        return cgroup.run(["python3", "-c", CONNECT], capture_output=True).returncode != 0

    assert denied()
    before = count(target, "link")
    link = next(path for path in (target.pins / "links").iterdir() if path.name.endswith("connect4"))
    subprocess.run([bpftool, "link", "detach", "pinned", str(link)], check=True)
    wait_reported(target, "link", before)
    wait_for(denied, "it to be refused again")


def test_pins_are_made_again(target: Target, cgroup: Cgroup) -> None:
    """One, all of them, and all under another name: none of the old ones remains."""
    base = target.pins.parent
    for harm in (
        lambda: (target.pins / "maps" / "slots").unlink(),
        lambda: shutil.rmtree(target.pins),
        lambda: target.pins.rename(base / "elsewhere"),
    ):
        before, names = count(target, "pin"), {path.name for path in (target.pins / "maps").iterdir()}
        harm()
        wait_reported(target, "pin", before)
        wait_for(lambda names=names: _is_complete(base, names), "one complete set of pins")  # type: ignore[misc]
    assert userns(cgroup)


def _is_complete(base: Path, names: set[str]) -> bool:
    try:
        (found,) = base.iterdir()
        return {path.name for path in (found / "maps").iterdir()} == names
    except (ValueError, FileNotFoundError):  # there are two, or it is being renamed
        return False


def test_files_of_the_next_agent_are_written_again(target: Target) -> None:
    """Removed, changed, or linked under another name, by which it could be read elsewhere."""
    target.revive()
    ticket, book = target.state / "ticket", target.state / "rules.json"
    first = ticket.read_text()
    for harm in (
        ticket.unlink,
        lambda: book.write_text("{}"),
        lambda: os.link(ticket, target.state / "copy"),
    ):
        before = count(target, "file")
        harm()
        wait_reported(target, "file", before)
    (target.state / "copy").unlink()
    wait_for(lambda: ticket.exists() and ticket.read_text() != first, "other tickets")
    assert "userns-create" in book.read_text()


def test_a_changed_priority_is_restored(target: Target) -> None:
    """As far as the agent may: root may."""
    target.revive()
    before = count(target, "limit")
    was = os.getpriority(os.PRIO_PROCESS, target.pid)
    os.setpriority(os.PRIO_PROCESS, target.pid, was + 5)
    wait_reported(target, "limit", before)
    wait_for(lambda: os.getpriority(os.PRIO_PROCESS, target.pid) == was, "the priority")


def test_a_deleted_local_socket_comes_back(target: Target) -> None:
    """`ringfence status` and the others work again without a restart."""
    before, path = count(target, "socket"), target.agent.socket
    path.unlink()
    wait_reported(target, "socket", before)
    wait_for(path.is_socket, "the socket")
    assert request(path, "status")["version"]
