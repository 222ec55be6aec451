# SPDX-License-Identifier: Apache-2.0
"""`ringfence image import|list|inspect|rm|sweep`: arguments in, a table or a document out.

The caller of `add_commands` says how tables and documents are printed: `ringfence` fits tables to the
terminal and knows YAML; by itself this is text and JSON.

The parser is created at every start of `ringfence`, so a command's modules are imported when it runs.
"""

from __future__ import annotations

import argparse
import sys

from ringfence_linux import strictjson
from ringfence_runtime.errors import Error
from ringfence_runtime.images.errors import show
from ringfence_runtime.images.store import DEFAULT_ROOT, ImageStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ringfence_runtime.images.importer import Imported
    from ringfence_runtime.images.limits import Limits
    from ringfence_runtime.images.platforms import Platform
    from ringfence_runtime.images.records import Image
    from ringfence_runtime.images.store import Removed

__all__ = ["add_commands", "main"]

_DOCUMENTS = ("json", "yaml")

_PATH = (
    "create it with skopeo copy docker://IMAGE oci:PATH:TAG; of several images one is chosen by its name, or"
    " by its place (@0)"
)
_DEVICES = ("refuse", "skip", "make")


def _size(text: str) -> int:
    """`512M`, `10G`, or bytes."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    factor = units.get(text[-1:].upper(), 1)
    number = text[:-1] if factor > 1 else text
    if not (number.isascii() and number.isdigit()) or len(number) > 15:
        raise argparse.ArgumentTypeError(f"{text!a} is not a size such as 512M")
    return int(number) * factor


def _platform(text: str) -> Platform:
    from ringfence_runtime.images.platforms import Platform

    try:
        return Platform.parse(text)
    except Error as error:
        raise argparse.ArgumentTypeError(error.message) from None


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds `-o`."""
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="(%(default)s)")


def add_commands(
    parser: argparse.ArgumentParser, output: Callable[[argparse.ArgumentParser], None] = add_output
) -> None:
    """Adds the commands to a parser; each sets its function in `args.image_run`. `output` adds `-o`.

    The functions print by `args.image_document(value, args)` and `args.image_table(heads, rows, args)`.
    """
    parser.set_defaults(image_document=_document, image_table=_table)
    parser.add_argument("--image-root", default=DEFAULT_ROOT, metavar="DIR", help="the store (%(default)s)")
    commands = parser.add_subparsers(dest="image_command", required=True, metavar="COMMAND")
    add = commands.add_parser(
        "import",
        help="import an OCI layout (directory or tar), a docker archive or a WebAssembly module",
    )
    add.add_argument("path", metavar="PATH[:REFERENCE]", help=_PATH)
    add.add_argument("--name", default="", help="its name in the store")
    add.add_argument("--platform", type=_platform, help="os/architecture[/variant] (default: this machine's)")
    add.add_argument(
        "--devices", choices=_DEVICES, default="refuse", help="device nodes in layers (%(default)s)"
    )
    add.add_argument(
        "--max-size", type=_size, metavar="SIZE", help="maximum size of all layers, unpacked (128G)"
    )
    add.add_argument("--max-entries", type=int, metavar="N", help="maximum files in one layer (500000)")
    add.add_argument(
        "--max-ratio", type=int, metavar="N", help="maximum unpacked bytes per compressed byte (250)"
    )
    add.add_argument("--no-wait", action="store_true", help="fail if another import is running")
    add.add_argument(
        "--no-flush", action="store_true", help="do not sync to disk (for a store that can be created again)"
    )
    output(add)
    add.set_defaults(image_run=_import)
    several = commands.add_parser("list", help="list the images of the store")
    output(several)
    several.set_defaults(image_run=_list)
    inspect = commands.add_parser("inspect", help="show the store's record of an image")
    inspect.add_argument("image")
    output(inspect)
    inspect.set_defaults(image_run=_inspect)
    remove = commands.add_parser("rm", help="remove images and their unused layers")
    remove.add_argument("images", nargs="+", metavar="IMAGE")
    remove.add_argument(
        "-f", "--force", action="store_true", help="also if containers use it; they keep running"
    )
    remove.set_defaults(image_run=_remove)
    commands.add_parser("sweep", help="remove leftovers of a crash").set_defaults(image_run=_sweep)


def _limits(args: argparse.Namespace) -> Limits:
    from dataclasses import replace

    from ringfence_runtime.images.limits import Limits

    limits = Limits()
    if args.max_size:
        limits = replace(
            limits, image_bytes=args.max_size, layer_bytes=args.max_size, file_bytes=args.max_size
        )
    if args.max_entries:
        limits = replace(limits, entries=args.max_entries)
    return replace(limits, ratio=args.max_ratio) if args.max_ratio else limits


def _import(args: argparse.Namespace) -> None:
    from ringfence_runtime.images.importer import Options, import_image
    from ringfence_runtime.images.reference import split_reference

    path, reference = split_reference(args.path)
    options = Options(name=args.name, reference=reference, platform=args.platform, devices=args.devices,
                      limits=_limits(args), wait=not args.no_wait, durable=not args.no_flush)  # fmt: skip
    done = import_image(ImageStore(args.image_root), path, options)
    if args.output in _DOCUMENTS:
        args.image_document(_as_json(done), args)
        return
    _write(f"{done.name} {done.image.digest}")
    _write(f"{_layers(len(done.unpacked))} unpacked, {len(done.shared)} shared, {_human(done.image.size)}")
    for line in _notes(done):
        _write(line)


def _as_json(done: Imported) -> dict[str, Any]:
    return {"name": done.name, "image": _image_json(done.image), "shared": done.shared,
            "unpacked": [layer.as_json() for layer in done.unpacked]}  # fmt: skip


def _notes(done: Imported) -> list[str]:
    """Describes kept privileges (setuid, capabilities) and omitted entries."""
    facts = [layer.facts for layer in done.unpacked]
    notes = []
    setuid = [path for each in facts for path in each.setuid]
    if count := sum(each.setuid_count for each in facts):
        notes.append(f"setuid or setgid programs: {count} ({', '.join(map(show, setuid[:5]))})")
    for what, text in (("capabilities", "files with capabilities"), ("devices", "device nodes created"),
                       ("devices_skipped", "device nodes omitted"),
                       ("odd_names", "names with control characters or invalid UTF-8")):  # fmt: skip
        if count := sum(getattr(each, what) for each in facts):
            notes.append(f"{text}: {count}")
    if count := sum(sum(each.dropped_xattrs.values()) for each in facts):
        notes.append(f"extended attributes omitted: {count}")
    return notes


def _image_json(image: Image) -> dict[str, Any]:
    return {"names": image.names, **image.data}


def _list(args: argparse.Namespace) -> None:
    images = ImageStore(args.image_root).images()
    if args.output in _DOCUMENTS:
        args.image_document([_image_json(image) for image in images], args)
        return
    rows = [
        (name, image.digest if args.output == "wide" else image.digest[:19], image.platform,
         str(len(image.layers)), _human(image.size), image.imported)
        for image in images for name in image.names or ["<none>"]
    ]  # fmt: skip
    args.image_table(("NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "IMPORTED"), rows, args)


def _inspect(args: argparse.Namespace) -> None:
    args.image_document(_image_json(ImageStore(args.image_root).find(args.image)), args)


def _document(value: Any, _args: argparse.Namespace) -> None:
    _write(strictjson.dumps(value, indent="  "))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], _args: argparse.Namespace) -> None:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        _write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _remove(args: argparse.Namespace) -> None:
    store = ImageStore(args.image_root)
    for name in args.images:
        _say_removed(store.remove(name, force=args.force))


def _sweep(args: argparse.Namespace) -> None:
    _say_removed(ImageStore(args.image_root).sweep())


def _say_removed(removed: Removed) -> None:
    for name in removed.names:
        _write(f"removed {name}")
    if removed.layers:
        _write(f"removed {_layers(len(removed.layers))}, {_human(removed.bytes)}")


def _layers(count: int) -> str:
    return f"{count} layer{'' if count == 1 else 's'}"


def _human(size: int) -> str:
    number = float(size)
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, 1 for an error (two lines on stderr), 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="ringfence image", description="Images of containers.")
    add_commands(parser)
    args = parser.parse_args(argv)
    try:
        args.image_run(args)
    except Error as error:
        sys.stderr.write(f"ringfence: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    except BrokenPipeError:
        return 1
    return 0
