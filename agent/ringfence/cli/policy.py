# SPDX-License-Identifier: Apache-2.0
"""`ringfence policy`: check, explain and list policies, and print their schema. Needs neither root nor an
agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ringfence.cli.output import SEVERITY_COLOURS, colour, print_json, table
from ringfence.cli.parser import EXIT_CODES, Commands, Parser, add_command, add_output, add_socket
from ringfence.config import DEFAULT_FILE


def register(commands: Commands) -> None:
    """Add the command and its four parts."""
    parser = add_command(
        commands,
        "policy",
        run,
        help="check, explain and list policies",
        text="Work with policies. `check` and `explain` read files; `list` asks the running agent.",
        examples=(
            "ringfence policy check policies/\n"
            "ringfence policy explain --rule host-disk-mount policies/\n"
            "ringfence policy list\n"
            "ringfence policy schema > policy.schema.json"
        ),
    )
    parts = parser.add_subparsers(title="parts", metavar="PART", required=True, parser_class=Parser)
    check = add_command(
        parts,
        "check",
        check_files,
        help="find every mistake in policy files",
        text="Read policy files and say every mistake, with file, line and column. Nothing is loaded.",
        examples="ringfence policy check policies/\nringfence policy check -o json a.yaml b.yaml",
    )
    _add_files(check)
    add_output(check, "text", "json")
    explain = add_command(
        parts,
        "explain",
        explain_files,
        help="say in words what policies do",
        text="Say in words what each rule matches, does, and needs, and what it comes to on this node.",
        examples="ringfence policy explain policies/\nringfence policy explain -r core-pattern policies/",
    )
    explain.add_argument(
        "-r", "--rule", action="append", default=[], metavar="ID", help="only this; repeatable"
    )
    _add_files(explain)
    listing = add_command(
        parts,
        "list",
        list_loaded,
        help="list the rules in the kernel",
        text="List the rules that the running agent has in the kernel, and what carries each out.",
        examples="ringfence policy list\nringfence policy list -o json | jq -r '.[].rule'",
    )
    add_output(listing, "table", "json")
    add_socket(listing)
    add_command(
        parts,
        "schema",
        print_schema,
        help="print the JSON Schema of policies",
        text="Print the JSON Schema of policy files, for editors and for checks elsewhere.",
        examples="ringfence policy schema > policy.schema.json",
    )


def _add_files(parser: Parser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="PATH",
        help=f"files, directories; default: as in {DEFAULT_FILE}",
    )


def run(_options: Any) -> int:  # pragma: no cover (a part is required)
    """The parser asks for a part before it comes to this."""
    raise AssertionError(EXIT_CODES)


def _paths(options: Any) -> list[Path]:
    from ringfence.config import load

    return list(options.files or load().policies)


def check_files(options: Any) -> int:
    """All mistakes, or a summary."""
    from ringfence.errors import PolicyError
    from ringfence.policy import compile as compile_policies
    from ringfence.policy import load_policies
    from ringfence.policy.tiers import NodeTiers

    problems: list[Any] = []
    policies = rules = 0
    notes: list[str] = []
    try:
        found = load_policies(_paths(options))
        compiled = compile_policies(found, NodeTiers.usual(), "policy")
        policies, rules = len(found.policies), found.rules
        notes = [str(note) for note in getattr(compiled, "notes", ())]
    except PolicyError as error:
        if options.output == "text":
            raise
        problems = error.problems
    if options.output == "json":
        print_json(
            {
                "policies": policies,
                "rules": rules,
                "problems": [p._asdict() for p in problems],
                "notes": notes,
            }
        )
    else:
        for note in notes:
            print(f"{colour('note:', 'yellow')} {note}")
        print(f"{policies} policies with {rules} rules: no mistakes")
    return 2 if problems else 0


def explain_files(options: Any) -> int:
    """Every rule in words."""
    from ringfence.errors import Error
    from ringfence.policy import load_policies
    from ringfence.policy.explain import explain

    found = load_policies(_paths(options))
    known = {rule.id for policy in found.policies for rule in policy.rules}
    for word in options.rule:
        if word not in known:
            raise Error(
                f"no rule {word!r} in these files", hint="`ringfence policy explain` lists all of them"
            )
    print("\n".join(explain(found, frozenset(options.rule))))
    return 0


def list_loaded(options: Any) -> int:
    """The running agent's rules."""
    from ringfence.cli.client import request

    rules = request(options.socket, "policies")
    if options.output == "json":
        print_json(rules)
        return 0
    heads = ("RULE", "SEVERITY", "POLICY", "ASKED", "HERE", "BY", "PLACE")
    rows = [
        (
            r["rule"],
            r["severity"],
            r["policy"],
            r["asked"],
            r["action"],
            r["mechanism"],
            f"{r['file']}:{r['line']}",
        )
        for r in rules
    ]
    colours = {(n, 1): SEVERITY_COLOURS.get(row[1], "") for n, row in enumerate(rows)}
    print("\n".join(table(heads, rows, colours)))
    return 0


def print_schema(_options: Any) -> int:
    """The JSON Schema."""
    from ringfence.policy.schema import schema

    print_json(schema())
    return 0
