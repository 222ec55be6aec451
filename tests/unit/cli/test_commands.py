# SPDX-License-Identifier: Apache-2.0
"""The command line: help, two-line errors, exit codes, commands that need no agent."""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ringfence import __version__
from ringfence.bpf import privileges
from ringfence.cli.agent import _default
from ringfence.cli.commands import COMMANDS
from ringfence.cli.main import build_parser, main
from ringfence.cli.parser import EXIT_CODES
from ringfence.config import KEYS
from tests.support.waiting import busy, quickest

GOOD = """
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: test}
spec:
  selector: {containers: all}
  rules:
    - id: r1
      title: A title
      severity: low
      event: unshare
      match: {flags: [CLONE_NEWUSER]}
      action: deny
"""


def run(*words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user does."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RINGFENCE_")}
    return subprocess.run(
        [sys.executable, "-m", "ringfence", *words],
        capture_output=True, text=True, check=False, timeout=60, env={**clean, **(environment or {})},
    )  # fmt: skip


def test_help_is_fast_and_imports_no_large_module() -> None:
    """`--help` imports neither YAML nor rich nor structlog nor Prometheus nor libbpf, and no command."""
    script = (
        "import sys; from ringfence.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'yaml', 'structlog', 'prometheus_client', 'asyncio', 'rich'}\n"
        "heavy |= {'ringfence.bpf', 'ringfence.policy', 'ringfence.config', 'ringfence.cli.status'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )

    def seconds_of_help() -> float:
        began = time.monotonic()
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert ended.stderr.strip() == "[]"
        return time.monotonic() - began

    assert quickest(seconds_of_help, 1.0, tries=5) < 5


def test_the_help_is_that_of_the_whole_parser(capsys: pytest.CaptureFixture[str]) -> None:
    """The list of commands is printed without their modules, and lacks none."""
    assert main([]) == 0
    assert capsys.readouterr().out == build_parser().format_help()


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yields the parsers of all commands and subcommands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield part
                yield from parsers(part)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples_and_exit_codes(command: str) -> None:
    """The help of each command and subcommand ends with them."""
    for parser in parsers(build_parser(command)):
        text = parser.format_help()
        assert f"examples:\n  {' '.join(parser.prog.split()[:2])}" in text
        assert EXIT_CODES in text


@pytest.mark.parametrize("width", [80, 40])
def test_help_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it in 80 columns; in 40 what is not an example, an exit code, or one option of the usage."""
    monkeypatch.setenv("COLUMNS", str(width))
    whole = build_parser()
    for parser in (whole, *parsers(whole)):
        if width == 40:
            parser.epilog = None
        long = [line for line in parser.format_help().splitlines() if len(line) > width]
        whole_option = [line for line in long if line.lstrip()[:1] in "[-{" and width == 40]
        assert long == whole_option, parser.prog


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_of_each_command_takes_less_than_100_ms() -> None:
    """Processor time with the interpreter's own, of `ringfence --help`, too; the least of several runs."""

    def seconds(words: list[str]) -> float:
        began = _children_seconds()
        argv = [sys.executable, "-m", "ringfence", *words, "--help"]
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        return _children_seconds() - began

    commands = [parser.prog.split()[1:] for parser in parsers(build_parser())]
    assert len(commands) > len(COMMANDS)
    for words in [[], *commands]:
        limit = 0.1 * busy()
        assert quickest(functools.partial(seconds, words), limit) < limit, words


@pytest.mark.parametrize("words", [("nonsense",), ("status", "--nonsense"), ("top", "-i", "0"), ("policy",)])
def test_a_usage_error_prints_two_lines_and_exits_with_2(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines are an error and a hint."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    error = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert len(error) == 2
    assert error[0].startswith("ringfence: error: ")
    assert error[1].startswith("hint: ")


@pytest.mark.parametrize("words", [("status",), ("events",), ("top",), ("tree",), ("policy", "list")])
def test_without_an_agent_the_exit_code_is_6(words: tuple[str, ...], tmp_path: Path) -> None:
    """The message names the socket and what to do."""
    ended = run(*words, "--socket", str(tmp_path / "none.sock"))
    assert ended.returncode == 6
    assert ended.stdout == ""
    assert ended.stderr == (
        f"ringfence: error: no agent responds at {tmp_path}/none.sock: No such file or directory\n"
        "hint: start an agent with `ringfence agent`, or give its socket with --socket\n"
    )


def test_the_socket_may_come_from_the_environment(tmp_path: Path) -> None:
    """From the same variable that the agent uses."""
    ended = run("status", environment={"RINGFENCE_SOCKET": str(tmp_path / "there.sock")})
    assert f"{tmp_path}/there.sock" in ended.stderr


def test_a_misspelt_variable_is_an_error() -> None:
    """Otherwise another agent would be asked."""
    ended = run("status", environment={"RINGFENCE_SOKET": "/x/agent.sock", "RINGFENCE_MODE": "audit"})
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[0] == (
        "ringfence: error: RINGFENCE_SOKET: unknown variable; did you mean 'RINGFENCE_SOCKET'?"
    )


def test_a_bad_configuration_is_reported_without_a_traceback(tmp_path: Path) -> None:
    """Every error is on a line, then the hint; the exit code is 2."""
    file = tmp_path / "agent.yaml"
    file.write_text("mode: enforc\nhttpp: {}\n")
    ended = run("agent", "--check", "--config", str(file), "--pins", "never")
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert (
        lines[0] == f"ringfence: error: {file}:1:7: mode: 'enforc' is not one of 'audit', 'enforce', 'policy'"
    )
    assert lines[1].startswith(f"{file}:2:1: httpp: unknown key; did you mean 'http'?")
    assert lines[2] == "--pins: 'never' is not 'auto', 'off' or an absolute path"
    assert lines[3].startswith("hint: ")


@pytest.mark.parametrize("words", [("check",), ("check", "-o", "json"), ("explain",)])
@pytest.mark.parametrize("good", [False, True])
def test_control_characters_of_policy_files_do_not_reach_the_terminal(
    tmp_path: Path, words: tuple[str, ...], *, good: bool
) -> None:
    """Policies come from repositories: file names, titles and wrong values are printed escaped."""
    file = tmp_path / "\x1b]0;a\x07\u009bm\nringfence.yaml"
    text = GOOD.replace("A title", r'"A \e[2J\u202E title"')
    file.write_text(text if good else text.replace("low", '"\\e[2J"'))
    ended = run("policy", *words, str(tmp_path))
    assert ended.returncode == (0 if good else 2)
    shown = ended.stdout + ended.stderr
    assert all(line.isprintable() for line in shown.split("\n"))
    assert not any(line.startswith("ringfence.yaml") for line in shown.splitlines())
    assert (r"\x1b]0;a" in shown or r"\u001b]0;a" in shown) or (good and words[0] == "check")


def test_check_reads_configuration_and_policies(tmp_path: Path) -> None:
    """`agent --check` needs no root."""
    (tmp_path / "a.yaml").write_text(GOOD)
    ended = run("agent", "--check", "--policies", str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")
    (tmp_path / "b.yaml").write_text(GOOD)
    ended = run("agent", "--check", "--policies", str(tmp_path))
    assert ended.returncode == 2
    assert "already defined at" in ended.stderr


def test_policy_check_counts_rules_and_reports_errors(tmp_path: Path) -> None:
    """It exits with 0 and a summary, or with 2 and every error; the JSON has their locations."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text(GOOD.replace("deny", "dney").replace("severity: low", "severity: lo"))
    assert "1 policies with 1 rules: no errors" in run("policy", "check", str(good)).stdout
    ended = run("policy", "check", str(bad))
    assert ended.returncode == 2
    assert f"{bad}:10:17: " in ended.stderr
    assert f"{bad}:13:15: " in ended.stderr
    assert ended.stderr.splitlines()[-1] == "hint: docs/reference/policy-language.md explains every key"
    ended = run("policy", "check", "-o", "json", str(bad))
    assert ended.returncode == 2
    problems = json.loads(ended.stdout)["problems"]
    assert sorted((p["line"], p["column"]) for p in problems) == [(10, 17), (13, 15)]


def test_policy_check_requires_the_directory_of_probes(tmp_path: Path) -> None:
    """A typing error in its name would leave rules on probes unchecked."""
    good = tmp_path / "good.yaml"
    good.write_text(GOOD)
    ended = run("policy", "check", "--probes", str(tmp_path / "probse"), str(good))
    assert ended.returncode == 2
    assert "is not a directory" in ended.stderr


def test_policy_explain_describes_a_rule(tmp_path: Path) -> None:
    """An unknown rule is an error."""
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    assert "CLONE_NEWUSER" in run("policy", "explain", str(file)).stdout
    ended = run("policy", "explain", "--rule", "r2", str(file))
    assert ended.returncode == 1
    assert "no rule 'r2'" in ended.stderr


def test_policy_schema_is_json() -> None:
    """The schema names the version of the policy format."""
    schema = json.loads(run("policy", "schema").stdout)
    assert "ringfence.dev/v1" in json.dumps(schema)


def test_probe_reports_every_event_and_rule(tmp_path: Path) -> None:
    """The JSON has one of four effective actions for each event and rule; `unknown` if not permitted."""
    (tmp_path / "a.yaml").write_text(GOOD)
    ended = run("probe", "-o", "json", "--policies", str(tmp_path))
    report = json.loads(ended.stdout)
    actions = {event["here"] for event in report["events"]}
    assert actions == {"unknown"} if ended.returncode == 4 else actions <= {"deny", "kill", "see", "blind"}
    assert "file.open" in [event["event"] for event in report["events"]]
    assert [rule["rule"] for rule in report["rules"]] == ["r1"]
    assert ended.returncode in ((0,) if not report["missing"] else (3, 4))


def test_probe_does_not_call_absent_what_it_may_not_try(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without root, each row says that root is needed; none says that the kernel lacks something."""
    (tmp_path / "a.yaml").write_text(GOOD)
    monkeypatch.setattr(privileges, "held", frozenset)
    assert main(["probe", "-o", "json", "--policies", str(tmp_path)]) == 4
    report = json.loads(capsys.readouterr().out)
    rows = report["events"] + report["rules"]
    assert {(row["here"], row["by"], row["why"]) for row in rows} == {
        ("unknown", "", "needs root to find out")
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str) -> None:
    """The script is generated from the parser."""
    script = run("completion", shell).stdout
    for command in COMMANDS:
        assert command in script
    assert "containers-patterns" in script


def test_bash_accepts_its_completion() -> None:
    """The script is syntactically correct."""
    script = run("completion", "bash").stdout
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_version_as_text_and_json() -> None:
    """Both name the same version."""
    version = json.loads(run("version", "-o", "json").stdout)["ringfence"]
    assert run("version").stdout.startswith(f"ringfence {version} (Python 3.")


def test_no_colour_without_a_terminal() -> None:
    """Output into a pipe is plain text."""
    assert "\x1b" not in run("probe").stdout


def test_a_closed_pipe_is_silent() -> None:
    """`ringfence ... | head -1` leaves no traceback."""
    line = f"{sys.executable} -m ringfence policy schema | head -c 1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr == ""
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("policy check fi", {"file.yaml"}),
        ("agent --config fi", {"file.yaml"}),
        ("agent --mode ", {"audit", "enforce", "policy"}),
        ("agent --http-gzip ", {"yes", "no"}),
        ("probe new --directory ", {"directory"}),
    ],
)
def test_bash_completes_files_and_values(tmp_path: Path, words: str, expected: set[str]) -> None:
    """By the function that the script defines, as the shell calls it."""
    (tmp_path / "file.yaml").touch()
    (tmp_path / "directory").mkdir()
    script = (
        run("completion", "bash").stdout
        + f"""
COMP_WORDS=(ringfence {words.rpartition(" ")[0]} "{words.rpartition(" ")[2]}")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
set -- $(complete -p ringfence)
while [ "$1" != -F ]; do shift; done
"$2" ringfence "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_also_an_option(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As of most programs."""
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"ringfence {__version__}\n"


@pytest.mark.parametrize("words", [[], ["help"]])
def test_without_a_command_it_shows_the_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """All commands, and no error."""
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize(("word", "near"), [("statsu", "; did you mean 'status'?"), ("xyzzy", "")])
def test_an_unknown_command_is_a_usage_error(
    word: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a near one, if there is one."""
    with pytest.raises(SystemExit) as ended:
        main([word])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == f"ringfence: error: {word!r} is not a command{near}\nhint: see `ringfence --help`\n"


@pytest.mark.parametrize(
    ("words", "said", "command"),
    [
        ("agent --polices x", "unknown option '--polices'; did you mean '--policies'?", "ringfence agent"),
        ("status --sokcet=x", "unknown option '--sokcet=x'; did you mean '--socket'?", "ringfence status"),
        (
            "policy check --evnts",
            "unknown option '--evnts'; did you mean '--events'?",
            "ringfence policy check",
        ),
        ("status -x", "unknown option '-x'", "ringfence status"),
        ("status more", "unknown argument 'more'", "ringfence status"),
        ("-x", "unknown option '-x'", "ringfence"),
    ],
)
def test_an_unknown_option_is_reported_by_its_command(
    words: str, said: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a similar one, and the help to read."""
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"ringfence: error: {said}\nhint: see `{command} --help`\n"


def test_no_option_shows_two_defaults() -> None:
    """The help of a key must not name a default beside the one that is added to it."""
    texts = {key.flag: key.help + _default(key) for key in KEYS}
    assert not [flag for flag, text in texts.items() if text.count("(default:") > 1]
