# SPDX-License-Identifier: Apache-2.0
"""Unusual spellings of a value have the same meaning or are refused; they are never ignored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ringfence.abi import EventKind
from ringfence.errors import PolicyError
from ringfence.policy import load_bytes, load_policies
from ringfence.policy.probe_rules import FieldWords, ProbeWords
from ringfence.policy.review import remarks
from ringfence.policy.samples import rule_matches, sample
from tests.unit.policy.documents import Seen, load, policy, rule, text

LONG = "9" * 5000  # Python refuses to convert more than 4,300 digits
K = EventKind


def errors_in(event: str, match: Any) -> list[str]:
    """Returns the errors in a rule with that match block."""
    with pytest.raises(PolicyError) as caught:
        load(policy(rule(event=event, match=match)))
    return [problem.message for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("event", "match", "words"),
    [
        ("network.connect", {"port": int(LONG[:4000])}, "is not between 0 and 65535"),
        ("network.connect", {"port": LONG}, "is not between 0 and 65535"),
        ("network.connect", {"port": f"1-{LONG}"}, "is not a range within 0-65535"),
        ("bpf", {"cmd": "UNQUOTED"}, "is not between 0 and"),
        ("clone", {"flags": "UNQUOTED"}, "is not between 0 and"),
        ("device.access", {"device": f"b {LONG}:1"}, "the maximum is 4095 for majors"),
    ],
)
def test_a_number_of_thousands_of_digits_is_too_large(event: str, match: dict[str, Any], words: str) -> None:
    """It gives one short error, not an exception of Python."""
    data = text(policy(rule(event=event, match=match))).replace(b"UNQUOTED", LONG.encode())
    with pytest.raises(PolicyError) as caught:
        load_bytes({"x.yaml": data})
    (problem,) = caught.value.problems
    assert words in problem.message
    assert len(str(problem)) < 800


def test_a_probe_field_has_no_number_of_thousands_of_digits() -> None:
    """Nor a bound of a range or comparison."""
    words = ProbeWords("probe.x", {"size": FieldWords("number")}, in_task=True)
    for value in (LONG, f"1-{LONG}", f">= {LONG}"):
        one = rule(event="probe.x", match={"size": value}, action="alert")
        with pytest.raises(PolicyError, match="must be a number"):
            load_bytes({"x.yaml": text(policy(one))}, {"probe.x": words})


@pytest.mark.parametrize(
    ("peer", "matched"), [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("::a01:203", False)]
)
def test_an_ipv4_address_of_a_probe_matches_in_both_families(peer: str, matched: bool) -> None:
    """As in the agent's own events: servers on [::] see mapped IPv4 addresses."""
    words = ProbeWords("probe.x", {"peer": FieldWords("ip")}, in_task=True)
    one = rule(event="probe.x", match={"peer": "10.0.0.0/8"}, action="alert")
    (found,) = load_bytes({"x.yaml": text(policy(one))}, {"probe.x": words}).policies[0].probe_rules
    assert found.holds({"peer": peer}) is matched


def test_a_wrong_flag_is_one_error() -> None:
    """A number that is too large is reported as a number, and 0 is not a flag."""
    assert errors_in("clone", {"flags": 1 << 40}) == [f"{1 << 40} is not between 0 and 4294967295"]
    assert "tests no bit" in errors_in("clone", {"flags": 0})[0]


@pytest.mark.parametrize(
    ("event", "match", "words"),
    [
        ("file.open", {"exe": "/usr/bin/"}, "ends with `/`"),
        ("file.open", {"exe": "/"}, "ends with `/`"),
        ("file.open", {"exe": "/usr/bin/a\0"}, "contains a NUL"),
        ("file.open", {"name": "a\0"}, "contains a NUL"),
        ("file.open", {"path": "proc:a\0b"}, "contains a NUL"),
        ("unix.connect", {"socket": "/run//docker.sock"}, "is not a plain path"),
        ("unix.connect", {"socket": "/run/../docker.sock"}, "is not a plain path"),
        ("network.connect", {"address": "fe80::1%eth0"}, "events have no zone"),
        ("network.connect", {"port": "\u0663-\u0665"}, "is not a number"),
    ],
)
def test_a_value_that_no_event_can_have_is_refused(event: str, match: dict[str, Any], words: str) -> None:
    """A rule or an exception on it would silently never match."""
    assert any(words in message for message in errors_in(event, match))


def test_the_name_of_an_abstract_socket_may_contain_nul() -> None:
    """See unix(7)."""
    assert load(policy(rule(event="unix.connect", match={"socket": "@a\0b"}))).rules == 1


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("kernel.core_pattern", b"kernel/core_pattern"),
        ("/proc/sys/kernel/core_pattern", b"kernel/core_pattern"),
        ("proc:sys/kernel/core_pattern", b"kernel/core_pattern"),
        ("net.ipv4.conf.eth0/1.forwarding", b"net/ipv4/conf/eth0.1/forwarding"),
        ("net/ipv4/conf/eth0.1/forwarding", b"net/ipv4/conf/eth0.1/forwarding"),
        ("kernel.*", b"kernel/core_pattern"),
    ],
)
def test_sysctl_names_are_accepted_as_by_sysctl(written: str, name: bytes) -> None:
    """As in sysctl(8), the first separator decides; names of procfs files are accepted, too."""
    (one,) = load(policy(rule(event="sysctl.access", match={"sysctl": written}))).policies[0].rules
    assert rule_matches(one, sample(K.SYSCTL_ACCESS, "", text=name))


@pytest.mark.parametrize("written", ["10.1.2.3", "::ffff:10.1.2.3", "::ffff:10.1.0.0/112", "::ffff:0:0/96"])
def test_an_ipv4_address_matches_in_both_families(written: str) -> None:
    """A socket of either family reaches it."""
    (one,) = load(policy(rule(event="network.connect", match={"address": written}))).policies[0].rules
    mapped = bytes(10) + b"\xff\xff"
    assert rule_matches(one, sample(K.NET_CONNECT, "", address=bytes((10, 1, 2, 3))))
    assert rule_matches(one, sample(K.NET_CONNECT, "", address=mapped + bytes((10, 1, 2, 3))))
    assert not rule_matches(one, sample(K.NET_CONNECT, "", address=bytes(16)))


@pytest.mark.parametrize(
    ("image", "globs", "fits"),
    [
        ("nginx", "docker.io/library/nginx:*", True),
        ("nginx:1.27", "docker.io/library/nginx:*", True),
        ("bitnami/redis", "docker.io/bitnami/redis:latest", True),
        ("localhost/app", "localhost/app:latest", True),
        ("registry:5000/shop/web", "registry:5000/shop/web:latest", True),
        ("docker.io/library/nginx:1.27", "docker.io/library/nginx:*", True),
        ("nginx@sha256:" + "a" * 64, "docker.io/library/nginx@*", True),
        ("nginx", "nginx", True),
        ("nginx", "*nginx:*", True),
        ("evil.example/library/nginx:1", "docker.io/library/nginx:*", False),
        ("nginx@sha256:" + "a" * 64, "docker.io/library/nginx:*", False),
        ("sha256:" + "a" * 64, "docker.io/*", False),
        ("a" * 64, "docker.io/*", False),
        ("", "*", False),
        (None, "*", False),
    ],
)
def test_an_image_matches_by_its_full_name_and_by_the_requested_name(
    image: str | None, globs: str, fits: bool
) -> None:
    """For containers created by `docker run nginx`, by a pod's `image: nginx` and by Podman."""
    found = load(policy(rule(), images=globs)).policies[0].selector
    assert found.covers(Seen(image=image)) is fits
    left = load(policy(rule(), containers="all", but={"images": globs})).policies[0].selector
    assert left.covers(Seen(image=image)) is not fits


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ({"names": "!web-*"}, "does not negate"),
        ({"namespaces": ["a", "[ab"]}, "has a `[` without its `]`"),
        ({"labels": {"tier": "!front"}}, "does not negate"),
        ({"containers": "all", "except": {"images": "!docker.io/*"}}, "does not negate"),
    ],
)
def test_a_glob_that_matches_no_name_is_refused(selector: dict[str, Any], words: str) -> None:
    """Its author means something else, and the policy would apply to no container."""
    document = policy(rule())
    document["spec"]["selector"] = selector
    with pytest.raises(PolicyError, match=re.escape(words)):
        load(document)


def test_a_label_with_the_value_true_needs_quotes() -> None:
    """Such labels are common on pods, and YAML reads the plain word as a boolean."""
    plain = text(policy(rule(), labels={"mesh": "WORD"}))
    with pytest.raises(PolicyError, match="must be a text: put it in quotes"):
        load_bytes({"x.yaml": plain.replace(b"WORD", b"true")})
    assert load_bytes({"x.yaml": plain.replace(b"WORD", b"'true'")}).rules == 1


@pytest.mark.parametrize("glob", ["[ab]*", "[!a]b", "[]]", "[a-z]?", "a[]x]b", "web-[0-9]"])
def test_globs_with_bracket_expressions_are_accepted(glob: str) -> None:
    """As in fnmatch(3)."""
    assert load(policy(rule(), names=glob)).rules == 1


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/proc/sysrq-trigger", "write 'proc:sysrq-trigger'"),
        ("/sys/kernel/uevent_helper", "write 'sysfs:kernel/uevent_helper'"),
        ("/dev/mem", "device.access"),
    ],
)
def test_a_path_as_seen_in_the_container_gives_a_warning(path: str, hint: str) -> None:
    """Paths start at the root of procfs and other filesystems: the rule would never match."""
    plain = rule(event="file.open", match={"path": path}, action="alert")
    (note,) = [one for one in remarks(load(policy(plain))) if one.level == "warning"]
    assert hint in note.note
    assert note.line > 0


def test_a_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    """Editors of other systems write such files."""
    plain = text(policy(rule()))
    for n, data in enumerate((b"\xef\xbb\xbf" + plain, plain.replace(b"\n", b"\r\n"))):
        file = tmp_path / f"{n}.yaml"
        file.write_bytes(data)
        found = load_policies([file]).policies[0]
        assert found.rules[0].match == load(policy(rule())).policies[0].rules[0].match
        assert found.rules[0].place.line == 10
