# SPDX-License-Identifier: Apache-2.0
"""`ringfence policy`: checks, explains, lists and tests policies, and prints their schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ringfence.cli.output import SEVERITY_COLOURS, colour, print_document, print_json, room, table, visible
from ringfence.cli.parser import DOCUMENTS, Commands, Parser, add_command, add_output, add_socket
from ringfence.cli.policy_test import register as register_test
from ringfence.places import DEFAULT_FILE


def register(commands: Commands) -> None:
    """Add the command and its subcommands."""
    parser = add_command(
        commands,
        "policy",
        check_files,  # never called: a subcommand is required
        text="Work with policies. `check` and `explain` read files, `list` queries the running agent,\n"
        "`test` runs attacks in temporary containers.",
        examples=(
            "ringfence policy check policies/\n"
            "ringfence policy explain --rule mount-call policies/\n"
            "ringfence policy list\n"
            "ringfence policy schema > policy.schema.json"
        ),
    )
    parts = parser.add_subparsers(title="subcommands", metavar="COMMAND", required=True, parser_class=Parser)
    _register_reading(parts)
    _register_showing(parts)


def _register_reading(parts: Commands) -> None:
    """Adds the subcommands about policy files and loaded rules."""
    _register_offline(parts)
    listing = add_command(
        parts,
        "list",
        list_loaded,
        help="list the loaded rules",
        text="List the rules that the running agent has loaded, with the mechanism that enforces each.\n"
        "`attack-layer` shows the techniques of MITRE ATT&CK in its Navigator, by what the node does.",
        examples=(
            "ringfence policy list\n"
            "ringfence policy list -o json | jq -r '.[].rule'\n"
            "ringfence policy list -o attack-layer > layer.json"
        ),
    )
    add_output(listing, "attack-layer")
    add_socket(listing)
    register_test(parts)


def _register_offline(parts: Commands) -> None:
    """Adds the subcommands that need no agent."""
    check = add_command(
        parts,
        "check",
        check_files,
        help="validate policy files",
        text="Report every error in policy files, with file, line and column. Nothing is loaded.\n"
        "--events also lists all events with the rules on each, or the reason why there are none.",
        examples=(
            "ringfence policy check policies/\n"
            "ringfence policy check -o json a.yaml b.yaml\n"
            "ringfence policy check --events policies/"
        ),
    )
    check.add_argument(
        "--events", action="store_true", help="fail if an event has neither a rule nor a written reason"
    )
    _add_files(check)
    add_output(check)
    explain = add_command(
        parts,
        "explain",
        explain_files,
        help="explain policies in plain words",
        text="Explain what each rule matches, its action, and the mechanism that enforces it on this node.",
        examples="ringfence policy explain policies/\nringfence policy explain -r sysctl-helper policies/",
    )
    explain.add_argument(
        "-r", "--rule", action="append", default=[], metavar="ID", help="explain only this rule; repeatable"
    )
    _add_files(explain)
    _register_import(parts)


def _register_import(parts: Commands) -> None:
    importing = add_command(
        parts,
        "import",
        import_files,
        help="translate policies of Falco, Tetragon and KubeArmor",
        text="Translate Falco rules, Tetragon tracing policies and KubeArmor policies. Prints policies, and\n"
        "on standard error each thing that does not translate. Fails if nothing translates.",
        examples=(
            "ringfence policy import rules.yaml > imported.yaml\n"
            "ringfence policy import falco_rules.yaml falco_rules.local.yaml"
        ),
    )
    importing.add_argument(
        "files", nargs="+", type=Path, metavar="PATH", help="files of the other tool, or directories of them"
    )


def _register_showing(parts: Commands) -> None:
    """Adds the subcommands that need no policy file."""
    add_command(
        parts,
        "schema",
        print_schema,
        help="print the JSON Schema of policies",
        text="Print the JSON Schema of policy files, for editors and external validation.",
        examples="ringfence policy schema > policy.schema.json",
    )


def _add_files(parser: Parser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="PATH",
        help=f"policy files or directories (default: those of {DEFAULT_FILE})",
    )
    parser.add_argument(
        "--probes",
        type=Path,
        metavar="DIR",
        help="directory of custom probes that rules refer to (default: the agent's)",
    )


def _paths(options: Any) -> list[Path]:
    from ringfence.config import load

    return list(options.files or load().policies)


def _probes(options: Any) -> Any:
    """Returns the vocabulary of the custom probes in --probes, else of the agent's."""
    from ringfence.config import load
    from ringfence.daemon.policies.manager import probe_words
    from ringfence.errors import ConfigError

    if options.probes and not options.probes.is_dir():
        raise ConfigError(
            f"--probes: {options.probes} is not a directory", hint="it must contain NAME.c and NAME.yaml"
        )
    config = load()
    return probe_words(config._replace(probes_directory=options.probes) if options.probes else config)


def check_files(options: Any) -> int:
    """Reports all errors, or a summary with warnings for the authors."""
    from ringfence.errors import PolicyError
    from ringfence.policy import NodeTiers, compile_policies, load_policies
    from ringfence.policy.review import refuse
    from ringfence.policy.unruled import coverage

    try:
        found = load_policies(_paths(options), _probes(options))
        compiled = compile_policies(found, NodeTiers.usual())
        refuse(found)
    except PolicyError as error:
        if options.output not in DOCUMENTS:  # the loader's hint would recommend this very command
            raise PolicyError(
                error.problems, hint="docs/reference/policy-language.md explains every key"
            ) from None
        problems = [problem._asdict() for problem in error.problems]
        print_document({"problems": problems, "notes": []}, options.output)
        return error.exit_code
    notes = _notes(found)
    events = coverage(found) if options.events else []
    blind = [one.event for one in events if one.blind]
    if options.output in DOCUMENTS:
        report = {"policies": len(found.policies), "rules": found.rules, "problems": [], "notes": notes}
        if events:
            report["events"] = [one._asdict() for one in events]
        print_document(report, options.output)
        return 1 if blind else 0
    _print_checked(found.policies, found.rules, notes, len({one.rule.id for one in compiled.shortfalls}))
    if events:
        rows = [(one.event, ", ".join(one.rules) or one.reason or "neither") for one in events]
        print("\n".join(map(visible, table(("event", "rules, or why there are none"), rows))))
    return 1 if blind else 0


def _print_checked(policies: Any, rules: int, notes: list[dict[str, Any]], weaker: int) -> None:
    """Prints the notes on rules and a summary. `weaker`: the rules with a weaker effective action."""
    for note in notes:
        level = colour(f"{note['level']}:", "yellow")
        place = f"{visible(note['file'])}:{note['line']}:{note['column']}"
        print(f"{place}: {level} {note['rule']}: {visible(note['note'])}")
    print(f"{len(policies)} policies with {rules} rules: no errors")
    if weaker:
        print(
            f"without BPF-LSM, {weaker} rules have a weaker effective action than requested:"
            " see `ringfence policy explain`"
        )


def _notes(policies: Any) -> list[dict[str, Any]]:
    """Returns the weaknesses of each rule, in file order."""
    from ringfence.policy.explain import cautions
    from ringfence.policy.review import Note, remarks
    from ringfence.proof.benign_twins import twins

    weak = [
        Note(rule.place.file, rule.place.line, rule.place.column, rule.id, "note", text)
        for policy in policies.policies
        for rule in policy.rules
        for text in cautions(rule)
    ]
    return [note._asdict() for note in sorted({*weak, *remarks(policies, twins())})]


def import_files(options: Any) -> int:
    """Prints policies of other tools as policies, and on stderr what was not kept of them."""
    import sys

    from ringfence.policy.importing import import_policies

    found = import_policies(options.files)
    for remark in found.remarks:
        sys.stderr.write(f"{visible(str(remark))}\n")
    sys.stderr.write(f"{found.rules} rules written, {len(found.remarks)} remarks\n")
    sys.stdout.write(found.policies)
    return 0 if found.rules else 1


def explain_files(options: Any) -> int:
    """Explains every rule and its effective action on this node (if root; else on a typical node)."""
    from ringfence.bpf.capabilities import NodeCapabilities
    from ringfence.errors import Error
    from ringfence.policy import NodeTiers, load_policies
    from ringfence.policy.explain import explain

    found = load_policies(_paths(options), _probes(options))
    known = {rule.id for policy in found.policies for rule in policy.rules}
    known |= {rule.id for policy in found.policies for rule in policy.probe_rules}
    for word in options.rule:
        if word not in known:
            raise Error(f"no rule {word!r} in these files", hint="without --rule, all rules are explained")
    node = NodeCapabilities.detect()
    tiers = NodeTiers.of(node) if node.permitted else None
    print("\n".join(map(visible, explain(found, frozenset(options.rule), tiers, _tried(known)))))
    return 0


def _tried(rules: set[str]) -> dict[str, list[str]]:
    """Maps rules to the attacks and benign twins that test them."""
    from ringfence.proof.cases import cases_for

    return {
        rule: [f"`{case.tried}`, with the benign twin `{case.lawful}`" for case in cases_for(rule)]
        for rule in rules
    }


def list_loaded(options: Any) -> int:
    """Prints the running agent's rules."""
    from ringfence.cli.client import request

    rules = request(options.socket, "policies")
    if options.output in DOCUMENTS:
        print_document(rules, options.output)
        return 0
    if options.output == "attack-layer":
        from ringfence.policy.attack_layer import attack_layer

        print_json(attack_layer(rules, f"Ringfence on {os.uname().nodename}"))
        return 0
    heads = ("RULE", "SEVERITY", "POLICY", "ACTION", "EFFECTIVE", "MECHANISM", "LOCATION")
    rows = [
        (
            r["rule"],
            r["severity"],
            r["policy"],
            r["asked"],
            "blind" if r["action"] == "none" else r["action"],
            r["mechanism"],
            f"{r['file']}:{r['line']}",
        )
        for r in rules
    ]
    colours = {(n, 1): SEVERITY_COLOURS.get(row[1], "") for n, row in enumerate(rows)}
    print("\n".join(table(heads, rows, colours, room(options))))
    return 0


def print_schema(_options: Any) -> int:
    """Prints the JSON Schema."""
    from ringfence.policy.schema import schema

    print_json(schema())
    return 0
