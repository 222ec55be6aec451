# SPDX-License-Identifier: Apache-2.0
"""Each example of the documentation is taken by what it is for: YAML by its reader, commands by the parser.

A page with an example of a new kind fails until it is said here who reads it.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from ringfence.cli.main import build_parser
from ringfence.config import load as load_config
from ringfence.policy import NodeTiers, compile_policies, load_bytes
from ringfence.policy.importing import import_policies
from ringfence.policy.review import refuse
from ringfence.probes.read import read_directory, read_file
from ringfence.probes.skeleton import skeleton

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "policies" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
HEAD = "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: example}\nspec:\n"
RULE = "  rules: [{id: r, title: t, severity: low, event: reboot, match: any, action: alert}]\n"
PROBES = read_directory(ROOT / "examples" / "probes").words()


def check_policies(text: str, directory: Path) -> None:
    """As `ringfence policy check` does. Probes are the examples, and what `ringfence probe new` writes."""
    known = dict(PROBES)
    for name in set(re.findall(r"\bprobe\.([a-z0-9-]+)", text)) - {one.split(".")[1] for one in PROBES}:
        for end, source in skeleton(name).items():
            (directory / f"{name}{end}").write_text(source)
        known |= read_directory(directory).words()
    found = load_bytes({"example.yaml": text.encode()}, known)
    compile_policies(found, NodeTiers.usual())
    refuse(found)


def check_rule(text: str, directory: Path) -> None:
    """In a policy for all containers."""
    rules = textwrap.indent(text, "    ")
    check_policies(f"{HEAD}  selector: {{containers: all}}\n  rules:\n{rules}", directory)


def check_exceptions(text: str, directory: Path) -> None:
    """In a rule about connections."""
    rule = "- {id: r, title: t, severity: low, event: network.connect, match: any, action: alert}"
    check_rule(yaml.safe_dump([yaml.safe_load(rule)[0] | yaml.safe_load(text)]), directory)


def check_import(text: str, directory: Path) -> None:
    """As `ringfence policy import` translates it; the page has the remarks."""
    (directory / "foreign.yaml").write_text(text)
    found = import_policies([directory / "foreign.yaml"])
    assert found.rules > 0
    check_policies(found.policies, directory)


def check_selector(text: str, directory: Path) -> None:
    """In a policy with a rule."""
    check_policies(HEAD + textwrap.indent(text, "  ") + RULE, directory)


def check_probe(text: str, directory: Path) -> None:
    """As `ringfence probe check` reads it, before it compiles."""
    name = yaml.safe_load(text)["metadata"]["name"]
    (directory / f"{name}.c").write_text("struct event { int x; };\n")
    (directory / f"{name}.yaml").write_text(text)
    read_file(directory / f"{name}.yaml")


def check_configuration(text: str, directory: Path) -> None:
    """As `ringfence agent --check` reads it."""
    (directory / "agent.yaml").write_text(text)
    load_config(directory / "agent.yaml", {})


def check_alertmanager(text: str, _directory: Path) -> None:
    """Whole, with its receivers; tests/prometheus/test_routes.py runs it."""
    assert set(yaml.safe_load(text)) == {"route", "inhibit_rules", "receivers"}


READERS: dict[str, Callable[[str, Path], None]] = {
    "apiVersion: ringfence.dev/v1\nkind: Policy": check_policies,
    "apiVersion: ringfence.dev/v1\nkind: Probe": check_probe,
    "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy": check_import,
    "apiVersion: security.kubearmor.com/v1\nkind: KubeArmor": check_import,
    "- list:": check_import,
    "- id:": check_rule,
    "exceptions:": check_exceptions,
    "selector:": check_selector,
    "route:": check_alertmanager,
    **{
        f"{section}:": check_configuration
        for section in ("alerts", "audit", "redact", "probes", "page", "host_files")
    },
}


def _examples() -> Iterator[object]:
    for page in PAGES:
        for found in re.finditer(r"^```ya?ml\n(.*?)^```", page.read_text(), re.M | re.S):
            line = page.read_text()[: found.start()].count("\n") + 2
            yield pytest.param(found[1], id=f"{page.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize("text", list(_examples()))
def test_an_example_in_yaml_is_taken(text: str, tmp_path: Path) -> None:
    """By whom it is for, without a mistake."""
    (reader,) = [reader for begin, reader in READERS.items() if text.startswith(begin)]
    reader(text, tmp_path)


def _apart(line: str) -> Iterator[list[str]]:
    """This project's commands in a line of a shell."""
    lexer = shlex.shlex(line.removesuffix("..."), posix=True, punctuation_chars=";|>&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(";|>&"):
            if words[:1] == ["ringfence"]:
                yield words
            words = []
        else:
            words.append(word)


def _commands() -> Iterator[object]:
    """Lines of blocks, and whole commands in the text; the page on the command line has headings as well."""
    for page in PAGES:
        whole_lines = re.sub(r" \\\n +", " ", page.read_text())  # a command may go on in the next line
        for number, line in enumerate(whole_lines.splitlines(), 1):
            shown = re.findall(r"^ {2,4}(?:\S*/)?(ringfence (?!.* {4}).*)$", re.sub(r"\s{2,}#.*", "", line))
            if not line.startswith("## "):
                shown += re.findall(r"`(ringfence [^`]*)`", line)
            for whole in shown:
                for words in _apart(whole):
                    where = f"{page.relative_to(ROOT)}:{number}: {' '.join(words)}"
                    yield pytest.param(words[1:], id=where)


#: what a sentence leaves out when it only names a command
LEFT_OUT = re.compile(r"the following arguments are required|--learn: expected one argument")


@pytest.mark.parametrize("words", list(_commands()))
def test_a_command_is_one_of_the_program(words: list[str]) -> None:
    """With the parts and flags that are shown."""
    if words[0] == "COMMAND":
        return
    said = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(said):
        build_parser().parse_args(words)
    assert not said.getvalue() or LEFT_OUT.search(said.getvalue()), said.getvalue()


def test_there_are_examples_of_every_kind() -> None:
    """Or the tests above test nothing."""
    texts = [
        found[1]
        for page in PAGES
        for found in re.finditer(r"^```ya?ml\n(.*?)^```", page.read_text(), re.M | re.S)
    ]
    assert all(any(text.startswith(begin) for text in texts) for begin in READERS)
    assert len(list(_commands())) > 40
