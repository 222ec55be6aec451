# SPDX-License-Identifier: Apache-2.0
"""`policy check` on policies that load and must not be loaded, and on those that are bad input altogether."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from ringfence.cli.main import main
from ringfence.errors import PolicyError
from ringfence.policy import NodeTiers, compile_policies, load_bytes, load_policies
from ringfence.policy.ordinary import ORDINARY, VITAL, matched
from ringfence.policy.review import mistakes, remarks

ROOT = Path(__file__).resolve().parents[3]
HEAD = """\
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: NAME}
spec:
  selector: {containers: all}
  rules:
"""
RULE = "    - {id: ID, title: x, severity: low, event: EVENT, match: MATCH, action: ACTION}\n"


def rule(event: str, match: str, action: str = "deny", name: str = "one", more: str = "") -> str:
    """One rule in flow style; its column is 7."""
    text = RULE.replace("ID", name).replace("EVENT", event).replace("MATCH", match).replace("ACTION", action)
    return text.replace("}\n", f"{more}}}\n")


def policy(*rules: str, name: str = "p") -> bytes:
    """A document; the first rule stands in line 7."""
    return (HEAD.replace("NAME", name) + "".join(rules)).encode()


def wrong(*documents: bytes) -> list[str]:
    """What `policy check` refuses in a set that loads."""
    found = load_bytes({f"{n}.yaml": document for n, document in enumerate(documents)})
    return [str(problem) for problem in mistakes(found)]


def warned(document: bytes) -> list[str]:
    """What it warns of."""
    return [note.note for note in remarks(load_bytes({"0.yaml": document}))]


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
    """Helpers of the kernel are tasks of no container: unarmed, by construction."""
    (found,) = wrong(policy(rule("kernel.helper", "any")))
    assert found.startswith("0.yaml:7:7: rule one: would lock the node out: it would deny modprobe")
    assert wrong(policy(rule("kernel.helper", "{known: no}"))) == []


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


def test_a_name_that_this_node_lacks_is_warned_of() -> None:
    """Where one that it has is near: a slip of the pen. It may be meant for another kernel, so no more."""
    assert warned(policy(rule("sysctl.access", "{sysctl: kernel/hostnam, access: write}"))) == [
        "sysctl: 'kernel/hostnam' is not on this node; did you mean 'hostname'?"
    ]
    assert warned(policy(rule("file.open", "{path: 'proc:meminf', access: write}"))) == [
        "path: 'proc:meminf' is not on this node; did you mean 'meminfo'?"
    ]
    assert warned(policy(rule("sysctl.access", "{sysctl: [kernel/hostname, 'vm/*'], access: write}"))) == []


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
    assert len(VITAL) >= 8
    assert len(ORDINARY) > 2 * len(VITAL)


def test_the_command_refuses_and_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2 with the place on standard error; 0 with warnings on standard output."""
    file = tmp_path / "p.yaml"
    file.write_bytes(policy(rule("process.exec", "any")))
    assert main(["policy", "check", str(file)]) == 2
    assert f"{file}:7:7: rule one: would lock every container of the node out" in capsys.readouterr().err
    file.write_bytes(policy(rule("setns", "any")))
    assert main(["policy", "check", str(file)]) == 0
    assert f"{file}:7:7: warning: one: matches what containers do lawfully" in capsys.readouterr().out
