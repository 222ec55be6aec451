# SPDX-License-Identifier: Apache-2.0
"""`policy check` on policies that load but must not be used, and on invalid input."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.cli.main import main
from ringfence.config import load as load_config
from ringfence.daemon.policies.manager import load
from ringfence.errors import PolicyError
from ringfence.policy import NodeTiers, PolicySet, compile_policies, load_bytes, load_policies
from ringfence.policy.ordinary import ORDINARY, VITAL, matched
from ringfence.policy.review import find_errors, refuse, remarks
from ringfence.proof.benign_twins import twins
from tests.unit.policy.reviewed import policy, rule, warned

ROOT = Path(__file__).resolve().parents[3]


def wrong(*documents: bytes) -> list[str]:
    """Returns the errors of `policy check` in a set that loads."""
    found = load_bytes({f"{n}.yaml": document for n, document in enumerate(documents)})
    return [str(problem) for problem in find_errors(found)]


@pytest.mark.parametrize(
    ("event", "match", "what"),
    [
        ("process.exec", "any", "the start of a shell of the image"),
        ("file.open", "any", "a library of the image"),
        ("file.open", "{access: read}", "a library of the image"),
        ("file.open", "{type: character-device}", "/dev/null"),
        ("file.open", "{filesystem: {not: [disk]}}", "a library of the image"),
        ("device.access", "any", "/dev/null"),
        ("device.access", "{device: ['c 1:*']}", "/dev/null"),
        ("clone", "any", "the start of a process"),
        ("clone", "{flags: {none: [CLONE_NEWUSER]}}", "the start of a process"),
        ("socket", "{family: {not: [AF_PACKET]}}", "a TCP socket"),
        ("container.start", "any", "the start of an ordinary container"),
        ("file.map", "any", "the loading of a library"),
        ("ioctl", "any", "the test whether output is a terminal"),
        ("ioctl", "{request: {not: [TIOCSTI]}}", "the test whether output is a terminal"),
        ("file.open", "{filesystem: overlay, access: write}", "the writing of a file of the container"),
        ("file.open", "{path: /etc/ld.so.cache}", "/etc/ld.so.cache by the loader"),
        ("file.open", "{filesystem: devpts}", "the container's terminal"),
        ("device.access", "{device: ['c 136:*']}", "the container's terminal"),
        ("network.sendmsg", "any", "a DNS query"),
        ("network.sendmsg", "{port: 53}", "a DNS query"),
        ("network.connect", "any", "a connection to another service"),
        ("network.connect", "{protocol: udp}", "a DNS query over a connected socket"),
        ("network.bind", "any", "a server that binds its port"),
        ("unix.connect", "any", "a database in the container"),
        ("sysctl.access", "any", "reading the host name"),
    ],
)
@pytest.mark.parametrize("action", ["deny", "kill"])
def test_a_rule_that_stops_every_container_is_refused(event: str, match: str, what: str, action: str) -> None:
    """The error has the location of the rule, and an action that would be stopped."""
    found = wrong(policy(rule(event, match, action)))
    assert found
    assert all(line.startswith("0.yaml:7:7: rule one: would stop every container") for line in found)
    assert any(what in line for line in found)


def test_such_a_rule_is_allowed_as_an_alert_or_for_selected_containers() -> None:
    """Nothing is stopped, or the policy's owner knows these containers."""
    assert wrong(policy(rule("process.exec", "any", "alert"))) == []
    chosen = policy(rule("process.exec", "any")).replace(b"containers: all", b"names: [sandbox-*]")
    assert wrong(chosen) == []


def test_such_a_rule_is_allowed_with_a_sufficient_exception() -> None:
    """The check considers whether ordinary behaviour would actually be stopped."""
    but = ", exceptions: [{filesystem: overlay}]"
    assert wrong(policy(rule("process.exec", "any", more=but))) == []


def test_a_rule_that_stops_known_usermode_helpers_is_refused() -> None:
    """Usermode helpers run outside containers, always unarmed. Limiting the rule to a path is not enough."""
    for match in (
        "any",
        "{path: '/sbin/**'}",
        "{path: 'disk:tmp/**'}",
        "{name: modprobe}",
        "{known: [no, yes]}",
        "{known: {not: [no]}}",
    ):
        for action in ("deny", "kill"):
            (found,) = wrong(policy(rule("kernel.helper", match, action)))
            assert found.startswith(
                f"0.yaml:7:7: rule one: would disable the node: it would {action} usermode helpers"
            )
        assert wrong(policy(rule("kernel.helper", match, "alert"))) == []
    for match in ("{known: no}", "{known: {not: [yes]}}", "{known: no, path: 'disk:tmp/**'}"):
        assert wrong(policy(rule("kernel.helper", match))) == [], match


def test_contradictions_are_found_for_any_order_of_events() -> None:
    """The same events with two actions."""
    one = rule("[mount, umount]", "any", "deny", "one")
    (found,) = wrong(policy(one, rule("[umount, mount]", "any", "alert", "two")))
    assert "has action alert, but rule one (0.yaml:7) has deny" in found
    assert wrong(policy(one, rule("[umount, chroot]", "any", "alert", "two"))) == []


def test_a_policy_from_an_enrolment_request_may_stop_its_container() -> None:
    """It applies to that container only, which its author knows; usermode helpers stay protected."""
    found = load_bytes({"0.yaml": policy(rule("process.exec", "any"))})
    own = PolicySet(tuple(replace(one, bound="key") for one in found.policies))
    assert find_errors(own) == []
    helper = load_bytes({"0.yaml": policy(rule("kernel.helper", "any"))})
    assert find_errors(PolicySet(tuple(replace(one, bound="key") for one in helper.policies)))


def test_conflicting_actions_are_refused() -> None:
    """The same events of the same containers, with words in another order, in another file."""
    first = policy(rule("unshare", "{flags: [CLONE_NEWUSER, CLONE_NEWNS]}", "deny", "a"))
    second = policy(rule("unshare", "{flags: [CLONE_NEWNS, CLONE_NEWUSER]}", "alert", "b"), name="q")
    (found,) = wrong(first, second)
    assert found.startswith("1.yaml:7:7: rule b: has action alert, but rule a (0.yaml:7) has deny")


def test_different_events_containers_or_the_same_action_do_not_conflict() -> None:
    """Each pair differs in one respect."""
    base = rule("unshare", "{flags: CLONE_NEWUSER}", "deny", "a")
    assert wrong(policy(base, rule("unshare", "{flags: CLONE_NEWNS}", "alert", "b"))) == []
    assert wrong(policy(base, rule("clone", "{flags: CLONE_NEWUSER}", "alert", "b"))) == []
    assert wrong(policy(base, rule("unshare", "{flags: CLONE_NEWUSER}", "deny", "b"))) == []
    other = policy(rule("unshare", "{flags: CLONE_NEWUSER}", "alert", "b"), name="q")
    assert wrong(policy(base), other.replace(b"containers: all", b"names: [x]")) == []


@pytest.mark.parametrize(
    ("match", "exception"),
    [
        ("{flags: CLONE_NEWUSER}", "{flags: CLONE_NEWUSER}"),
        ("{flags: CLONE_NEWUSER}", "{flags: [CLONE_NEWUSER, CLONE_NEWNS]}"),
        ("{flags: {all: [CLONE_NEWUSER, CLONE_NEWNS]}}", "{flags: CLONE_NEWNS}"),
        ("{flags: CLONE_NEWUSER, exe: [/bin/a]}", "{exe: [/bin/a, /bin/b]}"),
    ],
)
def test_an_exception_that_covers_its_rule_is_refused(match: str, exception: str) -> None:
    """The rule could never match."""
    (found,) = wrong(policy(rule("unshare", match, more=f", exceptions: [{exception}]")))
    assert found.startswith("0.yaml:7:7: rule one: an exception covers everything it matches on unshare")


def test_a_narrower_exception_is_allowed() -> None:
    """For one program, or for more flags."""
    for exception in ("{exe: /bin/a}", "{flags: {all: [CLONE_NEWUSER, CLONE_NEWNS]}}"):
        assert (
            wrong(policy(rule("unshare", "{flags: CLONE_NEWUSER}", more=f", exceptions: [{exception}]")))
            == []
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exceptions: &loop [{flags: CLONE_NEWNS}, *loop]", "anchor"),
        ("exceptions: [{exceptions: [{flags: CLONE_NEWNS}]}]", "unknown key 'exceptions'"),
    ],
)
def test_exceptions_cannot_loop(text: str, message: str) -> None:
    """The language has neither aliases nor exceptions of exceptions."""
    with pytest.raises(PolicyError) as raised:
        load_bytes({"0.yaml": policy(rule("unshare", "any", more=f", {text}"))})
    found = raised.value.problems[0]
    assert re.match(r"0\.yaml:7:\d+: ", str(found))
    assert message in str(found)


@pytest.mark.long
def test_ten_thousand_rules_are_refused_quickly() -> None:
    """With the location of the first rule beyond the limit; within seconds, not minutes."""
    rules = [rule("file.open", f"{{path: 'proc:x/{n}'}}", name=f"r{n}") for n in range(10_000)]
    began = time.monotonic()
    with pytest.raises(PolicyError) as raised:
        compile_policies(load_bytes({"0.yaml": policy(*rules)}), NodeTiers.usual())
    assert time.monotonic() - began < 30
    (found,) = raised.value.problems
    assert str(found).startswith(f"0.yaml:{7 + 4096}:7: rule r4096: the rules and exceptions of this set")


@pytest.mark.long
def test_of_ten_thousand_errors_200_are_reported() -> None:
    """The first 200, and the number of the others."""
    rules = [rule("file.opne", "any", name=f"r{n}") for n in range(10_000)]
    with pytest.raises(PolicyError) as raised:
        load_bytes({"0.yaml": policy(*rules)})
    *shown, last = raised.value.problems
    assert len(shown) == 200
    assert last.message == "and 9800 more errors"
    assert all((problem.line, problem.column) > (6, 0) for problem in shown)


@pytest.mark.parametrize(
    ("event", "match", "word", "message"),
    [
        ("file.opne", "any", "file.opne", "'file.opne' is not an event; did you mean 'file.open'?"),
        (
            "socket",
            "{family: AF_PAKET}",
            "AF_PAKET",
            "'AF_PAKET' is not a value of 'family'; did you mean 'AF_PACKET'?",
        ),
        ("file.open", "{path: 'prok:kcore'}", "prok", "prok"),
        ("unshare", "{flag: CLONE_NEWUSER}", "flag", "unknown key 'flag'; did you mean 'flags'?"),
        ("device.access", "{device: 'b 9999:1'}", "b 9999", "the maximum is 4095 for majors"),
        ("network.connect", "{address: 300.1.1.1}", "300.1", "is not an address"),
    ],
)
def test_unknown_names_are_refused(event: str, match: str, word: str, message: str) -> None:
    """Events, words, filesystems, devices, addresses: with line and column of the word."""
    with pytest.raises(PolicyError) as raised:
        load_bytes({"0.yaml": policy(rule(event, match))})
    (found,) = raised.value.problems
    assert message in str(found)
    line = policy(rule(event, match)).decode().splitlines()[found.line - 1]
    assert found.line == 7
    assert line[found.column - 1 :].lstrip("'").startswith(word)


def test_a_rule_that_stops_programs_of_the_host_gives_a_warning() -> None:
    """Only the node's owner can decide this."""
    assert warned(policy(rule("host.map", "any", "deny"))) == [
        "stops programs of the host: try it with `action: alert` first"
    ]
    assert warned(policy(rule("host.map", "any", "alert"))) == []


def test_a_changed_rule_of_the_pack_that_matches_its_twin_gives_a_warning() -> None:
    """The bundled rule was tested with this benign twin."""
    document = policy(rule("perf_event_open", "{target: [host, self]}", "alert", "perf-node"))
    found = load_bytes({"0.yaml": document})
    assert "matches its own benign twin: perf_event_open 0" in [note.note for note in remarks(found, twins())]
    as_it_is = load_policies([ROOT / "policies"])
    assert [note for note in remarks(as_it_is, twins()) if "benign twin" in note.note] == []


def test_all_commands_refuse_the_same_policies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`policy check`, `agent --check`, and the agent, at start and when files change."""
    file = tmp_path / "p.yaml"
    file.write_bytes(policy(rule("process.exec", "any")))
    message = f"{file}:7:7: rule one: would stop every container of the node"
    for command in (["policy", "check", str(file)], ["agent", "--check", "--policies", str(file)]):
        assert main(command) == 2, command
        assert message in capsys.readouterr().err
    config = load_config(None, flags={"policies": [str(file)]})
    with pytest.raises(PolicyError, match="would stop every container"):
        load(config, NodeTiers.usual())
    with pytest.raises(PolicyError, match="would stop every container"):
        refuse(load_policies([file]))


def test_a_rule_that_matches_ordinary_behaviour_gives_a_warning() -> None:
    """A legitimate action similar to the attack."""
    assert warned(policy(rule("setns", "any"))) == [
        "matches ordinary behaviour of containers: a return to its own namespace"
    ]
    assert warned(policy(rule("setns", "{target: host}"))) == []
    assert "`unshare -u`" in warned(policy(rule("unshare", "any", "alert")))[0]


def test_the_packs_have_no_errors_and_no_such_warnings() -> None:
    """No rule of them matches ordinary behaviour of containers."""
    found = load_policies([ROOT / "policies"])
    extra = load_policies([ROOT / "policies/optional"])
    assert find_errors(found) == find_errors(extra) == []
    assert [(rule.id, s.what) for p in found.policies for rule in p.rules for s in matched(rule)] == []


def test_there_are_samples_of_both_kinds() -> None:
    """Otherwise the tests above would test nothing."""
    assert len(VITAL) >= 20
    assert len(ORDINARY) - len(VITAL) >= 15
    assert all(one.vital for one in VITAL)
    assert not any(one.vital for one in ORDINARY[len(VITAL) :])


def test_the_command_refuses_and_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 with the location on standard error; 0 with warnings on standard output."""
    file = tmp_path / "p.yaml"
    file.write_bytes(policy(rule("process.exec", "any")))
    assert main(["policy", "check", str(file)]) == 2
    assert f"{file}:7:7: rule one: would stop every container of the node" in capsys.readouterr().err
    file.write_bytes(policy(rule("setns", "any")))
    assert main(["policy", "check", str(file)]) == 0
    assert f"{file}:7:7: warning: one: matches ordinary behaviour of containers" in capsys.readouterr().out
