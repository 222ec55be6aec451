# SPDX-License-Identifier: Apache-2.0
"""`ringfence init`: writes a first configuration, and says what this node offers."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from ringfence.cli.parser import Commands, add_command
from ringfence.errors import ConfigError, NotPermittedError
from ringfence.places import DEFAULT_FILE

_STEPS = {
    "audit": "nothing is blocked in mode audit; `ringfence init --force --mode enforce` ends that",
    "enforce": "every policy is enforced, whatever its own mode is",
    "policy": "each policy has the mode in its file; the bundled ones only report",
}


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "init",
        run,
        text="Write a configuration file with every key, its meaning and its default, all commented but\n"
        "the mode; then say what this node offers, and how to go on. An existing file stays as it\n"
        "is, unless --force is given. The default mode reports attacks and blocks nothing.",
        examples="ringfence init\nringfence init --mode policy\nringfence init --config ./agent.yaml",
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_FILE, metavar="FILE",
        help=f"the file to write (default: {DEFAULT_FILE})",
    )  # fmt: skip
    parser.add_argument("--mode", choices=tuple(_STEPS), default="audit", help="mode (default: audit)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(options: Any) -> int:
    """Writes the file and prints a summary."""
    from ringfence.cli.doctor import examine, summary
    from ringfence.config.sample import sample

    _write(options.config, sample(options.mode), force=options.force)
    print(f"wrote {options.config}: mode {options.mode}; {_STEPS[options.mode]}\n")
    print("\n".join(summary(list(examine(options.config, None)))))
    where = "" if options.config == DEFAULT_FILE else f" --config {options.config}"
    print(
        f"\nnext: edit the file, then `ringfence agent --check{where}`; alerts: `ringfence events --follow`"
    )
    return 0


def _write(path: Path, text: str, *, force: bool) -> None:
    """Writes a file at once. Raises Error if it exists, or may not be written."""
    if path.exists() and not force:
        raise ConfigError(f"{path} exists", hint="--force replaces it; --config names another file")
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text)
        new.replace(path)
    except PermissionError as error:
        raise NotPermittedError(f"{path}: {error.strerror}", hint="use sudo, or --config FILE") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="--config names another file") from error
    finally:
        with contextlib.suppress(OSError):
            new.unlink()
