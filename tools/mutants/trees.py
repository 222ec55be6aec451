# SPDX-License-Identifier: Apache-2.0
"""A copy of the tree for the defects, and the probes compiled there with each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.mutants.table import ROOT, Mutant

__all__ = ["Broken", "Tree", "environment", "tree"]

#: what tests read; the rest of the tree is left out
_COPIED = (
    "agent", "runtime", "probes", "tests", "tools", "policies", "build", "docs", "examples", "charts",
    "pyproject.toml", "mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md",
    "SECURITY.md", "RELEASING.md",
)  # fmt: skip
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".hypothesis", "build-*")


class Broken(RuntimeError):
    """A defect that the compiler refuses."""


class Tree:
    """The copy. `objects` has one compiled object per defect, and `unchanged.o`."""

    def __init__(self, root: Path) -> None:
        self.root, self.objects = root, root / "build/mutants"
        self.objects.mkdir(parents=True)

    def _make(self) -> None:
        argv = ["make", "-s", "-j2", "-C", str(self.root / "probes")]
        # clang's own variable: a defect may leave something unused, which is no error here
        lenient = {**os.environ, "CCC_OVERRIDE_OPTIONS": "x-Werror"}
        done = subprocess.run(argv, env=lenient, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Broken(done.stderr[-2000:])

    def build(self) -> None:
        """Compile the probes as they are."""
        self._make()
        self._keep("unchanged")

    def build_with(self, mutant: Mutant) -> None:
        """Compile the probes with a defect. The sources are as before afterwards."""
        path = self.root / mutant.file
        text = path.read_text()
        path.write_text(mutant.applied(text))
        try:
            self._make()
            self._keep(mutant.id)
        finally:
            path.write_text(text)

    def _keep(self, name: str) -> None:
        shutil.copyfile(self.root / "agent/ringfence/_bpf/ringfence.bpf.o", self.objects / f"{name}.o")


@contextmanager
def tree() -> Iterator[Tree]:
    """A copy of the working tree below the build directory, removed at the end.

    Not in a temporary directory: a guest has one of its own.
    """
    (ROOT / "build").mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="mutants-", dir=ROOT / "build") as directory:
        root = Path(directory)
        for part in _COPIED:
            _copy(ROOT / part, root / part)
        yield Tree(root)


def _copy(source: Path, to: Path) -> None:
    if source.name == "build":
        probes = source / "probes"
        if probes.is_dir():
            shutil.copytree(probes, to / "probes", symlinks=True)
    elif source.is_dir():
        shutil.copytree(source, to, symlinks=True, ignore=_LEFT_OUT)
    else:
        shutil.copy2(source, to)


def environment(root: Path) -> dict[str, str]:
    """Returns the variables with which Python finds the copy's packages before the installed ones."""
    places = [str(root / "agent"), str(root / "runtime"), str(root)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "1"}
