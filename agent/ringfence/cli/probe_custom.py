# SPDX-License-Identifier: Apache-2.0
"""`ringfence probe new`, `check` and `run`: create, check and run custom probes, without an agent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ringfence.cli.output import colour, print_document, print_json, table
from ringfence.cli.parser import DOCUMENTS, Commands, Parser, add_command, add_output

_POLL = 0.05  # seconds


def register(parts: Commands) -> None:
    """Add the subcommands."""
    new = add_command(
        parts, "new", write_new,
        help="create a custom probe from a template",
        text="Create NAME.c and NAME.yaml, a working custom probe that reports slow fsync calls.",
        examples="ringfence probe new slow-sync\nringfence probe new slow-sync --directory probes.d",
    )  # fmt: skip
    new.add_argument("name", metavar="NAME", help="name of the probe: a-z, 0-9 and `-`")
    new.add_argument(
        "--directory", type=Path, default=Path(), metavar="DIR", help="target directory (default: current)"
    )
    check = add_command(
        parts, "check", check_files,
        help="compile and verify custom probes",
        text="Compile custom probes with bcc and have the kernel verify them. Nothing is attached.",
        examples="ringfence probe check probes.d/\nringfence probe check -o json slow-sync.yaml",
    )  # fmt: skip
    _add_files(check, "+")
    add_output(check)
    run = add_command(
        parts, "run", run_file,
        help="attach one custom probe and print its events",
        text="Attach one custom probe and print its events until interrupted. Containers are identified by\n"
        "the names of their cgroups; policies are not evaluated.",
        examples="ringfence probe run slow-sync.yaml\n"
        "ringfence probe run --seconds 10 -o json slow-sync.c | jq .details",
    )  # fmt: skip
    _add_files(run, 1)
    run.add_argument("--seconds", type=float, default=0.0, metavar="N", help="stop after this many seconds")
    run.add_argument("--count", type=int, default=0, metavar="N", help="stop after this many events")
    add_output(run)
    add_command(
        parts, "schema", print_schema,
        help="print the JSON Schema of custom probes",
        text="Print the JSON Schema of a custom probe's YAML, for editors and external validation.",
        examples="ringfence probe schema > probe.schema.json",
    )  # fmt: skip


def _add_files(parser: Parser, count: Any) -> None:
    parser.add_argument(
        "files", nargs=count, type=Path, metavar="FILE", help="NAME.yaml, NAME.c, or a directory of probes"
    )
    parser.add_argument("--debug", action="store_true", help="show the complete compiler and verifier output")


def write_new(options: Any) -> int:
    """Writes two files; never overwrites existing ones."""
    from ringfence.errors import Error
    from ringfence.probes.read import NAME
    from ringfence.probes.skeleton import skeleton

    if not NAME.fullmatch(options.name):
        raise Error(f"{options.name!r} is not a valid name (at most 40 characters of a-z, 0-9 and `-`)")
    files = {options.directory / f"{options.name}{end}": text for end, text in skeleton(options.name).items()}
    for path in files:
        if path.exists():
            raise Error(f"{path} already exists", hint="choose another name; nothing was written")
    for path, text in files.items():
        try:
            path.write_text(text)
        except OSError as error:
            raise Error(f"{path} cannot be written: {error.strerror}") from error
        print(path)
    print(f"next: ringfence probe check {next(reversed(files))}")
    return 0


def _workshop() -> Any:
    from ringfence.config import load
    from ringfence.containers.hierarchy import detect
    from ringfence.daemon.probes.setup import workshop
    from ringfence.errors import NotPermittedError

    if os.geteuid() != 0:
        raise NotPermittedError("compiling and verifying a probe needs root", hint="use sudo")
    return workshop(load(), detect())


def _definitions(files: list[Path]) -> Iterator[Any]:
    from ringfence.errors import ProbeError
    from ringfence.probes.read import read_directory, read_file

    for path in files:
        if not path.is_dir():
            yield read_file(path)
            continue
        found = read_directory(path)
        problems = [problem for some in found.problems.values() for problem in some]
        if problems:
            raise ProbeError(problems)
        yield from found.definitions.values()


def check_files(options: Any) -> int:
    """Checks every probe. Returns 2, or raises ProbeError, if one is refused."""
    from ringfence.errors import PolicyError, ProbeError
    from ringfence.probes.layout import new_decoder

    report: list[dict[str, Any]] = []
    failed: list[ProbeError] = []
    try:
        probes = list(_definitions(options.files))
    except PolicyError as error:
        raise ProbeError(error.problems, hint=error.hint) from error
    workshop = _workshop()
    for probe in probes:
        try:
            built = workshop.build(probe, attach=False)
            built.close()
            new_decoder(probe, built.size, built.shape)
        except ProbeError as error:
            failed.append(error)
            report.append({"probe": probe.name, "problems": [p._asdict() for p in error.problems]})
        else:
            report.append(_about(probe, built))
    if options.output in DOCUMENTS:
        print_document(report, options.output)
        return 2 if failed else 0
    for row in report:
        if "hooks" in row:
            print("\n".join(_described(row)))
    if failed:
        log = "\n".join(error.log for error in failed)
        raise ProbeError([problem for error in failed for problem in error.problems], log=log)
    return 0


def _about(probe: Any, built: Any) -> dict[str, Any]:
    types = {name: f"{kind}[{count}]" if count else kind for name, kind, _, _, count in built.shape}
    return {
        "probe": probe.name,
        "problems": [],
        "seconds": round(built.seconds, 3),
        "hooks": list(built.hooks),
        "event_bytes": built.size,
        "fields": [
            {
                "name": f.name,
                "type": types[f.name],
                "read_as": f.kind,
                "unit": f.unit,
                "meaning": f.description,
            }
            for f in probe.fields.values()
        ],
        "metrics": [metric.name for metric in probe.metrics],
    }


def _described(row: Mapping[str, Any]) -> list[str]:
    ok = colour("ok", "green")
    lines = [f"{row['probe']}: {ok}: {', '.join(row['hooks'])} ({row['seconds']:.1f} s)"]
    heads = ("FIELD", "TYPE", "READ AS", "UNIT", "MEANING")
    rows = [tuple(f[key] for key in ("name", "type", "read_as", "unit", "meaning")) for f in row["fields"]]
    lines += [f"  {line}" for line in table(heads, rows)]
    if row["metrics"]:
        lines.append(f"  metrics: {', '.join('ringfence_custom_' + name for name in row['metrics'])}")
    return lines


def run_file(options: Any) -> int:
    """Attaches the probe, prints its events, detaches it, and reports lost events."""
    from ringfence.cli.probe_run import Watcher

    probes = list(_definitions(options.files))
    if len(probes) != 1:
        from ringfence.errors import Error

        raise Error(f"{len(probes)} probes given; `probe run` runs exactly one")
    watcher = Watcher(probes[0], _workshop())
    end = time.monotonic() + options.seconds if options.seconds else float("inf")
    left = options.count or -1
    try:
        while time.monotonic() < end and left:
            for line in watcher.lines(left if left > 0 else 4096, options):
                print(line, flush=True)
                left -= 1 if left > 0 else 0
            time.sleep(_POLL)
    except KeyboardInterrupt:
        pass
    finally:
        watcher.close()
    return 0


def print_schema(_options: Any) -> int:
    """Prints the JSON Schema."""
    from ringfence.probes.schema import schema

    print_json(schema())
    return 0
