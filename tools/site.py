# SPDX-License-Identifier: Apache-2.0
"""Hooks of MkDocs for the site of docs/ (mkdocs.yml).

Entries `DIRECTORY/*` of the navigation become the pages of that directory. Links that leave docs/ lead to the
repository. With the variable MERMAID, the path of a mermaid.min.js, the site has that and needs no network.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
_MERMAID = "assets/mermaid.min.js"
_LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^(```.*?^```)", re.M | re.S)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills in the navigation; a directory that is not there yet is left out."""
    config.nav = _expanded(config.nav)
    if os.environ.get("MERMAID"):
        config.extra_javascript.append(_MERMAID)
    return config


def _expanded(entry: Any) -> list[Any]:
    """Returns the entry, or in place of a directory all its pages, README.md first."""
    if isinstance(entry, list):
        return [part for one in entry for part in _expanded(one)]
    if isinstance(entry, dict):
        ((title, below),) = entry.items()
        return [{title: below if _is_page(below) else _expanded(below)}]
    if _is_page(entry):
        return [entry]
    pages = sorted(
        (ROOT / "docs" / entry[:-2]).glob("*.md"), key=lambda page: (page.name != "README.md", page)
    )
    return [page.relative_to(ROOT / "docs").as_posix() for page in pages]


def _is_page(entry: Any) -> bool:
    return isinstance(entry, str) and not entry.endswith("/*")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds Mermaid, if its path is given."""
    if path := os.environ.get("MERMAID"):
        files.append(File.generated(config, _MERMAID, abs_src_path=str(Path(path).resolve(strict=True))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites links that leave docs/ or lead to a directory. Without a target they fail the build."""
    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(lambda found: _rewritten(found, page, config), part) for part in parts[::2]]
    return "".join(parts)


def _rewritten(found: re.Match[str], page: Page, config: MkDocsConfig) -> str:
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), found[2]))
    target = ROOT / path
    if not target.exists() or (path.startswith("docs/") and target.is_file()):
        return found[0]
    kind = "tree" if target.is_dir() else "blob"
    return f"{found[1]}{config.repo_url}/{kind}/main/{path}{found[3]}"
