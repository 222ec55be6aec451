# SPDX-License-Identifier: Apache-2.0
"""What a container sends, past connect(2): one act per argument, the result of each on a line.

Runs with the standard library alone, in a network namespace that it makes for itself, where a
server listens at every address. `sent`: no call failed; `refused`: EPERM; `reached`: the server
answered; `silent`: it did not.
"""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

METADATA, OTHER = "169.254.169.254", "169.254.169.253"
METADATA6, OTHER6 = "fd00:ec2::254", "fd00:ec2::253"
PORT = 80
IPPROTO_MPTCP = 262
SYN, ACK = 0x02, 0x10
#: packets to ::ffff:a.b.c.d go to a router, which may translate them
MAPPED_BY_A_ROUTER = (
    "link add rf0 type veth peer name rf1",
    "link set rf0 up",
    "link set rf1 up",
    "addr add fd00:ec3::1/64 dev rf0 nodad",
    "-6 neigh add fd00:ec3::2 lladdr 02:00:00:00:00:01 dev rf0",
    "-6 route add ::ffff:0:0/96 via fd00:ec3::2 dev rf0",
)


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tcp(flags: int = SYN, port: int = PORT) -> bytes:
    """A TCP header; the checksum is of no concern here."""
    return struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, flags, 1024, 0, 0)


def ipv4(to: str, body: bytes, *, protocol: int = 6, fragment: int = 0, options: bytes = b"") -> bytes:
    """A packet; the kernel fills in the length and the checksum."""
    length = 5 + len(options) // 4
    target = ipaddress.ip_address(to).packed
    return (
        struct.pack("!BBHHHBBH4s4s", 0x40 | length, 0, 0, 7, fragment, 64, protocol, 0, bytes(4), target)
        + options
        + body
    )


def _send(family: int, protocol: int, packet: bytes, to: str, *, kind: int = socket.SOCK_RAW) -> str:
    with socket.socket(family, kind, protocol) as sock:
        sock.sendto(packet, (to, 0))
    return "sent"


def _header(packet: bytes, to: str) -> str:
    """A raw socket with a header of its own; routed to `to`, whatever the header says."""
    return _send(socket.AF_INET, socket.IPPROTO_RAW, packet, to)


def _in_icmp(to: str) -> str:
    """A socket for ICMP alone, until the option that the header is included."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        sock.sendto(ipv4(to, tcp()), (to, 0))
    return "sent"


def _connected_raw(to: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.connect((to, 0))
        sock.send(tcp())
    return "sent"


def _extended(to: str, *headers: tuple[int, bytes]) -> str:
    """An IPv6 packet with extension headers, by a raw socket that includes the header."""
    numbers = [number for number, _ in headers] + [6]
    body = b"".join(bytes([numbers[i + 1]]) + head for i, (_, head) in enumerate(headers)) + tcp()
    target = ipaddress.ip_address(to).packed
    packet = struct.pack("!IHBB16s16s", 6 << 28, len(body), numbers[0], 64, bytes(16), target) + body
    return _send(socket.AF_INET6, socket.IPPROTO_RAW, packet, to)


def _echo(to: str, *, kind: int = socket.SOCK_RAW) -> str:
    request = struct.pack("!BBHHH", 8, 0, 0xF7FE, 0, 1)
    return _send(socket.AF_INET, socket.IPPROTO_ICMP, request, to, kind=kind)


def _connect(to: str, port: int = PORT, protocol: int = 0, family: int = socket.AF_INET) -> str:
    with socket.socket(family, socket.SOCK_STREAM, protocol) as sock:
        sock.settimeout(0.7)
        try:
            sock.connect((to, port))
            return "reached" if sock.recv(2) == b"ok" else "silent"
        except TimeoutError:
            return "silent"


def _datagram(to: str, *, connected: bool) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.7)
        if connected:
            sock.connect((to, PORT))
            sock.send(b"x")
        else:
            sock.sendto(b"x", (to, PORT))
        try:
            return "reached" if sock.recv(2) == b"ok" else "silent"
        except TimeoutError:
            return "silent"


def _translated(act: Callable[[str], str]) -> str:
    """Another address is translated to the metadata service's, in this network namespace."""
    rules = (
        "table ip n { chain o { type nat hook output priority -100; "
        f"ip daddr 10.9.9.9 dnat to {METADATA}; }}; }}"
    )
    subprocess.run(["nft", "-f", "-"], input=rules.encode(), check=True)
    try:
        return act("10.9.9.9")
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "n"], check=True)


def _fast_open(to: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.sendto(b"x", socket.MSG_FASTOPEN, (to, PORT))
        return "reached" if sock.recv(2) == b"ok" else "silent"


def _as_client(source: str) -> str:
    """A client at a refused address is served: answers are no connections."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(0.7)
        sock.bind((source, PORT + 1))
        sock.connect((OTHER, PORT))
        return "reached" if sock.recv(2) == b"ok" else "silent"


def _leave(*procs: str) -> str:
    """Leaves its cgroups, as a container can that has the host's cgroups mounted."""
    for path in procs:
        with open(path, "w") as file:
            file.write("0\n")
    return "left"


def _inherited(number: str, to: str) -> str:
    """A raw socket that was made outside of the container."""
    with socket.socket(fileno=os.dup(int(number))) as sock:
        sock.sendto(ipv4(to, tcp()), (to, 0))
    return "sent"


ACTS: dict[str, Callable[..., str]] = {
    "raw": lambda to: _send(socket.AF_INET, socket.IPPROTO_TCP, tcp(), to),
    "raw-ack": lambda to: _send(socket.AF_INET, socket.IPPROTO_TCP, tcp(ACK), to),
    "raw-port": lambda to: _send(socket.AF_INET, socket.IPPROTO_TCP, tcp(port=9999), to),
    "raw6": lambda to: _send(socket.AF_INET6, socket.IPPROTO_TCP, tcp(), to),
    "raw-mapped": lambda to: _send(socket.AF_INET6, socket.IPPROTO_TCP, tcp(), f"::ffff:{to}"),
    "raw-connected": _connected_raw,
    "header": lambda to: _header(ipv4(to, tcp()), to),
    "header-routed-elsewhere": lambda to: _header(ipv4(to, tcp()), OTHER),
    "header-in-icmp": _in_icmp,
    "short-fragment": lambda to: _header(ipv4(to, tcp()[:3], fragment=0x2000), to),
    "later-fragment": lambda to: _header(ipv4(to, tcp(), fragment=3), to),
    "source-route": lambda to: _header(
        ipv4(OTHER, tcp(), options=b"\x01\x83\x07\x04" + ipaddress.ip_address(to).packed), OTHER
    ),
    "extension": lambda to: _extended(to, (0, bytes(7)), (60, bytes(7))),
    "fragment6": lambda to: _extended(to, (44, bytes(7))),
    "later-fragment6": lambda to: _extended(to, (44, b"\0\0\x10" + bytes(4))),
    "many-extensions": lambda to: _extended(to, *((60, bytes(7)) for _ in range(12))),
    "routing-header": lambda to: _extended(
        OTHER6, (43, b"\x02\x04\x01" + bytes(4) + ipaddress.ip_address(to).packed)
    ),
    "echo": _echo,
    "echo-datagram": lambda to: _echo(to, kind=socket.SOCK_DGRAM),
    "connect": _connect,
    "connect6": lambda to: _connect(to, family=socket.AF_INET6),
    "mptcp": lambda to: _connect(to, protocol=IPPROTO_MPTCP),
    "fast-open": _fast_open,
    "translated": lambda _: _translated(_connect),
    "translated-datagram": lambda _: _translated(lambda to: _datagram(to, connected=True)),
    "translated-sendto": lambda _: _translated(lambda to: _datagram(to, connected=False)),
    "datagram": lambda to: _datagram(to, connected=False),
    "datagram-connected": lambda to: _datagram(to, connected=True),
    "client": _as_client,
    "inherited": _inherited,
    "leave": _leave,
}


def _answer(kind: int, family: int) -> None:
    server = socket.socket(family, kind)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind(("" if family == socket.AF_INET else "::", PORT))
    if kind == socket.SOCK_STREAM:
        server.listen(16)
    while select.select([server], [], []):
        if kind == socket.SOCK_STREAM:
            made, _ = server.accept()
            made.send(b"ok")
            made.close()
        else:
            _, peer = server.recvfrom(16)
            server.sendto(b"ok", peer)


def _wait_for_local_routes(*addresses: str) -> None:
    """A kernel thread makes them. Until then the kernel discards packets without an error."""
    end = time.monotonic() + 60
    for address in addresses:
        argv = ["ip", "-6", "route", "get", address]
        while not subprocess.run(argv, capture_output=True, text=True).stdout.startswith("local "):
            if time.monotonic() > end:
                raise TimeoutError(f"{address} is no address of this namespace")
            time.sleep(0.01)


def prepare() -> None:
    """Addresses and servers of a network namespace of its own."""
    commands = [["link", "set", "lo", "up"], ["route", "add", "10.9.9.9/32", "dev", "lo"]]
    commands += [["addr", "add", f"{address}/32", "dev", "lo"] for address in (METADATA, OTHER)]
    commands += [["addr", "add", f"{address}/128", "dev", "lo", "nodad"] for address in (METADATA6, OTHER6)]
    commands += [command.split() for command in MAPPED_BY_A_ROUTER]
    for command in commands:
        subprocess.run(["ip", *command], check=True)
    _wait_for_local_routes(METADATA6, OTHER6)
    with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
        file.write("0 1000\n")
    for kind, family in (
        (socket.SOCK_STREAM, socket.AF_INET),
        (socket.SOCK_STREAM, socket.AF_INET6),
        (socket.SOCK_DGRAM, socket.AF_INET),
    ):
        threading.Thread(target=_answer, args=(kind, family), daemon=True).start()


def main() -> None:
    """Does what the arguments name, in order."""
    prepare()
    for argument in sys.argv[1:]:
        name, *operands = argument.split(",")
        try:
            result = ACTS[name](*operands)
        except PermissionError:
            result = "refused"
        except OSError as error:
            result = str(error)
        say(f"{argument} {result}")


if __name__ == "__main__":
    main()
