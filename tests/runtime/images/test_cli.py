# SPDX-License-Identifier: Apache-2.0
"""The commands, as `ringfence image` calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence_runtime.images import ImageStore, prepare_rootfs
from ringfence_runtime.images.cli import main
from tests.runtime.images.layouts import Layout, entry, file, layer

NewLayout = Callable[[], Layout]
Command = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs a command on a private store; returns its exit code."""
    return lambda *argv: main(["--image-root", str(tmp_path / "store"), *argv])


def test_import_list_remove(
    command: Command, new_layout: NewLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image's life in the store, in text and in JSON."""
    layout = new_layout()
    layout.add(layout.image(layer(file(b"bin/su", b"x" * 2048, mode=0o4755), file(b"a\x1b[31m"))), "v1")
    assert command("import", f"{layout.path}:v1", "--name", "app") == 0
    text = capsys.readouterr().out
    assert text.startswith("app:latest sha256:")
    assert "setuid or setgid programs: 1 ('bin/su')" in text
    assert "\x1b" not in text
    assert command("list") == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "IMPORTED"]
    assert row.split()[0] == "app:latest"
    assert command("list", "-o", "json") == 0
    (image,) = json.loads(capsys.readouterr().out)
    assert image["names"] == ["app:latest"]
    assert command("inspect", "app") == 0
    assert json.loads(capsys.readouterr().out) == image
    assert command("rm", "app") == 0
    assert "removed 1 layer, 2.0 KiB" in capsys.readouterr().out


def test_errors_are_two_lines(
    command: Command, new_layout: NewLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    """The problem and the advice; no traceback, no control characters."""
    layout = new_layout()
    layout.add(layout.image(layer(entry(b"n\x1b[2J", b"3", device=(1, 3)))))
    assert command("import", str(layout.path)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        r"ringfence: 'n\x1b[2J' is a device node (1:3)",
        "hint: --devices skip omits them, --devices make creates them",
    ]
    assert command("import", str(layout.path), "--devices", "skip") == 0
    assert "device nodes omitted: 1" in capsys.readouterr().out
    assert command("rm", "nothing") == 1
    assert "there is no image 'nothing'" in capsys.readouterr().err


def test_rm_in_use(
    command: Command, new_layout: NewLayout, store: ImageStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image in use needs --force."""
    layout = new_layout()
    layout.add(layout.image(layer(file(b"f"))))
    assert command("import", str(layout.path)) == 0
    prepare_rootfs(store, "layout0", "c1")
    assert command("rm", "layout0") == 1
    assert "in use by c1" in capsys.readouterr().err
    assert command("rm", "--force", "layout0") == 0
    assert command("sweep") == 0


def test_limits_of_the_command_line(
    command: Command, new_layout: NewLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    """--max-size and --max-entries apply to the import; invalid values are refused by the parser."""
    layout = new_layout()
    layout.add(layout.image(layer(file(b"f", bytes(5000)), file(b"g"))))
    assert command("import", str(layout.path), "--max-size", "4K") == 1
    assert command("import", str(layout.path), "--max-entries", "1") == 1
    assert command("import", str(layout.path), "--max-size", "1M", "--max-entries", "2") == 0
    for wrong in ("x", "-1", "1X", ""):
        with pytest.raises(SystemExit):
            command("import", str(layout.path), "--max-size", wrong)
    capsys.readouterr()


def test_as_a_module(new_layout: NewLayout, tmp_path: Path) -> None:
    """`python -m ringfence_runtime.images` is the same command."""
    argv = [sys.executable, "-m", "ringfence_runtime.images", "--image-root", str(tmp_path / "store"), "list"]
    assert subprocess.run(argv, capture_output=True, check=True, text=True).stdout.startswith("NAME")


def test_launch_path_is_light() -> None:
    """Preparing and mounting a root filesystem imports nothing that takes milliseconds."""
    code = (
        "import sys; import ringfence_runtime.images.rootfs, ringfence_runtime.images.mounting,"
        " ringfence_runtime.images.users; print(*sorted(sys.modules))"
    )
    argv = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = ['runtime']; {code}"]
    root = Path(__file__).parents[3]
    loaded = subprocess.run(argv, capture_output=True, check=True, text=True, cwd=root).stdout.split()
    heavy = {
        "argparse",
        "json",
        "re",
        "typing",
        "enum",
        "dataclasses",
        "subprocess",
        "tarfile",
        "collections",
    }
    assert heavy.isdisjoint(loaded)
    assert "ringfence_runtime.images.importer" not in loaded
