# SPDX-License-Identifier: Apache-2.0
"""Text of the command line is parsed to values, or gives an error that names the option."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.sandbox import files, values
from ringfence.sandbox.errors import UsageError
from ringfence.sandbox.network.plan import Plan, plan
from ringfence.sandbox.network.ports import Port, exposed, parse


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("512", 512),
        ("1k", 1024),
        ("1.5g", 3 << 29),
        ("64M", 64 << 20),
        ("2GiB", 2 << 30),
        ("7b", 7),
    ],
)
def test_sizes(text: str, number: int) -> None:
    """As docker reads them."""
    assert values.bytes_of("--memory", text) == number


@pytest.mark.parametrize("text", ["", "k", "-1", "1x", "nan", "inf", "1e99", "1 k"])
def test_what_is_no_size(text: str) -> None:
    """The option is named."""
    with pytest.raises(UsageError, match=r"^--memory: "):
        values.bytes_of("--memory", text)


def test_volumes(tmp_path: Path) -> None:
    """Docker's options are converted to the runtime's; weaker settings must be explicit."""
    made = values.volume(f"{tmp_path}:/data/:ro,z")
    assert (made.source, made.target) == (str(tmp_path), "/data")
    assert {"rbind", "ro", "rro", "nosuid", "nodev", "rprivate"} == set(made.options)
    assert "nosuid" not in values.volume(f"{tmp_path}:/data:suid").options
    for bad in (
        "a",
        f"{tmp_path}:data",
        f"{tmp_path}:/a/../b",
        f"{tmp_path}:/",
        f"{tmp_path}:/a:magic",
        "name:/a",
    ):
        with pytest.raises(UsageError, match="--volume"):
            values.volume(bad)


def test_mounts(tmp_path: Path) -> None:
    """--mount says the same as --volume and --tmpfs."""
    assert values.mount(f"type=bind,src={tmp_path},dst=/a,readonly") == values.volume(f"{tmp_path}:/a:ro")
    assert values.mount("type=tmpfs,target=/a,tmpfs-size=1k").options == (
        "nosuid", "nodev", "noexec", "size=1024", "mode=1777"
    )  # fmt: skip
    for bad in (
        "type=volume,target=/a",
        "type=tmpfs,target=a",
        "type=tmpfs,target=/a,magic=1",
        "type=bind,target=/a",
    ):
        with pytest.raises(UsageError, match=r"--mount|--tmpfs"):
            values.mount(bad)


def test_a_tmpfs_may_say_a_word_twice() -> None:
    """As a script that adds options to others does."""
    assert values.tmpfs("/a:exec,exec") == values.tmpfs("/a:exec")


def test_a_limit_is_a_number_of_the_kernels() -> None:
    """Otherwise it would overflow: 2^64 + 5 became 5."""
    assert values.limit("nofile=unlimited").soft == -1
    with pytest.raises(UsageError, match="--ulimit"):
        values.limit(f"nofile={(1 << 64) + 5}")


def test_limits_and_devices() -> None:
    """unlimited is -1; access letters stand alone or third."""
    assert values.limit("nofile=1:2") == ("RLIMIT_NOFILE", 1, 2)
    assert values.limit("core=unlimited") == ("RLIMIT_CORE", -1, -1)
    assert values.device("/dev/null") == ("/dev/null", "/dev/null", "rwm")
    assert values.device("/dev/null:r") == ("/dev/null", "/dev/null", "r")
    assert values.device("/dev/null:/dev/a:rw") == ("/dev/null", "/dev/a", "rw")
    for bad in ("null", "/dev/null:/dev/a:x", "/a:/b:r:w"):
        with pytest.raises(UsageError, match="--device"):
            values.device(bad)


def test_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files first; a name alone takes the caller's value, if set."""
    monkeypatch.setenv("OURS", "here")
    (tmp_path / "env").write_text("# comment\nA=1\n\nOURS\nMISSING\n")
    assert values.variables(["A=2", "EMPTY="], [str(tmp_path / "env")]) == (
        "A=1",
        "OURS=here",
        "A=2",
        "EMPTY=",
    )


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port("tcp", "", 0, 80)]),
        ("8080:80", [Port("tcp", "", 8080, 80)]),
        ("127.0.0.1:8080:80/udp", [Port("udp", "127.0.0.1", 8080, 80)]),
        ("127.0.0.1::80", [Port("tcp", "127.0.0.1", 0, 80)]),
        ("[2001:db8::1]:53:53/udp", [Port("udp", "2001:db8::1", 53, 53)]),
        ("0.0.0.0:1:1", [Port("tcp", "", 1, 1)]),
        ("10-11:20-21", [Port("tcp", "", 10, 20), Port("tcp", "", 11, 21)]),
    ],
)
def test_ports(text: str, ports: list[Port]) -> None:
    """Every form that docker supports."""
    assert parse(text) == ports


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0",
        "1:0",
        "70000",
        "1:2/sctp",
        "1-2:3",
        "9-8",
        "1.2.3:1:2",
        "[::1]:1:2",
        "1:2:3:4",
        "-1",
        "²",
    ],
)
def test_what_is_no_port(text: str) -> None:
    """An error, never a guess."""
    with pytest.raises(UsageError, match=r"^--publish: "):
        parse(text)


def test_an_images_ports_are_hostile_text() -> None:
    """Only plain ones count."""
    assert exposed(["80", "53/udp", "1.2.3.4:5:6", "x", "80/sctp", ""]) == [
        Port("tcp", "", 0, 80), Port("udp", "", 0, 53)
    ]  # fmt: skip


def test_networks() -> None:
    """Modes with their names and keys."""
    assert plan("") == Plan("none")
    assert plan("", publishes=True) == Plan("bridge", "ringfence")
    assert plan("bridge:a,subnet=10.1.0.0/24,mtu=1400,internal") == Plan(
        "bridge", "a", subnets=("10.1.0.0/24",), mtu=1400, internal=True
    )
    assert plan("ipvlan:eth0:l3").variant == "l3"
    assert plan("ipvlan:eth0").variant == "l2"
    assert plan("macvlan:eth0.7") == Plan("macvlan", "eth0.7")
    assert plan("container:web") == Plan("container", "web")
    bad = (
        "bridges", "bridge:", "none:x", "host,mtu=1", "bridge,magic=1", "bridge,subnet=10.0.0.1/24",
        "bridge,mtu=9", "bridge,subnet=10.0.0.0/31", "macvlan", "macvlan:a b", "macvlan:sixteen-letters!",
        "ipvlan:eth0:l4", "container:", "macvlan:eth0,ip=10.0.0.1", "bridge:-a", "bridge:a/b",
        "bridge,internal=maybe", "bridge,subnet=127.0.0.0/8",
    )  # fmt: skip
    for text in bad:
        with pytest.raises(UsageError, match=r"^--network: "):
            plan(text)


@pytest.mark.parametrize(
    "reader", [parse, plan, values.mount, values.tmpfs, values.device, values.limit, values.extra_host]
)
@given(text=st.text(max_size=40))
def test_readers_survive_anything(reader: Callable[[str], Any], text: str) -> None:
    """A value or a UsageError without a control character (fuzz)."""
    said = ""
    try:
        reader(text)
    except UsageError as error:
        said = error.message
    assert said == "" or said.isprintable()


def test_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox by each of its addresses, then the requested ones."""
    extra = [("db", "192.0.2.9"), ("up", "host-gateway")]
    text = files.hosts_text("box", ["10.0.0.2", "fd00::2"], extra, gateway="10.0.0.1", host=False)
    assert text.splitlines()[2:] == ["10.0.0.2\tbox", "fd00::2\tbox", "192.0.2.9\tdb", "10.0.0.1\tup"]
    with pytest.raises(UsageError, match="host-gateway"):
        files.hosts_text("box", [], extra, gateway="", host=False)


def test_resolvers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers on the host's loopback are of no use elsewhere; none at all is said."""
    here = {"/etc/resolv.conf": "nameserver 127.0.0.53\nsearch a.test\noptions edns0\n"}
    monkeypatch.setattr(files, "read", lambda path: here.get(path, ""))
    assert files.resolver_text((), (), (), mode="none") == ("", True)
    assert files.resolver_text((), (), (), mode="host")[0].startswith(
        "nameserver 127.0.0.53\nsearch a.test\n"
    )
    assert files.resolver_text((), (), (), mode="bridge") == ("search a.test\noptions edns0\n", False)
    here["/run/systemd/resolve/resolv.conf"] = "nameserver 192.0.2.1\nnameserver fe80::1%eth0\n"
    assert files.resolver_text((), (), (), mode="bridge") == ("nameserver 192.0.2.1\n", True)
    given_ = files.resolver_text(("192.0.2.7",), ("b.test",), (), mode="bridge")
    assert given_ == ("nameserver 192.0.2.7\nsearch b.test\noptions edns0\n", True)
