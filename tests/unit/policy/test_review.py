# SPDX-License-Identifier: Apache-2.0
"""`policy check` on policies that load and must not be loaded, and on those that are bad input altogether."""

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
from ringfence.policy.review import mistakes, refuse, remarks
from ringfence.proof.benign_twins import twins
from tests.unit.policy.reviewed import policy, rule, warned

ROOT = Path(__file__).resolve().parents[3]


def wrong(*documents: bytes) -> list[str]:
    """What `policy check` refuses in a set that loads."""
    found = load_bytes({f"{n}.yaml": document for n, document in enumerate(documents)})
    return [str(problem) for problem in mistakes(found)]


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
        ("ioctl", "any", "the question whether output is a terminal"),
        ("ioctl", "{request: {not: [TIOCSTI]}}", "the question whether output is a terminal"),
        ("file.open", "{filesystem: overlay, access: write}", "the writing of a file of the container's own"),
        ("file.open", "{path: /etc/ld.so.cache}", "/etc/ld.so.cache by the loader"),
        ("file.open", "{filesystem: devpts}", "the container's terminal"),
        ("device.access", "{device: ['c 136:*']}", "the container's terminal"),
        ("network.sendmsg", "any", "asking the resolver"),
        ("network.sendmsg", "{port: 53}", "asking the resolver"),
        ("network.connect", "any", "a connection to another service"),
        ("network.connect", "{protocol: udp}", "asking the resolver by a connected socket"),
        ("network.bind", "any", "a server that takes a port"),
        ("unix.connect", "any", "the image's own database"),
        ("sysctl.access", "any", "reading the host name"),
    ],
)
@pytest.mark.parametrize("action", ["deny", "kill"])
def test_what_locks_every_container_out_is_refused(event: str, match: str, what: str, action: str) -> None:
    """With the place of the rule, and with what would not run any more."""
    found = wrong(policy(rule(event, match, action)))
    assert found
    assert all(line.startswith("0.yaml:7:7: rule one: would lock every container") for line in found)
    assert any(what in line for line in found)


def test_the_same_as_an_alert_or_for_chosen_containers_is_not_refused() -> None:
    """Nothing is stopped; or its owner knows these containers."""
    assert wrong(policy(rule("process.exec", "any", "alert"))) == []
    chosen = policy(rule("process.exec", "any")).replace(b"containers: all", b"names: [sandbox-*]")
    assert wrong(chosen) == []


def test_an_exception_can_make_it_lawful() -> None:
    """What is asked is whether the ordinary thing would be stopped in the end."""
    but = ", exceptions: [{filesystem: overlay}]"
    assert wrong(policy(rule("process.exec", "any", more=but))) == []


def test_what_hits_the_host_is_refused() -> None:
    """Helpers of the kernel are tasks of no container: unarmed, by construction. A path is no excuse."""
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
                f"0.yaml:7:7: rule one: would lock the node out: it would {action} programs"
            )
        assert wrong(policy(rule("kernel.helper", match, "alert"))) == []
    for match in ("{known: no}", "{known: {not: [yes]}}", "{known: no, path: 'disk:tmp/**'}"):
        assert wrong(policy(rule("kernel.helper", match))) == [], match


def test_rules_contradict_in_whatever_order_their_events_are() -> None:
    """The same question, and two answers."""
    one = rule("[mount, umount]", "any", "deny", "one")
    (found,) = wrong(policy(one, rule("[umount, mount]", "any", "alert", "two")))
    assert "asks for alert, and rule one (0.yaml:7) for deny" in found
    assert wrong(policy(one, rule("[umount, chroot]", "any", "alert", "two"))) == []


def test_a_file_that_a_container_brought_locks_out_nobody_else() -> None:
    """Its policies are for that container alone: who wrote them knows it."""
    found = load_bytes({"0.yaml": policy(rule("process.exec", "any"))})
    own = PolicySet(tuple(replace(one, bound="key") for one in found.policies))
    assert mistakes(own) == []
    helper = load_bytes({"0.yaml": policy(rule("kernel.helper", "any"))})
    assert mistakes(PolicySet(tuple(replace(one, bound="key") for one in helper.policies)))


def test_conflicting_actions_are_refused() -> None:
    """The same events of the same containers, in whatever order the words are, in another file."""
    first = policy(rule("unshare", "{flags: [CLONE_NEWUSER, CLONE_NEWNS]}", "deny", "a"))
    second = policy(rule("unshare", "{flags: [CLONE_NEWNS, CLONE_NEWUSER]}", "alert", "b"), name="q")
    (found,) = wrong(first, second)
    assert found.startswith("1.yaml:7:7: rule b: asks for alert, and rule a (0.yaml:7) for deny")


def test_different_events_containers_or_the_same_action_do_not_conflict() -> None:
    """Each differs in one thing."""
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
def test_an_exception_that_takes_everything_is_refused(match: str, exception: str) -> None:
    """The rule and its exception would go round in a circle: it matches only what it excepts."""
    (found,) = wrong(policy(rule("unshare", match, more=f", exceptions: [{exception}]")))
    assert found.startswith("0.yaml:7:7: rule one: an exception takes all that it matches on unshare")


def test_an_exception_that_leaves_something_is_not() -> None:
    """Another program, or fewer flags."""
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
    """An alias of itself, an exception of an exception: neither is part of the language."""
    with pytest.raises(PolicyError) as raised:
        load_bytes({"0.yaml": policy(rule("unshare", "any", more=f", {text}"))})
    found = raised.value.problems[0]
    assert re.match(r"0\.yaml:7:\d+: ", str(found))
    assert message in str(found)


def test_ten_thousand_rules_are_refused_in_time() -> None:
    """With the place of the first that does not fit; within seconds, not minutes."""
    rules = [rule("file.open", f"{{path: 'proc:x/{n}'}}", name=f"r{n}") for n in range(10_000)]
    began = time.monotonic()
    with pytest.raises(PolicyError) as raised:
        compile_policies(load_bytes({"0.yaml": policy(*rules)}), NodeTiers.usual())
    assert time.monotonic() - began < 30
    (found,) = raised.value.problems
    assert str(found).startswith(f"0.yaml:{7 + 4096}:7: rule r4096: the rules and exceptions of this set")


def test_ten_thousand_mistakes_are_not_all_printed() -> None:
    """The first 200, and how many more there are."""
    rules = [rule("file.opne", "any", name=f"r{n}") for n in range(10_000)]
    with pytest.raises(PolicyError) as raised:
        load_bytes({"0.yaml": policy(*rules)})
    *shown, last = raised.value.problems
    assert len(shown) == 200
    assert last.message == "and 9800 more mistakes"
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
        ("device.access", "{device: 'b 9999:1'}", "b 9999", "majors go to 4095"),
        ("network.connect", "{address: 300.1.1.1}", "300.1", "is not an address"),
    ],
)
def test_objects_that_do_not_exist_are_refused(event: str, match: str, word: str, message: str) -> None:
    """Events, words, filesystems, devices, addresses: with line and column of the word."""
    with pytest.raises(PolicyError) as raised:
        load_bytes({"0.yaml": policy(rule(event, match))})
    (found,) = raised.value.problems
    assert message in str(found)
    line = policy(rule(event, match)).decode().splitlines()[found.line - 1]
    assert found.line == 7
    assert line[found.column - 1 :].lstrip("'").startswith(word)


def test_a_rule_that_stops_programs_of_the_host_is_warned_of() -> None:
    """Nobody but the node's owner can say that it may."""
    assert warned(policy(rule("host.map", "any", "deny"))) == [
        "stops programs of the host: see what it tells of first"
    ]
    assert warned(policy(rule("host.map", "any", "alert"))) == []


def test_the_twin_of_a_rule_of_the_pack_is_asked_about() -> None:
    """Somebody changed the rule, and it meets the lawful thing that the pack's was tried with."""
    document = policy(rule("perf_event_open", "{target: [host, self]}", "alert", "perf-node"))
    found = load_bytes({"0.yaml": document})
    assert "matches its own benign twin: perf_event_open 0" in [note.note for note in remarks(found, twins())]
    as_it_is = load_policies([ROOT / "policies"])
    assert [note for note in remarks(as_it_is, twins()) if "benign twin" in note.note] == []


def test_everybody_who_loads_refuses_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`policy check`, `agent --check`, and the agent, at its start and when files change."""
    file = tmp_path / "p.yaml"
    file.write_bytes(policy(rule("process.exec", "any")))
    said = f"{file}:7:7: rule one: would lock every container of the node out"
    for command in (["policy", "check", str(file)], ["agent", "--check", "--policies", str(file)]):
        assert main(command) == 2, command
        assert said in capsys.readouterr().err
    config = load_config(None, flags={"policies": [str(file)]})
    with pytest.raises(PolicyError, match="would lock every container"):
        load(config, NodeTiers.usual())
    with pytest.raises(PolicyError, match="would lock every container"):
        refuse(load_policies([file]))


def test_a_rule_that_matches_its_own_twin_is_warned_of() -> None:
    """The lawful neighbour of what it means."""
    assert warned(policy(rule("setns", "any"))) == [
        "matches what containers do lawfully: coming back to one's own namespace"
    ]
    assert warned(policy(rule("setns", "{target: host}"))) == []
    assert "`unshare -u`" in warned(policy(rule("unshare", "any", "alert")))[0]


def test_the_packs_are_clean() -> None:
    """Nothing to refuse, and no rule matches what containers do lawfully."""
    found = load_policies([ROOT / "policies"])
    extra = load_policies([ROOT / "policies/optional"])
    assert mistakes(found) == mistakes(extra) == []
    assert [(rule.id, s.what) for p in found.policies for rule in p.rules for s in matched(rule)] == []


def test_there_are_samples_of_both_kinds() -> None:
    """Or the tests above test nothing."""
    assert len(VITAL) >= 20
    assert len(ORDINARY) - len(VITAL) >= 15
    assert all(one.vital for one in VITAL)
    assert not any(one.vital for one in ORDINARY[len(VITAL) :])


def test_the_command_refuses_and_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2 with the place on standard error; 0 with warnings on standard output."""
    file = tmp_path / "p.yaml"
    file.write_bytes(policy(rule("process.exec", "any")))
    assert main(["policy", "check", str(file)]) == 2
    assert f"{file}:7:7: rule one: would lock every container of the node out" in capsys.readouterr().err
    file.write_bytes(policy(rule("setns", "any")))
    assert main(["policy", "check", str(file)]) == 0
    assert f"{file}:7:7: warning: one: matches what containers do lawfully" in capsys.readouterr().out
