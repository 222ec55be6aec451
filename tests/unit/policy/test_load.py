# SPDX-License-Identifier: Apache-2.0
"""What the loader accepts and refuses, and its messages."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.abi import Action, EventKind
from ringfence.errors import PolicyError, Problem
from ringfence.policy import load_bytes, load_policies, reader
from ringfence.policy.load import RESERVED
from ringfence.policy.operand import Bits, Texts, Values, fnv1a
from ringfence.response.builtin import BuiltinRules
from ringfence.response.detectors import DETECTORS
from tests.unit.policy.documents import load, policy, rule, text

EXAMPLES = 5000 if os.environ.get("RINGFENCE_FUZZ") else 300


def refused(*documents: dict[str, Any]) -> list[Problem]:
    """Returns the errors in documents."""
    with pytest.raises(PolicyError) as caught:
        load(*documents)
    return caught.value.problems


def test_a_good_policy_becomes_a_model() -> None:
    """Names become kinds and numbers; the location of the rule is kept."""
    found = load(policy(rule(exceptions=[{"exe": "/usr/bin/x", "why": "trusted"}])))
    (one,) = found.policies[0].rules
    assert one.events == (EventKind.SYS_UNSHARE,)
    assert one.action is Action.DENY
    assert one.match[EventKind.SYS_UNSHARE][0].alternatives == ((Bits(0, any=0x10000000),),)
    exception = one.exceptions[0][EventKind.SYS_UNSHARE][0].alternatives
    assert exception == ((Values(5, 2**64 - 1, frozenset({fnv1a(b"/usr/bin/x")})),),)
    assert (one.place.file, one.place.line) == ("trial.yaml", 10)


def test_all_errors_of_all_files_are_reported_at_once() -> None:
    """Not only the first one."""
    good = text(policy(rule())).decode()
    bad = good.replace("deny", "den").replace("high", "hihg").replace("CLONE_NEWUSER", "CLONE_NEWUSR")
    with pytest.raises(PolicyError) as caught:
        load_bytes({"a.yaml": bad.encode(), "b.yaml": b"kind: [", "c.yaml": b"\xff\xfe"})
    places = [(p.file, p.where) for p in caught.value.problems]
    assert places[:2] == [("b.yaml", ""), ("c.yaml", "")]
    assert {where for file, where in places if file == "a.yaml"} == {
        "spec.rules[0].action",
        "spec.rules[0].severity",
        "spec.rules[0].match.flags",
    }


def test_an_error_has_its_location_and_a_suggestion() -> None:
    """The format is file:line:column: key: got, expected."""
    data = b"""apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: shell}
spec:
  selector: {containers: all}
  rules:
    - id: a
      title: A
      severity: high
      event: unshare
      match: {flags: [CLONE_NEWUSER]}
      action: kil
"""
    with pytest.raises(PolicyError) as caught:
        load_bytes({"policies/shell.yaml": data})
    assert str(caught.value) == (
        "policies/shell.yaml:12:15: spec.rules[0].action: 'kil' is not one of 'alert', 'kill', 'deny'; "
        "did you mean 'kill'?"
    )


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        ({"sevrity": "high"}, "spec.rules[0]", "unknown key 'sevrity'; did you mean 'severity'?"),
        ({"title": None}, "spec.rules[0]", "'title' is missing"),
        ({"match": {}}, "spec.rules[0].match", "it would match everything"),
        ({"match": None}, "spec.rules[0]", "'match' is missing"),
        ({"match": "all"}, "spec.rules[0].match", "the word `any`"),
        ({"match": {"flags": []}}, "spec.rules[0].match.flags", "can never match"),
        ({"match": {"flags": {}}}, "spec.rules[0].match.flags", "would match everything"),
        ({"match": {"flags": {"some": ["CLONE_NEWNS"]}}}, "spec.rules[0].match.flags", "is not allowed here"),
        ({"match": {"flag": ["CLONE_NEWNS"]}}, "spec.rules[0].match", "did you mean 'flags'?"),
        ({"match": {"flags": ["NEWUSER"]}}, "spec.rules[0].match.flags", "did you mean 'CLONE_NEWUSER'?"),
        ({"match": {"flags": {"all": [2], "none": [2]}}}, "spec.rules[0].match.flags", "never match"),
        ({"match": {"task": ["rot"]}}, "spec.rules[0].match.task", "did you mean 'root'?"),
        ({"match": {"exe": ["nginx"]}}, "spec.rules[0].match.exe", "must begin with `/`"),
        ({"match": {"exe": ["/usr/bin/*"]}}, "spec.rules[0].match.exe", "patterns are not allowed"),
        ({"event": "unshar"}, "spec.rules[0].event", "did you mean 'unshare'?"),
        ({"event": ["unshare", "unshare"]}, "spec.rules[0].event", "is given twice"),
        ({"event": []}, "spec.rules[0].event", "is an empty list"),
        ({"event": ["unshare", "mount"], "match": {"fstype": "x"}}, "spec.rules[0].match", "unknown key"),
        ({"id": "Bad Id"}, "spec.rules[0].id", "is not an id"),
        ({"title": "two\nlines"}, "spec.rules[0].title", "one line"),
        ({"attack": ["1611"]}, "spec.rules[0].attack[0]", "not an ATT&CK technique"),
        ({"exceptions": [{"why": "no reason"}]}, "spec.rules[0].exceptions[0]", "is empty"),
        ({"exceptions": "any"}, "spec.rules[0].exceptions", "must be a list"),
        ({"exceptions": ["any"]}, "spec.rules[0].exceptions[0]", "must be a mapping"),
        ({"require": "deny", "action": "kill"}, "spec.rules[0].require", "only allowed with `action"),
        ({"require": "deny", "otherwise": "alert"}, "spec.rules[0].otherwise", "not allowed with"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_refused_with_the_reason(change: dict[str, Any], where: str, words: str) -> None:
    """Each key has its own errors."""
    problems = refused(policy(rule(**change)))
    assert any(p.where.startswith(where) and words in p.message for p in problems), problems


@pytest.mark.parametrize(
    ("event", "match", "words"),
    [
        ("file.open", {"path": "procfs:sys/x"}, "did you mean 'proc'?"),
        ("file.open", {"path": "etc/passwd"}, "must be filesystem:path"),
        ("file.open", {"path": "proc:a/../b"}, "not a plain path"),
        ("file.open", {"path": "proc:*/mem"}, "patterns are"),
        ("file.open", {"path": "proc:sys/"}, "ends with `/`"),
        ("file.open", {"path": "proc:" + "x" * 130}, "is longer than 127"),
        ("file.open", {"path": "/**"}, "would match every file"),
        ("file.open", {"path": {"not": ["proc:x"]}}, "cannot be negated"),
        ("device.access", {"device": "c 1"}, "is not a device"),
        ("device.access", {"device": "c *:3"}, "is not a device"),
        ("device.access", {"device": "c 5000:3"}, "the maximum is 4095 for majors"),
        ("network.connect", {"address": "10.0.0.1/8"}, "has host bits set"),
        ("network.connect", {"address": "metadata"}, "is not an address"),
        ("network.connect", {"port": "0-65535"}, "is a range of 65536 values"),
        ("network.connect", {"port": 65536}, "is not between 0 and 65535"),
        ("network.connect", {"port": "http"}, "is not a number"),
        ("unix.connect", {"socket": "docker.sock"}, "is not a socket"),
        ("unix.connect", {"socket": "@"}, "is not a socket"),
        ("mount", {"fstype": "e*t4"}, "`*` is only allowed at the end"),
        ("setns", {"target": "hst"}, "did you mean 'host'?"),
    ],
)
def test_a_wrong_value_is_refused_with_the_reason(event: str, match: dict[str, Any], words: str) -> None:
    """Each kind of operand has its own errors."""
    assert any(words in p.message for p in refused(policy(rule(event=event, match=match))))


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ({}, "selects no container"),
        ({"containers": "al"}, "did you mean 'all'?"),
        ({"except": {"names": "x"}}, "selects no container"),
        ({"containers": "all", "names": "x"}, "cannot be combined with names"),
        ({"containers": "all", "except": {}}, "it would exclude every container"),
        ({"name": "x"}, "did you mean 'names'?"),
        ({"names": []}, "is an empty list"),
        ({"labels": {}}, "must be a mapping"),
        ({"privileged": "yes"}, "must be true or false"),
        ({"containers": "all", "unidentified": "aply"}, "did you mean 'apply'?"),
    ],
)
def test_a_wrong_selector_is_refused(selector: dict[str, Any], words: str) -> None:
    """Selecting nothing, or everything by accident, is an error."""
    document = policy(rule())
    document["spec"]["selector"] = selector
    assert any(words in p.message for p in refused(document))


def test_ids_and_names_are_unique_across_files() -> None:
    """The error at the second one has the location of the first."""
    data = text(policy(rule()))
    with pytest.raises(PolicyError) as caught:
        load_bytes({"a.yaml": data, "b.yaml": data})
    messages = [str(p) for p in caught.value.problems]
    assert any(
        "the policy 'trial' is already defined at a.yaml:1" in m and m.startswith("b.yaml:") for m in messages
    )
    assert any("the rule 'userns' is already defined at a.yaml:10" in m for m in messages)


def test_the_ids_of_the_agents_own_rules_are_refused() -> None:
    """Alerts and metrics of a user's rule would be taken for the agent's."""
    assert {rule.rule_id for rule in BuiltinRules("deny", "lsm").all} | DETECTORS.keys() == RESERVED
    for name in sorted(RESERVED):
        (problem,) = refused(policy(rule(id=name)))
        assert "choose another id" in problem.message


def test_a_file_may_hold_several_documents() -> None:
    """Empty documents between them are ignored."""
    one, two = text(policy(rule())), text(policy(rule(id="b"), name="second"))
    found = load_bytes({"a.yaml": one + b"---\n---\n" + two})
    assert [p.name for p in found.policies] == ["trial", "second"]


def test_a_rule_on_several_events_has_their_common_operands() -> None:
    """A list of events allows operands that all of them have."""
    (one,) = load(policy(rule(event=["unshare", "clone"]))).policies[0].rules
    assert set(one.match) == {EventKind.SYS_UNSHARE, EventKind.SYS_CLONE}


def test_object_paths_are_grouped_by_filesystem_and_shape() -> None:
    """One alternative for the exact paths of a filesystem, one for each name below a directory."""
    match = {"path": ["proc:sys/kernel/x", "proc:sys/y", "cgroup:**/release_agent", "sysfs:**"]}
    (one,) = load(policy(rule(event="file.open", match=match))).policies[0].rules
    alternatives = one.match[EventKind.FILE_OPEN][0].alternatives
    magic = Values(0, 2**64 - 1, frozenset({0x9FA0}))
    assert (magic, Texts(frozenset({b"/sys/kernel/x", b"/sys/y"}), frozenset())) in alternatives
    cgroups = Values(0, 2**64 - 1, frozenset({0x27E0EB, 0x63677270}))
    assert (cgroups, Values(3, 2**64 - 1, frozenset({fnv1a(b"release_agent")}))) in alternatives
    assert (Values(0, 2**64 - 1, frozenset({0x62656572})),) in alternatives
    assert len(alternatives) == 3


def test_yaml_1_1_booleans_are_strings() -> None:
    """`no` and `on` are names here; only true and false are booleans."""
    found = load_bytes({"a": text(policy(rule(), names="x")).replace(b"names: x", b"names: [no, on, '1']")})
    assert found.policies[0].selector.only is not None
    assert found.policies[0].selector.only.names == ("no", "on", "1")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "contains no document"),
        (b"# only a comment\n", "contains no document"),
        # The limit of this reader, or that of libyaml from 0.2.6 on.
        (b"[" * 5000, "level"),
        (b"a: &x 1\nb: *x\n", "anchors and aliases"),
        (b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "anchors and aliases"),
        (b"{a: 1", "is not YAML"),
        (b"a: 1\n\tb: 2\n", "is not YAML"),
        (b"a: \x00\n", "is not YAML"),
        (b"? [a]\n: 1\n", "a key must be a single word"),
        (b"caf\xe9: 1\n", "is not UTF-8 (byte 0xe9)"),
        (b"- just\n- a list\n", "must be a mapping"),
        (b"!!python/object/apply:os.system ['true']\n", "must be a mapping"),
        (b"x: " + b"y" * (4 << 20), "is larger than 4 MiB"),
        (b"[" + b"x," * reader.MAX_NODES + b"x]", "values in one file"),
    ],
    ids=range(14),
)
def test_a_file_that_is_not_a_policy_is_refused_and_costs_little(data: bytes, words: str) -> None:
    """Empty, nested, truncated, binary, hostile: one clear error each."""
    with pytest.raises(PolicyError) as caught:
        load_bytes({"x.yaml": data})
    assert any(words in p.message for p in caught.value.problems), caught.value.problems


@pytest.mark.parametrize("name", ["nsen*", "bin/nsenter", "ns?nter", "[a]"])
def test_a_name_is_one_plain_name(name: str) -> None:
    """A pattern or a path would match no file, without a word."""
    with pytest.raises(PolicyError) as caught:
        load(policy(rule(event="file.open", match={"name": name}, action="deny")))
    assert "plain name" in str(caught.value)


@pytest.mark.parametrize("exe", ["/a/../b", "/a/./b", "/a//b", "//", "/a/", "a", "/a*", "/" + "a" * 5000])
def test_a_program_is_named_by_a_plain_absolute_path(exe: str) -> None:
    """Any other text would be the path of no program."""
    with pytest.raises(PolicyError):
        load(policy(rule(match={"exe": exe})))


@pytest.mark.parametrize("event", ["kernel.helper", "host.map"])
def test_an_event_of_no_container_requires_all_containers(event: str) -> None:
    """A policy for selected containers would never apply to it."""
    one = rule(event=event, match="any", action="alert")
    assert load_bytes({"x.yaml": text(policy(one))}).rules == 1
    with pytest.raises(PolicyError, match="does not belong to a container: the selector must be"):
        load_bytes({"x.yaml": text(policy(one, names="web-*"))})


@pytest.mark.parametrize("kept", range(1, 20))
def test_a_partly_written_file_is_refused(kept: int) -> None:
    """At any point before the last line."""
    lines = text(policy(rule(attack=None))).splitlines(keepends=True)
    whole = b"".join(lines)
    cut = whole[: len(whole) * kept // 20].rsplit(b"\n", 1)[0]
    with pytest.raises(PolicyError):
        load_bytes({"x.yaml": cut})


def test_a_directory_means_its_yaml_files(tmp_path: Path) -> None:
    """Not hidden files, subdirectories or other files."""
    (tmp_path / "b.yaml").write_bytes(text(policy(rule(id="b"), name="b")))
    (tmp_path / "a.yml").write_bytes(text(policy(rule(id="a"), name="a")))
    (tmp_path / ".hidden.yaml").write_bytes(b"{")
    (tmp_path / "notes.txt").write_bytes(b"{")
    (tmp_path / "optional").mkdir()
    (tmp_path / "optional" / "c.yaml").write_bytes(b"{")
    assert [p.name for p in load_policies([tmp_path]).policies] == ["a", "b"]


def test_unreadable_paths_are_reported(tmp_path: Path) -> None:
    """A missing file, an empty directory, and a FIFO, which must not block."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolicyError) as caught:
        load_policies([tmp_path / "missing.yaml", tmp_path / "empty", tmp_path / "pipe.yaml"])
    messages = {Path(p.file).name: p.message for p in caught.value.problems}
    assert "No such file" in messages["missing.yaml"]
    assert "contains no policy" in messages["empty"]
    assert messages["pipe.yaml"] == "is not a regular file"


def test_the_number_of_reported_errors_is_limited() -> None:
    """A hostile file does not fill the log."""
    problems = refused(policy(*(rule(id=f"r{n}", action="x") for n in range(1000))))
    assert len(problems) == 201
    assert "800 more errors" in problems[-1].message


def _try(data: bytes) -> None:
    with contextlib.suppress(PolicyError):
        load_bytes({"x.yaml": data})


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=400))
def test_fuzz_any_bytes_load_or_are_refused(data: bytes) -> None:
    """No exception other than PolicyError is raised."""
    _try(data)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_fuzz_a_broken_policy_loads_or_is_refused(data: st.DataObject) -> None:
    """A valid document with a part removed or replaced."""
    good = bytearray(
        text(policy(rule(exceptions=[{"exe": "/x"}], match={"flags": {"all": ["CLONE_NEWNS"]}})))
    )
    begin = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(begin, min(len(good), begin + 30)))
    good[begin:end] = data.draw(st.binary(max_size=12))
    _try(bytes(good))


_JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=6), some, max_size=3),
    max_leaves=8,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from([*rule(), "exceptions", "require", "otherwise"]), _JSONISH)
def test_fuzz_a_rule_with_any_value_loads_or_is_refused(key: str, value: Any) -> None:
    """Any value for any key."""
    _try(text(policy({**rule(), key: value})))


def test_the_number_of_files_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one too many is named; those before it are read."""
    monkeypatch.setattr(reader, "MAX_FILES", 2)
    files = [tmp_path / f"{name}.yaml" for name in "abc"]
    assert reader.expand(files[:2]) == (files[:2], [])
    assert reader.expand(files) == (files[:2], [Problem(str(files[2]), 0, 0, "", "more than 2 files")])
