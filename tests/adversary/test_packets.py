# SPDX-License-Identifier: Apache-2.0
"""Rules on addresses hold for packets, whichever socket and header they leave by.

Each attack got through when connect(2) and sendmsg(2) alone were judged. The acts are those of
packet_acts.py: every address is one of the container's own network namespace.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.abi import Action, Counter, EventKind, Mechanism
from tests.adversary.packet_acts import METADATA, METADATA6, OTHER, OTHER6, PORT
from tests.kernel.probes import LABEL, Probes, running
from tests.kernel.rules import Rule, name_hash
from tests.support import force
from tests.support.cgroups import Cgroup, hierarchies, new_cgroup

pytestmark = pytest.mark.root
K = EventKind
ACTS = Path(__file__).with_name("packet_acts.py")
PYTHON = "/usr/bin/python3"
CLONE_NEWNET = 0x40000000
EXE = 5  # the dim of a task's program

#: the container has sent a packet to the metadata service, if the kernel let it
RAW = (
    "raw",
    "raw-ack",
    "raw-connected",
    "header",
    "header-routed-elsewhere",
    "header-in-icmp",
    "short-fragment",
    "later-fragment",
    "source-route",
    "raw-mapped",
)
RAW6 = ("raw6", "extension", "fragment6", "later-fragment6", "many-extensions", "routing-header")
BY_CALL = ("connect", "mptcp", "fast-open", "datagram-connected")


def _to(address: str, family: int = 4, action: str = "deny", event: EventKind = K.NET_CONNECT) -> Rule:
    packed = ipaddress.ip_address(address).packed
    return Rule(event, action, {0: {PORT}}, address=(family, packed, len(packed) * 8))


REFUSED = (_to(METADATA), _to(METADATA6, 6))


@pytest.fixture(scope="module")
def probes() -> Iterator[Probes]:
    """At all cgroup hooks, those of packets among them."""
    for program in ("unshare", "nft", "ip"):
        force.need_program(program)
    with running() as made:
        yield made


@pytest.fixture
def cgroup(probes: Probes) -> Iterator[Cgroup]:
    """A container under the rules of REFUSED."""
    probes.enforce(*REFUSED)
    with new_cgroup(LABEL) as made:
        yield made
    probes.calm()


def acts(cgroup: Cgroup, *wanted: str, **options: Any) -> dict[str, str]:
    """Returns the result of each act, in a network namespace of the container's own."""
    argv = ["unshare", "-n", "--", PYTHON, str(ACTS), *wanted]
    done = cgroup.run(argv, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_no_packet_of_a_raw_socket_reaches_a_refused_address(probes: Probes, cgroup: Cgroup) -> None:
    """Of either family, fragmented, with extension headers, or routed by way of another host."""
    wanted = [f"{name},{METADATA}" for name in RAW] + [f"{name},{METADATA6}" for name in RAW6]
    assert acts(cgroup, *wanted) == dict.fromkeys(wanted, "refused")
    reported = probes.wait(cgroup, K.NET_CONNECT, len(wanted))
    assert len(reported) == len(wanted)
    assert probes.counters(cgroup)[Counter.DENY] == len(wanted)
    assert {(event.action, event.mechanism) for event in reported} == {(Action.DENY, Mechanism.CGROUP)}
    assert {event.comm for event in reported} == {b"python3"}
    assert {event.rule for event in reported} == {0, 1}


def test_raw_sockets_reach_what_no_rule_refuses(probes: Probes, cgroup: Cgroup) -> None:
    """Other addresses and ports; ping reaches a refused address, as it has no port."""
    wanted = [f"{name},{OTHER}" for name in RAW if name != "source-route"]
    wanted += [f"{name},{OTHER6}" for name in RAW6 if name != "routing-header"]
    wanted += [f"{name},{METADATA}" for name in ("raw-port", "echo", "echo-datagram")]
    assert acts(cgroup, *wanted) == dict.fromkeys(wanted, "sent")
    assert probes.events(cgroup, K.NET_CONNECT) == []
    assert probes.counters(cgroup)[Counter.DENY] == 0


def test_an_address_that_is_translated_later_is_refused(probes: Probes, cgroup: Cgroup) -> None:
    """By netfilter in the container's own network namespace, after the call was judged."""
    got = acts(cgroup, "translated,-", "translated-datagram,-")
    assert got == {"translated,-": "silent", "translated-datagram,-": "refused"}
    reported = probes.wait(cgroup, K.NET_CONNECT, 2)
    assert {event.address[:4] for event in reported} == {ipaddress.ip_address(METADATA).packed}


def test_translation_to_another_address_passes(probes: Probes, cgroup: Cgroup) -> None:
    """The same translation, under rules for another address."""
    probes.enforce(_to(OTHER))
    got = acts(cgroup, "translated,-", "translated-datagram,-", "translated-sendto,-")
    assert set(got.values()) == {"reached"}


def test_calls_are_judged_as_before(probes: Probes, cgroup: Cgroup) -> None:
    """Each is reported once, by the program at the call: its packet never is."""
    wanted = [f"{name},{METADATA}" for name in BY_CALL] + [f"connect6,{METADATA6}"]
    got = acts(cgroup, *wanted)
    assert "reached" not in got.values()
    assert got[f"connect,{METADATA}"] == got[f"connect6,{METADATA6}"] == "refused"
    assert len(probes.wait(cgroup, K.NET_CONNECT, len(wanted))) >= len(wanted)


def test_what_ordinary_programs_send_passes(probes: Probes, cgroup: Cgroup) -> None:
    """Connections, datagrams, and answers to a client at a refused address."""
    wanted = [f"{name},{OTHER}" for name in (*BY_CALL, "datagram")]
    wanted += [f"connect6,{OTHER6}", f"client,{METADATA}", f"datagram,{METADATA}"]
    assert acts(cgroup, *wanted) == dict.fromkeys(wanted, "reached")
    assert probes.counters(cgroup)[Counter.DENY] == 0


def test_rules_on_datagrams_hold_for_packets(probes: Probes, cgroup: Cgroup) -> None:
    """Translated, and by a raw socket; TCP is not concerned."""
    probes.enforce(_to(METADATA, event=K.NET_SENDMSG))
    got = acts(cgroup, "translated-sendto,-", f"raw,{METADATA}", "translated,-")
    assert got == {"translated-sendto,-": "refused", f"raw,{METADATA}": "refused", "translated,-": "reached"}
    reported = probes.wait(cgroup, K.NET_SENDMSG, 2)
    assert {(e.type, e.protocol) for e in reported} == {(socket.SOCK_DGRAM, 17), (socket.SOCK_RAW, 6)}


def test_an_alert_is_of_the_call_alone(probes: Probes, cgroup: Cgroup) -> None:
    """A rule that only reports neither stops nor reports packets."""
    probes.enforce(_to(METADATA, action="alert"))
    got = acts(cgroup, f"raw,{METADATA}", f"connect,{METADATA}")
    assert got == {f"raw,{METADATA}": "sent", f"connect,{METADATA}": "reached"}
    (event,) = probes.wait(cgroup, K.NET_CONNECT)
    assert event.type == socket.SOCK_STREAM


def test_a_kill_drops_the_packet(probes: Probes, cgroup: Cgroup) -> None:
    """Its sender may be a timer, so nothing is killed."""
    probes.enforce(_to(METADATA, action="kill"))
    assert acts(cgroup, f"raw,{METADATA}") == {f"raw,{METADATA}": "refused"}
    (event,) = probes.wait(cgroup, K.NET_CONNECT)
    assert event.action == Action.DENY


def test_exceptions_hold_for_packets(probes: Probes, cgroup: Cgroup) -> None:
    """Of an address, and of the program; not for a packet of which the port is not known."""
    program = name_hash(str(Path(PYTHON).resolve()).encode())
    exempt = Rule(K.NET_CONNECT, operands={EXE: {program, program ^ 1 << 63}}, clears=1)
    probes.enforce(exempt, _to(METADATA))
    got = acts(cgroup, f"raw,{METADATA}", f"later-fragment,{METADATA}", "translated,-")
    assert got == {
        f"raw,{METADATA}": "sent",
        f"later-fragment,{METADATA}": "refused",
        "translated,-": "reached",
    }


def _socket_of_another_network() -> socket.socket:
    """A raw socket in a network namespace that is not the container's, and has a route to everywhere."""
    made: list[socket.socket] = []

    def make() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
        for command in ("link set lo up", "route add default dev lo"):
            subprocess.run(["ip", *command.split()], check=True)
        made.append(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))

    thread = threading.Thread(target=make)  # which ends, and with it what it has unshared
    thread.start()
    thread.join()
    return made[0]


def test_a_socket_from_outside_is_under_the_senders_rules(probes: Probes, cgroup: Cgroup) -> None:
    """It was made by a process of the host, and passed in."""
    with _socket_of_another_network() as made:
        wanted = [f"inherited,{made.fileno()},{METADATA}", f"inherited,{made.fileno()},{OTHER}"]
        got = acts(cgroup, *wanted, pass_fds=(made.fileno(),))
        assert got[wanted[0]] == "refused"
        made.sendto(b"\x45" + bytes(19), ("127.0.0.1", 0))  # the host's own use of it passes


def test_a_task_that_left_its_cgroup_is_under_its_rules(probes: Probes, cgroup: Cgroup) -> None:
    """Its sockets are of another cgroup then: they are known by the task that makes them."""
    roots = ",".join(str(mount / "cgroup.procs") for mount in sorted(set(hierarchies().values())))
    got = acts(cgroup, f"leave,{roots}", f"raw,{METADATA}", "translated,-", f"raw,{OTHER}")
    assert list(got.values()) == ["left", "refused", "silent", "sent"]


def test_the_host_and_other_containers_are_not_concerned(probes: Probes) -> None:
    """Without an enrolled task nothing is dropped, under the same rules."""
    probes.enforce(*REFUSED)
    with new_cgroup("packets-host") as unknown:
        assert acts(unknown, f"raw,{METADATA}", "translated,-") == {
            f"raw,{METADATA}": "sent",
            "translated,-": "reached",
        }
    probes.calm()
