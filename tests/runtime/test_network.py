# SPDX-License-Identifier: Apache-2.0
"""Networks of sandboxes, with real packets in private network namespaces."""

from __future__ import annotations

import json
import subprocess
import threading

import pytest

from tests.runtime.sandboxes import HOST_ADDRESS, OUTSIDE_ADDRESS, UPLINK, Host, Sandboxes, connect, listening
from tests.support import force
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root

# A router advertisement (RFC 4861, 4.2), as soon as the link may be used; then an answer of the
# host to a packet sent after it.
ADVERTISE = """
import errno, socket, struct, sys, time
until = time.monotonic() + 10
with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    while True:
        try:
            sock.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
            break
        except OSError:  # it has no address yet
            assert time.monotonic() < until
            time.sleep(0.05)
with socket.socket() as sock:
    assert sock.connect_ex((sys.argv[1], 9)) == errno.ECONNREFUSED
"""
SERVER = "while :; do echo served by $HOSTNAME | nc -l -p 80; done"


def server(sandboxes: Sandboxes, *options: str) -> str:
    """A sandbox that answers on port 80 with its name."""
    name = sandboxes.detached("--network", "bridge", *options, script=SERVER)
    address = sandboxes.listed()[name]["addresses"][0]
    assert sandboxes.host is not None
    host = sandboxes.host
    wait_for(lambda: connect(host, address, 80).startswith("served"), "the server", every=0.1)
    return name


def asked(sandboxes: Sandboxes, address: str, port: int, *options: str) -> str:
    """Returns a server's answer to another sandbox. It
    answers one at a time, so there are three tries.
    """
    again = f"nc -w 3 {address} {port} </dev/null"
    script = f"{again} || {{ sleep 0.3; {again}; }} || {{ sleep 0.3; {again}; }} || echo refused"
    return sandboxes.shell(script, *options).strip()


def test_none_and_host(sandboxes: Sandboxes, host: Host) -> None:
    """Only loopback, which works; or all of the host's links."""
    assert (
        sandboxes.shell("ls /sys/class/net; ping -c1 -W2 127.0.0.1 | grep -c ' 0% packet loss'") == "lo\n1\n"
    )
    assert sandboxes.shell("ls /sys/class/net", "--network", "host").split() == sorted(["lo", UPLINK])
    assert not (sandboxes.state / "networks").exists()


def test_a_bridge_leads_out_and_between(sandboxes: Sandboxes, host: Host) -> None:
    """Two sandboxes of one network reach each other and, behind the host's address, the outside."""
    host.forward(True)
    first = server(sandboxes)
    address = sandboxes.listed()[first]["addresses"][0]
    assert asked(sandboxes, address, 80, "--network", "bridge") == f"served by {first}"
    got = sandboxes.shell(
        f"ping -c1 -W3 {OUTSIDE_ADDRESS} | grep -c ' 0% packet loss'", "--network", "bridge"
    )
    assert got == "1\n"
    with subprocess.Popen(
        [*host.enter(outside=True), "python3", "-c",
         "import socket\ns = socket.create_server(('192.0.2.2', 7)); print(flush=True)\n"
         "c, peer = s.accept(); c.sendall(peer[0].encode()); c.close()"],
        stdout=subprocess.PIPE,
    ) as world:  # fmt: skip
        assert world.stdout is not None
        world.stdout.readline()
        assert asked(sandboxes, OUTSIDE_ADDRESS, 7, "--network", "bridge") == HOST_ADDRESS


def test_no_sandbox_becomes_the_hosts_router(sandboxes: Sandboxes, host: Host) -> None:
    """By a router advertisement, as in CVE-2020-13401; one on the host's own link still counts."""
    name = sandboxes.detached("--network", "bridge")
    state = json.loads((sandboxes.state / "runtime" / name / "state.json").read_text())
    bridge = next(link for link in host.links() if link.startswith("rfb"))
    seen = f"/proc/sys/net/ipv6/conf/{bridge}/accept_ra"
    assert host("cat", seen, f"/proc/sys/net/ipv6/conf/{UPLINK}/accept_ra").split() == ["0", "1"]
    gateway = json.loads(host("ip", "-j", "-4", "address", "show", "dev", bridge))[0]["addr_info"][0]["local"]
    inside = ["nsenter", f"--net=/proc/{state['pid']}/ns/net", "python3", "-c", ADVERTISE, gateway]
    subprocess.run(inside, check=True, timeout=patience(60))
    assert "proto ra" not in host("ip", "-6", "route")


def test_the_last_sandbox_removes_the_network(sandboxes: Sandboxes, host: Host) -> None:
    """Bridge, veth pairs, table, addresses; anything older stays."""
    host.forward(True)
    before = host.links()
    names = [
        sandboxes.detached("--network", "bridge", "-p", "8080:80"),
        sandboxes.detached("--network", "bridge"),
    ]
    assert len(host.links() - before) == 3
    assert len(host.tables()) == 1
    assert sandboxes("rm", "-f", names[0]).returncode == 0
    assert len(host.links() - before) == 2
    assert sandboxes("rm", "-f", names[1]).returncode == 0
    assert host.links() == before
    assert host.tables() == set()
    assert list((sandboxes.state / "networks").iterdir()) == [sandboxes.state / "networks/lock"]


def test_published_ports(sandboxes: Sandboxes, host: Host) -> None:
    """From the host by each of its addresses, from outside, its own network and itself (hairpin)."""
    host.forward(True)
    name = server(sandboxes, "-p", "8080:80", "-p", "127.0.0.1:8081:80")
    said = f"served by {name}"
    assert sandboxes.listed()[name]["ports"] == ["*:8080->80/tcp", "127.0.0.1:8081->80/tcp"]
    assert [connect(host, address, 8080) for address in ("127.0.0.1", HOST_ADDRESS)] == [said, said]
    assert connect(host, HOST_ADDRESS, 8080, outside=True) == said
    assert connect(host, "127.0.0.1", 8081) == said
    assert connect(host, HOST_ADDRESS, 8081) == "refused"
    assert connect(host, HOST_ADDRESS, 8081, outside=True) == "refused"
    for options in (("--network", "bridge"), ("--network", "bridge:other")):
        assert asked(sandboxes, HOST_ADDRESS, 8080, *options) == said
    script = f"nc -w 3 {HOST_ADDRESS} 8080 </dev/null"
    wait_for(lambda: sandboxes("exec", name, "sh", "-c", script).stdout.strip() == said, "the hairpin")


def test_an_unpublished_port_is_not_reachable(sandboxes: Sandboxes, host: Host) -> None:
    """Not from outside by the sandbox's own address,
    not from another network, not loopback of the host.
    """
    host.forward(True)
    name = server(sandboxes, "-p", "127.0.0.1:8081:80")
    address = sandboxes.listed()[name]["addresses"][0]
    assert connect(host, address, 80, outside=True, wait=1.0) == "nothing"
    script = f"nc -w 1 {address} 80 </dev/null || echo refused"
    assert sandboxes.shell(script, "--network", "bridge:other").strip() == "refused"
    # CVE-2020-8558: route_localnet of the bridge must not open the host's 127.0.0.1 to it.
    with listening(host, "127.0.0.1", 9000):
        script = (
            "ip route add 127.0.0.1/32 via $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') table 7;"
        )
        script += (
            "ip rule add pref 1 to 127.0.0.1 table 7; ip rule del pref 0; ip rule add pref 2 table local;"
        )
        script += "nc -w 1 127.0.0.1 9000 </dev/null || echo refused"
        got = sandboxes.shell(script, "--network", "bridge", "--cap-add", "NET_ADMIN")
        assert got.endswith("refused\n")


def test_udp_and_chosen_ports(sandboxes: Sandboxes, host: Host) -> None:
    """A datagram arrives; an omitted port is chosen."""
    host.forward(True)
    script = (
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 53))\n"
        "while True: s.sendto(b'pong', s.recvfrom(10)[1])"
    )
    name = sandboxes.name()
    options = sandboxes.named("-d", "-p", "53:53/udp", "-p", "80", "--rootfs", "host", name=name)
    assert sandboxes("run", *options, "python3", "-c", script).returncode == 0
    ports = sandboxes.listed()[name]["ports"]
    assert ports[0] == "*:53->53/udp"
    chosen = int(ports[1].split(":")[1].split("-")[0])
    assert 1024 <= chosen <= 65535
    script = (
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)\n"
        f"s.sendto(b'ping', ('{HOST_ADDRESS}', 53)); print(s.recv(10).decode().strip())"
    )
    wait_for(lambda: host("python3", "-c", script, check=False) == "pong\n", "an answer")


def test_forwarding_is_not_turned_on_unasked(sandboxes: Sandboxes, host: Host) -> None:
    """Off: a warning that says what does not work,
    and how to change it. With --ip-forward it is on.
    """
    host.forward(False)
    got = sandboxes.run("--network", "bridge")
    assert got.returncode == 0
    assert "does not forward IPv4" in got.stderr
    assert host("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    assert sandboxes.run("--network", "bridge,internal").stderr.count("forward") == 0
    assert sandboxes.run("--quiet", "--network", "bridge", "--ip-forward").stderr == ""
    assert host("cat", "/proc/sys/net/ipv4/ip_forward") == "1\n"


def test_an_internal_network_has_no_way_out(sandboxes: Sandboxes, host: Host) -> None:
    """No route, and no packet of a sandbox that adds a route itself."""
    host.forward(True)
    ping = f"ping -c1 -W1 {OUTSIDE_ADDRESS} | grep -c ' 0% packet loss'"
    script = f"ip route | grep -c default; ip route add default via 10.119.0.1; {ping}; true"
    assert sandboxes.shell(script, "--network", "bridge,internal", "--cap-add", "NET_ADMIN") == "0\n0\n"


def test_addresses_of_both_families(sandboxes: Sandboxes, host: Host) -> None:
    """IPv6 where a subnet is given; mtu and address as requested."""
    options = ("--network", "bridge:six,subnet=10.7.0.0/29,subnet=fd00:77::/64,ip=10.7.0.5,mtu=1400")
    host.forward(True)
    got = sandboxes.shell(
        "ip -o address show eth0; ip -6 route; ping -6 -c1 -W3 fd00:77::1;"
        " cat /sys/class/net/eth0/mtu; cat /etc/hosts",
        *options,
    )
    assert "inet 10.7.0.5/29" in got
    assert "inet6 fd00:77::2/64" in got
    assert "default via fd00:77::1" in got
    assert " 0% packet loss" in got
    assert "\n1400\n" in got
    assert "\nfd00:77::2\t" in got


def test_macvlan_is_on_the_hosts_link(sandboxes: Sandboxes, host: Host) -> None:
    """It uses the parent's link under its own address; without a subnet it has none."""
    network = f"macvlan:{UPLINK},subnet=192.0.2.0/24,ip=192.0.2.77,gateway={OUTSIDE_ADDRESS}"
    got = sandboxes.shell(
        f"ip route; ping -c1 -W3 {OUTSIDE_ADDRESS} | grep -c ' 0% packet loss'", "--network", network
    )
    assert (
        got
        == f"default via {OUTSIDE_ADDRESS} dev eth0 \n192.0.2.0/24 dev eth0 scope link  src 192.0.2.77 \n1\n"
    )
    bare = sandboxes.shell("ip -o -4 address show eth0; ls /sys/class/net", "--network", f"macvlan:{UPLINK}")
    assert bare.split() == ["eth0", "lo"]
    assert host.links() == {"lo", UPLINK}


@pytest.mark.parametrize("variant", ["l2", "l3"])
def test_ipvlan_shares_the_parents_address(sandboxes: Sandboxes, host: Host, variant: str) -> None:
    """On kernels that have it: tools/vm runs this; elsewhere the refusal names it."""
    network = f"ipvlan:{UPLINK}:{variant},subnet=192.0.2.0/24,ip=192.0.2.77"
    if not has_link_kind(host, "ipvlan"):
        assert "this kernel has no ipvlan" in sandboxes.refused("--network", network)
        force.elsewhere("no ipvlan in this kernel")
    if variant == "l3":
        host("ip", "route", "add", "192.0.2.77/32", "via", HOST_ADDRESS, into=host.outer)
    got = sandboxes.shell(f"ping -c1 -W3 {OUTSIDE_ADDRESS} | grep -c ' 0% packet loss'", "--network", network)
    assert got == "1\n"
    assert host.links() == {"lo", UPLINK}


def has_link_kind(host: Host, kind: str) -> bool:
    """Returns True if the kernel can make such a link."""
    command = [*host.enter(), "ip", "link", "add", "probe", "link", UPLINK, "type", kind]
    made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    if made:
        host("ip", "link", "delete", "probe")
    return made


def test_another_sandboxs_network(sandboxes: Sandboxes, host: Host) -> None:
    """The same addresses, hosts and resolver; only of a running one."""
    host.forward(True)
    name = server(sandboxes, "--dns", "192.0.2.53")
    script = "nc -w 3 127.0.0.1 80 </dev/null; grep -c $OWNER /etc/hosts; cat /etc/resolv.conf"
    got = sandboxes.shell(script, "--network", f"container:{name}", "-e", f"OWNER={name}")
    assert got == f"served by {name}\n1\nnameserver 192.0.2.53\n"
    assert sandboxes("stop", "-t", "0", name).returncode == 0
    assert "is not running" in sandboxes.refused("--network", f"container:{name}")


def test_a_stopped_sandbox_holds_no_network(sandboxes: Sandboxes, host: Host) -> None:
    """Its output is kept, but its port and address are free."""
    host.forward(True)
    name = sandboxes.detached("-p", "8080:80")
    assert sandboxes("stop", "-t", "0", name).returncode == 0
    assert host.links() == {"lo", UPLINK}
    other = sandboxes.detached("-p", "8080:80")
    assert set(sandboxes.listed("--all")) == {name, other}


def test_tables_of_others_stay_unchanged(sandboxes: Sandboxes, host: Host) -> None:
    """Byte for byte, while the runtime's table is added and removed."""
    host.forward(True)
    force.need_program("nft")
    host(
        "nft",
        "add table inet foreign { chain c { type filter hook forward priority 5; tcp dport 9 drop; } ; }",
    )
    host("nft", "add table ip ringfence-not-ours { chain c { } ; }")
    before = host("nft", "list", "ruleset")
    name = sandboxes.detached("-p", "8080:80")
    assert host("nft", "list", "ruleset") != before
    assert sandboxes("rm", "-f", name).returncode == 0
    assert host("nft", "list", "ruleset") == before


def test_starts_race_for_addresses_and_ports(sandboxes: Sandboxes, host: Host) -> None:
    """Six at once: six addresses; of those that request the same port, one gets it."""
    host.forward(True)
    done: list[subprocess.CompletedProcess[str]] = []

    def start(*options: str) -> None:
        words = [
            *sandboxes.named("--detach", "--network", "bridge", *options),
            str(sandboxes.rootfs),
            "sleep",
            "3600",
        ]
        done.append(sandboxes("run", *words))

    wanted = [(), (), (), ("-p", "8080:80"), ("-p", "8080:80"), ("-p", "8080:80")]
    threads = [threading.Thread(target=start, args=options) for options in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [got.stderr for got in done if got.returncode]
    assert len(failed) == 2, failed
    assert all("port 8080/tcp is already published by sandbox" in text for text in failed)
    addresses = [row["addresses"][0] for row in sandboxes.listed().values()]
    assert len(set(addresses)) == 4
    for address in addresses:
        host("busybox", "ping", "-c1", "-W3", address)


def test_a_pool_can_be_full(sandboxes: Sandboxes, host: Host) -> None:
    """It is an error; a container that ends frees an address."""
    network = ("--network", "bridge:small,subnet=10.9.9.0/30,internal")
    name = sandboxes.detached(*network)
    assert "no address is left in 10.9.9.0/30" in sandboxes.refused(*network)
    assert "is taken" in sandboxes.refused("--network", "bridge:small,ip=10.9.9.2")
    assert sandboxes("rm", "-f", name).returncode == 0
    sandboxes.detached(*network)


def test_a_port_of_a_program_of_the_host_is_not_taken_over(sandboxes: Sandboxes, host: Host) -> None:
    """Whichever address it listens on."""
    for address in ("0.0.0.0", "127.0.0.1"):
        with listening(host, address, 8080):
            assert "port 8080/tcp is in use by a program of this host" in sandboxes.refused("-p", "8080:80")
    assert "198.51.100.1 is not an address of this host" in sandboxes.refused("-p", "198.51.100.1:8080:80")


def test_subnets_of_the_host_are_not_taken(sandboxes: Sandboxes, host: Host) -> None:
    """The first one that neither a route nor another network uses."""
    host("ip", "address", "add", "10.119.0.1/23", "dev", UPLINK)
    name = sandboxes.detached("--network", "bridge,internal")
    other = sandboxes.detached("--network", "bridge:other,internal")
    rows = sandboxes.listed()
    assert (rows[name]["addresses"], rows[other]["addresses"]) == (["10.119.2.2"], ["10.119.3.2"])
    assert "exists with subnet 10.119.2.0/24" in sandboxes.refused("--network", "bridge,subnet=10.1.0.0/24")


def test_parents_with_odd_names(sandboxes: Sandboxes, host: Host) -> None:
    """A link's name may have almost any characters;
    a missing one is named without its escape codes.
    """
    host("ip", "link", "add", "a.b@c-é~1", "type", "veth", "peer", "name", "peer1")
    assert sandboxes.shell("ls /sys/class/net", "--network", "macvlan:a.b@c-é~1") == "eth0\nlo\n"
    assert "no link 'missing'" in sandboxes.refused("--network", "macvlan:missing")
    host("ip", "link", "add", "ringbr", "type", "bridge")
    listed = json.loads(host("ip", "-j", "link"))
    assert {link["ifname"] for link in listed} == {"lo", UPLINK, "a.b@c-é~1", "peer1", "ringbr"}


def test_nft_lists_the_table_as_intended(sandboxes: Sandboxes, host: Host) -> None:
    """nft lists the table as the intended rules."""
    host.forward(True)
    force.need_program("nft")
    name = sandboxes.detached(
        "--network", "bridge:n,subnet=10.5.0.0/24", "-p", "192.0.2.1:8080:80", "-p", "53:53/udp"
    )
    text = host("nft", "list", "ruleset")
    bridge = next(link for link in host.links() if link.startswith("rfb"))
    for rule in (
        f'ip daddr 192.0.2.1 tcp dport 8080 dnat ip to 10.5.0.2:80 comment "{name}"',
        f'meta nfproto ipv4 fib daddr type local udp dport 53 dnat ip to 10.5.0.2:53 comment "{name}"',
        f'iifname "{bridge}" ip daddr 127.0.0.0/8 drop',
        f'ip saddr 10.5.0.0/24 oifname != "{bridge}" masquerade',
        f'ip saddr 10.5.0.0/24 oifname "{bridge}" ct status dnat masquerade',
        f'oifname "{bridge}" ct state established,related accept',
        f'oifname "{bridge}" drop',
    ):
        assert f"\t\t{rule}\n" in text, text
