# SPDX-License-Identifier: Apache-2.0
"""`ringfence audit`: checks how containers and the node are configured, and how to fix weaknesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ringfence.cli.output import SEVERITY_COLOURS, colour, print_document, print_json, room, table
from ringfence.cli.parser import DOCUMENTS, Commands, add_command, add_output
from ringfence.severity import SEVERITIES, at_least


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "audit",
        run,
        text="Inspect the running containers and this node: privileges, mounts, namespaces, seccomp,\n"
        "kernels and runtimes with known vulnerabilities, open APIs. Each finding has a score from 0 to\n"
        "100 and a fix. Read-only; needs no agent. Exit code 1 if a finding is at least as severe as\n"
        "--fail-on.",
        examples=(
            "ringfence audit\n"
            "ringfence audit --min-severity high\n"
            "ringfence audit -o sarif > audit.sarif\n"
            "ringfence audit --containers-patterns 'myapp-*' --containers-known no"
        ),
    )
    add_output(parser, "sarif")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the agent's configuration file")
    parser.add_argument(
        "--only", choices=("containers", "node"), help="check only containers or the node (default: both)"
    )
    parser.add_argument(
        "--min-severity", choices=SEVERITIES, default="info",
        help="show findings of at least this severity (default: info)",
    )  # fmt: skip
    parser.add_argument(
        "--fail-on", choices=(*SEVERITIES, "never"), default="high",
        help="exit code 1 for findings of at least this severity (default: high)",
    )  # fmt: skip
    for flag, key, metavar in (
        ("--containers-patterns", "containers.patterns", "NAME"),
        ("--containers-known", "containers.known", "yes|no"),
        ("--cri-socket", "cri.socket", "auto|off|PATH"),
    ):
        parser.add_argument(
            flag, dest="key_" + key, action="append", metavar=metavar, help="same as for `ringfence agent`"
        )


def run(options: Any) -> int:
    """Runs the audit and prints its findings."""
    from ringfence.audit.report import as_json, as_sarif, ordered
    from ringfence.audit.survey import survey
    from ringfence.cli.progress import progress
    from ringfence.config import load

    given = {name[4:]: words for name, words in vars(options).items() if name.startswith("key_") and words}
    config = load(options.config, flags=given)
    with progress("checking"):
        found = survey(config, node=options.only != "containers", containers=options.only != "node")
    shown = [one for one in ordered(found.findings) if at_least(one.severity, options.min_severity)]
    if options.output == "sarif":
        print_json(as_sarif(shown, found.node, found.unseen))
    elif options.output in DOCUMENTS:
        report = as_json(shown, found.node, found.containers, found.unseen)
        print_document(report, options.output)
    else:
        print("\n".join(_text(shown, found, room(options))))
    if options.fail_on == "never":
        return 0
    return int(any(at_least(one.severity, options.fail_on) for one in found.findings if not one.accepted))


def _text(findings: list[Any], found: Any, limit: int) -> list[str]:
    from ringfence.audit.report import summary
    from ringfence.export.escape import escape

    rows: list[list[str]] = []
    colours: dict[tuple[int, int], str] = {}
    fixes: dict[str, Any] = {}
    for number, one in enumerate(one for one in findings if not one.accepted):
        rows.append(
            [str(one.points), one.severity, one.check.id, escape(one.subject, 512), escape(one.detail, 512)]
        )
        colours[number, 1] = SEVERITY_COLOURS[one.severity]
        fixes.setdefault(one.check.id, one.check)
    counts = ", ".join(f"{count} {word}" for word, count in summary(findings).items() if count)
    lines = table(("SCORE", "SEVERITY", "CHECK", "WHERE", "WHAT"), rows, colours, limit) if rows else []
    if fixes:
        lines += ["", colour("fixes:", "bold")]
        lines += [f"  {check.id}: {check.title}; {check.fix}" for check in fixes.values()]
    if accepted := [one for one in findings if one.accepted]:
        lines += ["", colour("accepted:", "bold")]
        lines += [
            f"  {one.check.id}: {escape(one.subject, 48)}: {escape(one.accepted, 256)}" for one in accepted
        ]
    if found.unseen:
        lines += ["", colour("not checked:", "bold")]
        lines += [f"  {one.check}: {escape(one.what, 120)}" for one in found.unseen]
    head = f"{found.containers} containers and node {escape(found.node, 64)}: {counts or 'nothing found'}"
    return [head[: limit or None], "", *lines] if lines else [head[: limit or None]]
