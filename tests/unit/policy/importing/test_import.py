# SPDX-License-Identifier: Apache-2.0
"""`ringfence policy import`: output, remarks, exit code, and files that are none of the three kinds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ringfence.cli.main import main
from ringfence.policy.importing import words
from ringfence.policy.importing.written import MAX_RULES
from ringfence.policy.vocabulary import event_words
from tests.unit.policy.importing.translating import translated

RULE = "- rule: r\n  condition: evt.type = mount and container\n"
DENY_ALL = (
    "kind: TracingPolicy\nmetadata: {name: x}\nspec:\n  kprobes:\n"
    "  - {call: sys_execve, selectors: [{matchActions: [{action: Sigkill}]}]}\n"
    "  - {call: sys_reboot, selectors: [{matchActions: [{action: Sigkill}]}]}\n"
)


def run(*arguments: object) -> int:
    """Runs the command."""
    return main(["policy", "import", *map(str, arguments)])


def test_the_output_passes_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Policies on stdout, remarks with file, line and column on stderr, and exit code 0."""
    file = tmp_path / "rules.yaml"
    file.write_text(RULE + "- rule: s\n  condition: evt.type = unlink\n")
    assert run(file) == 0
    printed = capsys.readouterr()
    assert f"{file}:3:3: [1] (s): not translated: Ringfence has no event for 'unlink'" in printed.err
    assert "1 rules written, 1 remarks" in printed.err
    (tmp_path / "out.yaml").write_text(printed.out)
    assert main(["policy", "check", str(tmp_path / "out.yaml")]) == 0


@pytest.mark.parametrize(
    "text",
    [
        "kind: Deployment\n",
        "text\n",
        "- text\n",
        "kind: List\nitems: [{kind: ConfigMap}]\n",
        "kind: [a]\n",
        "{}\n",
    ],
)
def test_nothing_translated_is_a_failure(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is on stdout, and stderr says why in one line each."""
    file = tmp_path / "a.yaml"
    file.write_text(text)
    assert run(file) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    *remarks, last = printed.err.splitlines()
    assert len(remarks) > 0
    assert all(one.startswith(f"{file}:") and "not translated" in one for one in remarks)
    assert last.startswith("0 rules written")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"a: [b\n", "is not YAML"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"a: &x [1]\nb: *x\n", "anchors and aliases"),
        (b"- " * 5000, "levels deep"),
        (b"# " + b"x" * (5 << 20), "larger than 4 MiB"),
        (b"", "contains no document"),
    ],
)
def test_a_file_that_is_no_yaml_is_refused(
    data: bytes, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2 and one line; a good file beside it is not translated, either."""
    (tmp_path / "good.yaml").write_text(RULE)
    (tmp_path / "bad.yaml").write_bytes(data)
    assert run(tmp_path / "good.yaml", tmp_path / "bad.yaml") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    error, hint = printed.err.splitlines()
    assert why in error
    assert hint.startswith("hint: ")


def test_terminal_controls_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text of the files reaches the terminal as text."""
    file = tmp_path / "a.yaml"
    file.write_text('- rule: "a\\e[31m\\nb"\n  condition: evt.type = mount and "\\e[2J"\n- rule: "\\e]0;x"\n'
                    "  condition: evt.type = mount and container\n")  # fmt: skip
    assert run(file) == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err


def test_a_rule_that_the_check_refuses_is_named(tmp_path: Path) -> None:
    """It would stop every program of the node; the others are written."""
    got = translated(tmp_path, DENY_ALL)
    assert [one.id for one in got.rules] == ["tetragon-x-2"]
    assert [one.events[0].label for one in got.rules] == ["reboot"]
    assert got.says("spec.kprobes[0].selectors[0]", "not translated", "would stop every container")


def test_objects_of_a_list_and_equal_names(tmp_path: Path) -> None:
    """`kubectl get -o yaml` prints a list; names stay unique."""
    one = "{kind: TracingPolicyNamespaced, metadata: {name: a, namespace: %s}, spec: {kprobes: [%s]}}"
    both = "".join(f"- {one % (namespace, '{call: sys_mount}')}\n" for namespace in ("x", "y"))
    got = translated(tmp_path, f"kind: List\nitems:\n{both}", RULE)
    assert [policy.name for policy in got.policies] == ["tetragon-a", "tetragon-a-2", "falco-r"]


def test_many_rules_are_bounded(tmp_path: Path) -> None:
    """The first ones are written, and each other one is named, in seconds."""
    begun = time.monotonic()
    got = translated(tmp_path, "".join(RULE.replace("r\n", f"r{n}\n", 1) for n in range(MAX_RULES + 200)))
    assert len(got.rules) == MAX_RULES
    assert sum("rules in one import" in one for one in got.remarks) == 200
    assert time.monotonic() - begun < 60


def test_every_event_and_argument_of_the_tables_exists() -> None:
    """A misspelt name would lose rules silently."""
    for name in words.calls():
        call = words.call_of(name)
        assert call is not None
        found = event_words(call.event)
        assert found is not None, name
        assert all(found[1].operand(key) for key in call.match)
        for number in range(6):
            if one := words.argument(name, index=number):
                assert found[1].operand(one.operand), (name, one)


@pytest.mark.parametrize(
    ("path", "how", "wanted"),
    [
        ("/etc/passwd", "is", ["/etc/passwd"]),
        ("/etc", "below", ["/etc/**"]),
        ("/etc", "begins", ["/etc**"]),
        ("/proc/sys/kernel", "below", ["proc:sys/kernel/**"]),
        ("/sys/fs/cgroup/x", "is", ["cgroup:x"]),
        ("/sys/fs", "below", ["sysfs:fs/**", "cgroup:**", "bpf:**"]),
        ("/pro", "begins", ["/pro**", "proc:**"]),
        ("/name", "ends", ["**/name"]),
        ("/", "below", []),
        ("/dev/mem", "is", []),
        ("/d", "begins", []),
        ("/proc/1/environ", "is", []),
        (".conf", "ends", []),
        ("etc", "is", []),
        ("/a*", "is", []),
    ],
)
def test_paths(path: str, how: str, wanted: list[str]) -> None:
    """A path of a container is one of a filesystem; what has none is refused with a reason."""
    found, why = words.translate_path(path, how)
    assert found == wanted
    assert bool(why) == (not wanted)
