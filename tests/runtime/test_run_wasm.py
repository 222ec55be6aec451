# SPDX-License-Identifier: Apache-2.0
"""`ringfence run` with WebAssembly: files, artifacts of the store, and the sandbox's own fences."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.runtime.images.layouts import Layout
from tests.runtime.images.test_modules import artifact
from tests.runtime.sandboxes import Sandboxes
from tests.runtime.test_wasm import library, module  # noqa: F401 (a fixture)
from tests.support import force

pytestmark = [pytest.mark.root]


@pytest.fixture
def modules(sandboxes: Sandboxes, module: Path) -> Sandboxes:  # noqa: F811
    """Sandboxes with an engine, and with app.wasm in the working directory."""
    library()
    force.need_program("gcc")
    (sandboxes.directory / "app.wasm").write_bytes(module.read_bytes())
    return sandboxes


def test_a_file_is_run(modules: Sandboxes) -> None:
    """By its name or its path, with its arguments and its exit code. The engine is installed once."""
    for source in ("app.wasm", "./app.wasm", str(modules.directory / "app.wasm")):
        got = modules.run("-q", source=source, words=["show", "a b"], cwd=modules.directory)
        assert got.returncode == 7, got.stderr
        assert got.stdout.splitlines()[:3] == ["/app.wasm", "show", "a b"]
    engines = [name for name in os.listdir(modules.images / "wasm") if name.endswith(".digest")]
    assert len(engines) == 1


def test_an_artifact_of_the_store_is_run(modules: Sandboxes) -> None:
    """`image import` takes it, and the image's platform says how it is executed."""
    layout = Layout(modules.directory / "layout")
    data = (modules.directory / "app.wasm").read_bytes()
    layout.add(artifact(layout, data), "1")
    got = modules.run("-q", source=str(layout.path), words=["write", "/new"])
    assert (got.returncode, got.stdout) == (0, "write: done\n"), got.stderr
    got = modules.run("-q", source="layout:1", words=["read", "/new"])
    assert got.stdout == "read: No such file or directory\n", got.stderr


def test_the_sandboxs_options_hold_for_modules(modules: Sandboxes, tmp_path: Path) -> None:
    """Volumes, a read-only root, another user, own user ids, limits of memory."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content")
    source = str(modules.directory / "app.wasm")

    def output(*options: str, words: tuple[str, ...]) -> str:
        got = modules.run("-q", *options, source=source, words=words)
        assert got.returncode == 0, got.stderr
        return got.stdout.strip()

    volume = ("-v", f"{tmp_path}/data:/data:ro")
    assert output(*volume, words=("read", "/data/file")) == "read: 7 bytes: content"
    assert output(*volume, words=("write", "/data/new")) != "write: done"
    assert output("--read-only", words=("write", "/new")) != "write: done"
    assert output("--userns", "auto", words=("write", "/new")) == "write: done"
    assert output("--user", "1000", words=("write", "/new")) != "write: done"
    got = modules.run("-q", "-m", "64m", source=source, words=("grow",))
    assert got.returncode == 137 or int(got.stdout.split()[1]) < 64


def test_a_detached_module_is_stopped(modules: Sandboxes) -> None:
    """SIGTERM ends it; its output is kept."""
    name = modules.name()
    got = modules("run", *modules.named("-d", name=name), str(modules.directory / "app.wasm"), "sleep")
    assert got.returncode == 0, got.stderr
    assert modules.listed()[name]["status"] == "running"
    assert modules("stop", name).returncode == 0
    assert modules("logs", name).stdout in ("waiting\n", "")


def test_a_file_that_is_no_module_is_refused(modules: Sandboxes) -> None:
    """Whatever its name says."""
    path = modules.directory / "text.wasm"
    path.write_text("text")
    assert "is not an archive" in modules.refused(source=str(path))
    path.write_bytes(b"\0asm\1\0\0\0" + bytes(range(100)))
    assert "cannot compile the module" in modules.refused(source=str(path))
